"""From the COMMIT of an order to the changed answer over HTTP, measured on the running system.

    .venv/bin/python benchmarks/freshness.py          six minutes

Starts a system of its own in a temporary folder - PostgreSQL, Redis, Dagster with its automation,
the API -, loads the sample shop without its last four weeks and materializes everything once. With
--database-url and --api-url it measures a system that runs already, such as that of `recsys demo
--no-simulate`. Then, with the real orders that were held back:

- a drip: orders come in by a Poisson process; after each the API is asked for its user's Top Buys
  every 50 ms, until the answer's `orders_through` has reached the order;
- a burst: thousands of orders in one transaction, until the last of them, and the latest orders of
  some users spread over it, are visible; then a single order;
- where the time goes: what the assets say of themselves in Dagster's materialization events.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection
from itertools import chain, groupby, islice, takewhile
from operator import attrgetter
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import psycopg
from rich import box
from rich.console import Console
from rich.table import Table

from recsys_assets.batch import materialize
from recsys_assets.dagster_storage import open_instance
from recsys_assets.database import connect
from recsys_assets.definitions import build_definitions
from recsys_assets.demo import load_demo
from recsys_assets.local.processes import running_system
from recsys_assets.local.simulator import Order, arrivals, place_orders, waiting_orders
from recsys_assets.session import open_session
from recsys_assets.settings import project_root

POLL_SECONDS = 0.05
LOST_SECONDS = 60.0
BURST_LOST_SECONDS = 600.0
BURST_POLL_SECONDS = 0.2
BURST_USERS = 20
EVENTS_SECONDS = 2.0  # in which a refresh whose lists are visible has written its events
REFRESHED = ("user_product_interactions", "user_top_buys")


class Api:
    """The API, asked over one connection that stays open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=10)

    def knows(self, order: Order) -> bool:
        """Whether the Top Buys of the order's user are made from orders up to this one."""
        path = f"/api/recommendations/top-buys/?user_id={order.user_id}&limit=1"
        self._connection.request("GET", path)
        answer = json.loads(self._connection.getresponse().read())
        through = answer["orders_through"]
        return through is not None and datetime.fromisoformat(through) >= order.placed_at

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass
class Watched:
    """An order that was committed, and when its user's answer knew it (seconds, monotonic)."""

    order: Order
    committed: float
    seen: float | None = None

    @property
    def lag(self) -> float | None:
        """Seconds from COMMIT to the changed answer; None where it was not seen in time."""
        return self.seen - self.committed if self.seen is not None else None


def of_one_moment(orders: Iterable[Order]) -> Iterator[list[Order]]:
    """The orders in lists of those placed in the same second, which `orders_through` can't tell."""
    return (list(together) for _, together in groupby(orders, attrgetter("placed_at")))


def look(api: Api, watched: Iterable[Watched], patience: float) -> list[Watched]:
    """Ask once for each order; returns those that are still to be asked for."""
    left = []
    for each in watched:
        if api.knows(each.order):
            each.seen = time.monotonic()
        elif time.monotonic() - each.committed < patience:
            left.append(each)
    return left


def drip(
    connection: psycopg.Connection, api: Api, coming: Iterable[tuple[float, list[Order]]]
) -> list[Watched]:
    """Commit orders at their moment (seconds from now), and watch until all are seen or lost."""
    started = time.monotonic()
    upcoming = deque(coming)
    watched: list[Watched] = []
    waiting: list[Watched] = []
    while upcoming or waiting:
        began = time.monotonic()
        while upcoming and started + upcoming[0][0] <= began:
            _, orders = upcoming.popleft()
            place_orders(connection, orders)
            watched.append(Watched(orders[-1], time.monotonic()))
            waiting.append(watched[-1])
        waiting = look(api, waiting, LOST_SECONDS)
        time.sleep(max(0.0, began + POLL_SECONDS - time.monotonic()))
    return watched


def burst(connection: psycopg.Connection, api: Api, orders: Sequence[Order]) -> list[Watched]:
    """Commit the orders at once; watch the last of them, and the latest of some users."""
    latest = list({order.user_id: order for order in orders}.values())
    some = [*latest[:: max(1, len(latest) // BURST_USERS)], orders[-1]]
    place_orders(connection, orders)
    committed = time.monotonic()
    watched = waiting = [Watched(order, committed) for order in some]
    while waiting:
        began = time.monotonic()
        waiting = look(api, waiting, BURST_LOST_SECONDS)
        time.sleep(max(0.0, began + BURST_POLL_SECONDS - time.monotonic()))
    return watched


Events = Mapping[str, Sequence[dg.EventLogRecord]]


def materializations(instance: dg.DagsterInstance, since: float, until: float) -> Events:
    """The materialization events of the refreshed assets between two moments (Unix time)."""
    found: dict[str, list[dg.EventLogRecord]] = {name: [] for name in REFRESHED}
    for name, records in found.items():
        chosen = dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(name), after_timestamp=since, before_timestamp=until
        )
        cursor, more = None, True
        while more:
            page = instance.fetch_materializations(chosen, limit=1000, cursor=cursor)
            records.extend(page.records)
            cursor, more = page.cursor, page.has_more
    return found


def seconds_spent(records: Iterable[dg.EventLogRecord]) -> dict[str, float]:
    """The mean of every numeric metadata entry whose name starts with ``seconds``."""
    values = defaultdict(list)
    for record in records:
        materialization = record.asset_materialization
        for name, entry in (materialization.metadata if materialization else {}).items():
            if name.startswith("seconds") and isinstance(entry.value, int | float):
                values[name].append(float(entry.value))
    return {name: statistics.fmean(numbers) for name, numbers in values.items()}


def lag_table(watched: Sequence[Watched]) -> Table:
    """Quantiles of the lags, and how many orders were not seen."""
    lags = sorted(each.lag for each in watched if each.lag is not None)
    table = Table("orders", "p50", "p90", "p95", "max", "not seen", box=box.MARKDOWN)
    quantiles = (
        [f"{quantile(lags, share):.2f} s" for share in (0.5, 0.9, 0.95, 1.0)] if lags else ["-"] * 4
    )
    table.add_row(f"{len(watched)}", *quantiles, f"{len(watched) - len(lags)}")
    return table


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that ``share`` of the ascending values do not exceed (nearest rank)."""
    return ordered[math.ceil(share * len(ordered)) - 1]


def time_table(events: Events) -> Table:
    """What a refresh spends its time on, by what its assets say."""
    table = Table("asset", "refreshes", "what", "mean", box=box.MARKDOWN)
    for asset, records in events.items():
        for name, mean in seconds_spent(records).items():
            table.add_row(asset, f"{len(records)}", name, f"{mean:.3f} s")
    return table


def measure(console: Console, database_url: str, api_url: str, chosen: argparse.Namespace) -> None:
    """Drip, burst and a single order on a running system; print what was seen."""
    with (
        connect(database_url, autocommit=True) as connection,
        closing(Api(api_url)) as api,
        open_instance() as instance,
    ):
        orders = of_one_moment(waiting_orders(connection))
        due = takewhile(lambda moment: moment < chosen.seconds, arrivals(chosen.rate, seed=0))
        began = time.time()
        dripped = drip(connection, api, zip(due, orders, strict=False))
        console.print(f"\nDrip, {chosen.rate:g} orders/s for {chosen.seconds:g} s")
        console.print(lag_table(dripped))
        spent = materializations(instance, began, time.time())
        if at_once := list(chain.from_iterable(islice(orders, chosen.burst))):
            began = time.time()
            watched = burst(connection, api, at_once)
            time.sleep(EVENTS_SECONDS)
            refreshes = len(materializations(instance, began, time.time())[REFRESHED[0]])
            visible = max(each.lag or BURST_LOST_SECONDS for each in watched)
            console.print(
                f"\nBurst of {len(at_once):,} orders: all visible after {visible:.2f} s,"
                f" {refreshes} refreshes; a single order right after:"
            )
            console.print(lag_table(drip(connection, api, zip([0.0], orders, strict=False))))
        console.print("\nWhere the time goes, per refresh of the drip")
        console.print(time_table(spent))


@contextmanager
def system(console: Console, folder: Path, port: int) -> Iterator[tuple[str, str]]:
    """A system of its own in a folder, everything materialized once; its database's and API's URL.

    The environment says where it keeps what it makes, to this process and its children.
    """
    os.environ.update(
        RECSYS_STATE_DIR=str(folder / "state"),
        RECSYS_DATA_DIR=str(folder / "data"),
        RECSYS_AUTOMATION_ENABLED="true",
    )
    with open_session() as session:
        load_demo(console, session, None)
        with open_instance() as instance:
            materialize(build_definitions(), instance, console)
        with running_system(
            project_root(), folder / "logs", dagster_port=port, api_port=port + 1
        ) as local:
            yield session.settings.database_url or "", local.api


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=1.0, help="orders a second")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the drip")
    parser.add_argument("--burst", type=int, default=10_000, help="orders at once; 0: none")
    parser.add_argument("--port", type=int, default=13_000, help="first port of its own system")
    parser.add_argument("--database-url", help="of a running system, with --api-url")
    parser.add_argument("--api-url", help="of a running system, with --database-url")
    chosen = parser.parse_args()
    if bool(chosen.database_url) != bool(chosen.api_url):
        parser.error("--database-url and --api-url go together")
    console = Console()
    if chosen.database_url:
        # Dagster's records are in that database; its storage asks for both URLs, and no Redis.
        os.environ["RECSYS_DATABASE_URL"] = chosen.database_url
        os.environ.setdefault("RECSYS_REDIS_URL", "redis://127.0.0.1:6379/0")
        measure(console, chosen.database_url, chosen.api_url, chosen)
        return
    for name in [name for name in os.environ if name.startswith("RECSYS_")]:
        del os.environ[name]  # none of these is of the system that is measured
    with (
        tempfile.TemporaryDirectory(prefix="recsys-freshness-") as folder,
        system(console, Path(folder), chosen.port) as (database_url, api_url),
    ):
        measure(console, database_url, api_url, chosen)


if __name__ == "__main__":
    main()
