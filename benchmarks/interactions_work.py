"""One rebuild, refresh or reconciliation of the interactions: the process of `incremental.py`.

    .venv/bin/python benchmarks/interactions_work.py rebuild|refresh|reconcile postgresql://...

It brings along what a run of Dagster does and nothing else, so that its peak memory is that of a
run. Prints one JSON object: seconds, the peak in bytes, and how many orders were read (for
reconcile: repaired) and users recomputed.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import recsys_assets.definitions  # noqa: F401 - what a run imports
from recsys_assets.database import connect
from recsys_assets.ingest.interactions import refresh_interactions
from recsys_assets.ingest.reconcile import reconcile_interactions
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop


def work_once(work: str, url: str) -> dict[str, Any]:
    """Do the work as the asset does it; returns what it took and what was done."""
    settings = ShopSettings()
    half_life, overlap = settings.half_life, settings.overlap
    with connect(url, autocommit=True) as connection:
        started = time.perf_counter()
        shop = inspect_shop(connection, settings)
        if work == "reconcile":
            found = reconcile_interactions(connection, shop, half_life=half_life, overlap=overlap)
            orders, users = found.repaired.orders, found.users_unsound
        else:
            done = refresh_interactions(
                connection, shop, half_life=half_life, overlap=overlap, rebuild=work == "rebuild"
            )
            orders, users = done.changed_orders, done.users_recomputed
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": own_peak_bytes(), "orders": orders, "users": users}


def own_peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss also counts what the parent had when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(work_once(sys.argv[1], sys.argv[2])))
