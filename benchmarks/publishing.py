"""Publication to Redis: our mass writes beside redis-py's pipeline and `redis-cli --pipe`.

    .venv/bin/python benchmarks/publishing.py        two minutes

Starts its own Redis in a temporary folder, with its append-only file as in `make demo`. Two
payloads are made before anything is measured: lists of users, 100 products each as JSON, and sorted
sets of 50 products, which are replaced in a transaction each. In every round each is written, to
the empty server, by one after the other:

- ours: `write` of recsys_assets.publish.redis_writer, from (key, value);
- redis-py: its pipeline, in batches of the same number, from the same (key, value);
- redis-cli --pipe: the same commands, ready as bytes in a file;
- ours, with JSON: from ids and scores, the JSON included (lists of users only).

A table gives the medians. redis-cli comes with Debian's and Ubuntu's package redis-tools; without
it, its rows are left out.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import redis
from rich import box
from rich.console import Console
from rich.table import Table

from recsys_assets.learn.blending import TopLists
from recsys_assets.local.redis import SOCKET, RedisServer
from recsys_assets.publish.redis_client import Client, connect
from recsys_assets.publish.redis_pipe import BATCH, batched, sorted_set_write, string_write
from recsys_assets.publish.redis_writer import Edition, write
from recsys_assets.publish.top_buys import personal_lists
from serving import contract
from serving.contract import Family, Pairing

Items = list[tuple[str, Any]]

LIST_LENGTH = 100
SET_LENGTH = 50
PRODUCTS = 50_000
CLI = "redis-cli --pipe"


@dataclass(frozen=True)
class Payload:
    """What is written: as it comes from the models, as items, and as bytes for redis-cli."""

    family: Family
    make: Callable[[], Iterable[tuple[str, Any]]]
    items: Items
    commands: Path
    megabytes: float


def user_lists(users: int) -> Callable[[], Iterator[tuple[str, bytes]]]:
    """The lists of so many users, encoded anew on each call."""
    chance = np.random.default_rng(1)
    ids = np.arange(1, users + 1)
    products = chance.integers(0, PRODUCTS, (users, LIST_LENGTH))
    scores = -np.sort(-chance.random((users, LIST_LENGTH), np.float32), axis=1)
    edition = Edition("20250301T030000Z", datetime.now(UTC), datetime.now(UTC))
    product_ids = np.arange(1_000_000, 1_000_000 + PRODUCTS)
    rows = 1000
    blocks = [
        TopLists(row, products[row : row + rows], scores[row : row + rows])
        for row in range(0, users, rows)
    ]
    return lambda: personal_lists(blocks, ids, product_ids, edition)


def product_lists(number: int) -> Callable[[], Iterator[tuple[str, dict[str, float]]]]:
    """The sorted sets of so many products."""
    chance = np.random.default_rng(2)

    def make() -> Iterator[tuple[str, dict[str, float]]]:
        for product in range(number):
            chosen = chance.choice(PRODUCTS, SET_LENGTH, replace=False) + 1_000_000
            strengths = np.round(chance.random(SET_LENGTH) * 10, 6)
            pairings = map(Pairing, chosen.tolist(), strengths.tolist())
            yield contract.bought_together_key(product), contract.encode_pairings(pairings)

    return make


def payload(family: Family, make: Callable[[], Iterable[tuple[str, Any]]], folder: Path) -> Payload:
    """Make all of it, and the file of its commands."""
    items = list(make())
    packed = sorted_set_write if family is Family.BOUGHT_TOGETHER else string_write
    commands = folder / family.value
    with commands.open("wb") as file:
        for key, value in items:
            file.write(packed(key, value).packed)
    return Payload(family, make, items, commands, commands.stat().st_size / 1e6)


def by_pipeline(client: redis.Redis, batch: Items, family: Family) -> None:
    """Write a batch as redis-py does."""
    sorted_sets = family is Family.BOUGHT_TOGETHER
    with client.pipeline(transaction=sorted_sets) as pipeline:
        for key, value in batch:
            if sorted_sets:
                pipeline.delete(key)
                pipeline.zadd(key, value)
            else:
                pipeline.set(key, value)
        pipeline.execute()


def by_cli(program: str, socket: Path, commands: Path) -> None:
    """Write a file of commands as redis-cli does."""
    with commands.open("rb") as file:
        subprocess.run(
            [program, "-s", str(socket), "--pipe"], stdin=file, capture_output=True, check=True
        )


def writers(payload: Payload, client: Client, socket: Path) -> dict[str, Callable[[], object]]:
    """Who writes the payload, by name."""
    assert isinstance(client, redis.Redis)

    def pipelines() -> None:
        for batch in batched(payload.items, BATCH):
            by_pipeline(client, batch, payload.family)

    result: dict[str, Callable[[], object]] = {
        "ours": lambda: write(client, payload.family, payload.items),
        "redis-py": pipelines,
    }
    if program := shutil.which("redis-cli"):
        result[CLI] = lambda: by_cli(program, socket, payload.commands)
    if payload.family is Family.USER_TOP_BUYS:
        result["ours, with JSON"] = lambda: write(client, payload.family, payload.make())
    return result


def measure(payload: Payload, server: RedisServer, rounds: int) -> dict[str, float]:
    """Median seconds of each writer."""
    taken = defaultdict(list)
    with closing(connect(server.url)) as client:
        for _ in range(rounds):
            for name, run in writers(payload, client, server.socket_folder / SOCKET).items():
                client.flushall()
                started = time.perf_counter()
                run()
                taken[name].append(time.perf_counter() - started)
                assert client.dbsize() == len(payload.items)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--products", type=int, default=20_000)
    options = parser.parse_args()
    console = Console()
    table = Table("payload", "writer", "s", "keys/s", "MB/s", "ours / it", box=box.MARKDOWN)
    with tempfile.TemporaryDirectory(prefix="recsys-publishing-") as name:
        folder = Path(name)
        server = RedisServer(folder / "redis")
        with server.in_use():
            for each in (
                payload(Family.USER_TOP_BUYS, user_lists(options.users), folder),
                payload(Family.BOUGHT_TOGETHER, product_lists(options.products), folder),
            ):
                taken = measure(each, server, options.rounds)
                for writer, seconds in taken.items():
                    table.add_row(
                        each.family.value,
                        writer,
                        f"{seconds:.2f}",
                        f"{len(each.items) / seconds:,.0f}",
                        f"{each.megabytes / seconds:,.0f}",
                        f"{seconds / taken['ours']:.2f}",
                    )
    console.print(table)
    if not shutil.which("redis-cli"):
        console.print(
            "No redis-cli on the PATH: apt-get install redis-tools to see it beside ours."
        )
    console.print(
        f"Medians of {options.rounds} rounds; the last column is our rate over theirs;"
        f" {len(os.sched_getaffinity(0))} cores, {platform.machine()},"
        f" Python {platform.python_version()}, redis-py {redis.__version__}"
    )


if __name__ == "__main__":
    main()
