"""Refreshing the interactions after 1,000 new orders, beside rebuilding them, in growing shops.

    .venv/bin/python benchmarks/incremental.py                          half an hour, 6 GB of disk
    .venv/bin/python benchmarks/incremental.py --lines 200000           to see that it works

For every size a synthetic shop (`synthetic_shop.py`) in an embedded PostgreSQL of its own, with the
settings of `recsys demo`, durable, in a temporary folder; all of them run throughout. Then:

- load the shop, VACUUM ANALYZE, CHECKPOINT;
- rebuild: the interactions of all users from all orders, once; VACUUM ANALYZE, CHECKPOINT;
- refresh: in every round, shop after shop, 1,000 orders come in and a refresh follows. The first
  round is a warm-up that does not count; the table has the median of the others, and their range;
- reconcile: every order compared with what it counts for, once. It must find nothing to repair.

Timed is the work inside the process that does it, as the asset calls it, from reading the shop's
columns to COMMIT. Each is a process of its own, with the imports of a Dagster run; its peak memory
is that of the whole process, without PostgreSQL's own.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from synthetic_shop import Orders, SyntheticShop, append, load, new_orders

from recsys_assets.database import connect
from recsys_assets.local.postgres import PostgresServer

BATCH_ORDERS = 1000
# Orders of the batch before, one a minute, that the overlap of ten minutes reads again.
MOST_READ_AGAIN = 11

GROWTH_GOAL = 1.3
SHARE_GOAL = 0.01
PEAK_GOAL = 300e6


@dataclass
class Measured:
    """A shop in its server, and what was measured there: seconds, and bytes at the peak."""

    shop: SyntheticShop
    url: str
    lines: int
    new_orders: Iterator[Orders]
    rebuild: float = 0.0
    reconcile: float = 0.0
    refreshes: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)

    @property
    def refresh(self) -> float:
        """Seconds of a refresh, in the median."""
        return statistics.median(self.refreshes)


def in_a_process(work: str, url: str) -> dict[str, Any]:
    """Rebuild, refresh or reconcile: what `interactions_work.py` prints."""
    command = [sys.executable, Path(__file__).with_name("interactions_work.py"), work, url]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def tidy(url: str) -> None:
    """Leave the server nothing to do later of what was done before."""
    with connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def loaded(shop: SyntheticShop, url: str, console: Console) -> Measured:
    """Load the shop and build its interactions."""
    started = time.perf_counter()
    with connect(url) as connection:
        lines = load(connection, shop)
        newer = new_orders(connection, shop, BATCH_ORDERS)
    tidy(url)
    console.print(f"{lines:,} lines loaded in {time.perf_counter() - started:.0f} s")
    rebuild = in_a_process("rebuild", url)
    tidy(url)
    console.print(f"rebuilt in {rebuild['seconds']:.1f} s, {rebuild['peak'] / 1e6:.0f} MB")
    return Measured(shop, url, lines, newer, rebuild=rebuild["seconds"])


def refresh(measured: Measured) -> dict[str, Any]:
    """Let one batch of orders come in, and refresh.

    Raises:
        SystemExit: the refresh read other orders than these and a few of those before.
    """
    with connect(measured.url) as connection:
        append(connection, next(measured.new_orders))
    done = in_a_process("refresh", measured.url)
    if not BATCH_ORDERS <= done["orders"] <= BATCH_ORDERS + MOST_READ_AGAIN:
        sys.exit(f"{done['orders']:,} orders were read of {BATCH_ORDERS:,} new ones")
    return done


def reconcile(measured: Measured) -> float:
    """Seconds of a reconciliation.

    Raises:
        SystemExit: it found something to repair, so that the refreshes were wrong.
    """
    done = in_a_process("reconcile", measured.url)
    if done["orders"] or done["users"]:
        sys.exit(f"{done['orders']:,} orders and {done['users']:,} users had to be repaired")
    return float(done["seconds"])


def measure(sizes: list[int], rounds: int, folder: Path, console: Console) -> list[Measured]:
    """Measure shops of all sizes, side by side."""
    with ExitStack() as servers:
        urls = [
            servers.enter_context(PostgresServer(folder / str(size)).in_use()) for size in sizes
        ]
        shops = [
            loaded(SyntheticShop(size), url, console) for size, url in zip(sizes, urls, strict=True)
        ]
        for turn in range(rounds + 1):
            for each in shops:
                done = refresh(each)
                if turn:  # the first is a warm-up
                    each.refreshes.append(done["seconds"])
                    each.peaks.append(done["peak"])
        for each in shops:
            each.reconcile = reconcile(each)
    return shops


def table(shops: list[Measured]) -> Table:
    """A row for every shop."""
    shown = Table(box=box.MARKDOWN)
    for column in (
        "lines", "users", "rebuild s", "refresh s", "range", "refresh / rebuild", "growth",
        "peak MB", "reconcile s",
    ):  # fmt: skip
        shown.add_column(column, justify="right")
    for each in shops:
        shown.add_row(
            f"{each.lines:,}",
            f"{each.shop.n_users:,}",
            f"{each.rebuild:.1f}",
            f"{each.refresh:.3f}",
            f"{min(each.refreshes):.3f}-{max(each.refreshes):.3f}",
            f"{each.refresh / each.rebuild:.2%}",
            f"{each.refresh / shops[0].refresh:.2f}",
            f"{max(each.peaks) / 1e6:.0f}",
            f"{each.reconcile:.1f}",
        )
    return shown


def goals(shops: list[Measured]) -> Iterator[str]:
    """What is to be reached, and whether it is, from the smallest shop to the largest."""
    first, last = shops[0], shops[-1]
    growth, share = last.refresh / first.refresh, last.refresh / last.rebuild
    peak = max(peak for each in shops for peak in each.peaks)
    for met, goal in (
        (
            growth < GROWTH_GOAL,
            f"growth from {first.lines:,} to {last.lines:,} lines: {growth:.2f},"
            f" to be below {GROWTH_GOAL}",
        ),
        (
            share < SHARE_GOAL,
            f"refresh / rebuild at {last.lines:,} lines: {share:.2%}, to be below {SHARE_GOAL:.0%}",
        ),
        (
            peak < PEAK_GOAL,
            f"peak memory of a refresh: {peak / 1e6:.0f} MB, to be below {PEAK_GOAL / 1e6:.0f} MB",
        ),
    ):
        yield f"{'met   ' if met else 'MISSED'} {goal}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    millions = [1_000_000, 4_000_000, 16_000_000]
    parser.add_argument("--lines", type=int, nargs="+", default=millions, help="sizes of shops")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    console = Console(width=130, highlight=False)
    with tempfile.TemporaryDirectory(prefix="recsys-incremental-") as folder:
        # root's servers run as another user, who must come through to their folders
        Path(folder).chmod(0o711)
        shops = measure(sorted(arguments.lines), arguments.rounds, Path(folder), console)
    console.print(table(shops))
    for goal in goals(shops):
        console.print(goal)
    console.print(
        f"{BATCH_ORDERS:,} new orders a refresh; medians of {arguments.rounds} rounds;"
        f" {len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python"
        f" {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
