"""The API beside Django on gunicorn, FastAPI on uvicorn and a bare ASGI callable.

    .venv/bin/python benchmarks/serving_api.py                         eight minutes
    .venv/bin/python benchmarks/serving_api.py --rounds 1 --seconds 1  to see that it works

Starts a Redis of its own, filled by the publisher with the lists of 2,000 users and 2,000 products,
and then in every round one service after the other, alone: the peers (`peers/`, each written and
started as its documentation has it, all with hiredis and uvloop where they can use them) and ours,
with one worker each, and ours with two. All read the same keys and answer the same ten products,
which is verified first. Ours reads more for it: the publication records, the guests' list in case
there is none of the user's, and whether any product is withheld.

- Most: wrk sends on 64 connections as fast as it is answered, for users (or products) drawn at
  random. Redis, wrk and the service share the machine's cores, so the table has what each took.
- At the same load: requests come by a Poisson process at half of what FastAPI can take, whatever
  the service does, from the generator in `peers/load.py`; latency counts from when a request came.
- Two workers need cores that wrk and Redis take from them. So they are also compared by requests
  for each second of processor time that the workers took: what the ratio would be if wrk and Redis
  ran elsewhere and no worker had to wait for a core.
- Limits: the bare callable, which makes one GET by redis.asyncio for each request, and
  `redis-benchmark GET` of one list on 64 connections.

Figures are medians of the rounds; latencies are in milliseconds, and memory is the resident set of
the largest process after the load. wrk and redis-benchmark are Debian's and Ubuntu's packages wrk
and redis-tools; without wrk the slower generator in `peers/load.py` drives everything.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis
from peers.driving import Load, flood, has_wrk, offered, redis_benchmark
from peers.published import PRODUCTS, USERS, fill
from peers.services import (
    BARE,
    BOUGHT_TOGETHER,
    DJANGO,
    DJANGO_THREADS,
    FASTAPI,
    GUESTS,
    TOP_BUYS,
    Running,
    Service,
    ours,
    running,
)
from rich import box
from rich.console import Console
from rich.table import Table

from recsys_assets.local.processes import HOST, free_port
from recsys_assets.local.redis import RedisServer
from serving.contract import user_top_buys_key

OURS, OURS_TWICE = ours(1), ours(2)
SERVICES = (DJANGO, DJANGO_THREADS, FASTAPI, BARE, OURS, OURS_TWICE)
ROUTES = {
    "Top Buys": [f"{TOP_BUYS}{user}" for user in range(1, USERS + 1)],
    "guests": [GUESTS],
    "Bought Together": [BOUGHT_TOGETHER.format(product) for product in range(1, PRODUCTS + 1)],
}
ROUTE = "Top Buys"
COMPARED = (1, 2, USERS // 2, USERS)
WARM_UP_SECONDS = 1.0
OFFERED_SHARE = 0.5
REDIS_REQUESTS = 200_000

DJANGO_GOAL, FASTAPI_GOAL, BARE_GOAL = 10, 5, 2
PAIRINGS_GOAL = 0.7
LATENCY_GOAL = 1 / 3
WORKERS_GOAL = 1.7
MEMORY_GOAL = 80e6
START_GOAL = 1.5

Case = tuple[Service, str]


@dataclass(frozen=True)
class Sample:
    """One load on a service: what was seen, and seconds of processor time by who took them."""

    load: Load
    service: float
    redis: float
    memory: float
    start: float


class Measured:
    """All samples of a service on a route; figures are medians."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def median(self, figure: Callable[[Sample], float]) -> float:
        """The median of a figure of each sample."""
        return statistics.median(map(figure, self.samples))

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.median(lambda sample: sample.load.rate)

    @property
    def p99(self) -> float:
        """Seconds that one request in a hundred takes longer than."""
        return self.median(lambda sample: sample.load.p99)

    @property
    def per_cpu_second(self) -> float:
        """Requests for each second of processor time that the service took."""
        return self.median(lambda sample: sample.load.requests / sample.service)

    @property
    def memory(self) -> float:
        """Resident bytes, at most."""
        return max(sample.memory for sample in self.samples)

    @property
    def start(self) -> float:
        """Seconds to the first answer."""
        return self.median(lambda sample: sample.start)

    @property
    def failed(self) -> int:
        """Requests without an answer of 2xx, of all samples."""
        return sum(sample.load.failed for sample in self.samples)


@dataclass(frozen=True)
class Bench:
    """The Redis that is read, and a folder for logs."""

    url: str
    client: redis.Redis
    folder: Path

    def sample(self, service: Running, drive: Callable[[], Load]) -> Sample:
        """Drive a running service once."""
        service_before, redis_before = service.cpu(), self.redis_cpu()
        load = drive()
        return Sample(
            load,
            service.cpu() - service_before,
            self.redis_cpu() - redis_before,
            service.memory(),
            service.seconds_to_start,
        )

    def redis_cpu(self) -> float:
        """Seconds of processor time that Redis has taken so far."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def require_same_answers(bench: Bench) -> None:
    """Raise RuntimeError unless all services answer the same for some users."""
    expected: list[object] = []
    for service in SERVICES:
        with running(service, bench.url, bench.folder) as there:
            found = [_json(f"{there.url}{TOP_BUYS}{user}") for user in COMPARED]
        expected = expected or found
        if found != expected:
            raise RuntimeError(f"{service.name} answers {found}, others {expected}")


def _json(url: str) -> object:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def routes(service: Service) -> list[str]:
    """The routes that a service is measured on: all of ours with one worker, else Top Buys."""
    return list(ROUTES) if service is OURS else [ROUTE]


def most(bench: Bench, rounds: int, seconds: float) -> dict[Case, Measured]:
    """What each service can take, all of them in every round."""
    samples: dict[Case, list[Sample]] = defaultdict(list)
    for _ in range(rounds):
        for service in SERVICES:
            with running(service, bench.url, bench.folder) as there:
                for route in routes(service):
                    paths = ROUTES[route]
                    flood(there.url, paths, WARM_UP_SECONDS)
                    samples[service, route].append(
                        bench.sample(there, lambda: flood(there.url, paths, seconds))  # noqa: B023
                    )
    return {case: Measured(each) for case, each in samples.items()}


def at_rate(bench: Bench, rounds: int, seconds: float, rate: float) -> dict[Service, Measured]:
    """FastAPI, the bare callable and ours under the same load, all of them in every round."""
    samples: dict[Service, list[Sample]] = defaultdict(list)
    paths = ROUTES[ROUTE]
    for _ in range(rounds):
        for service in (FASTAPI, BARE, OURS):
            with running(service, bench.url, bench.folder) as there:
                offered(there.url, paths, WARM_UP_SECONDS, rate)
                samples[service].append(
                    bench.sample(there, lambda: offered(there.url, paths, seconds, rate))
                )
    return {service: Measured(each) for service, each in samples.items()}


def most_table(measured: dict[Case, Measured], get_rate: float | None) -> Table:
    """What each service can take, and what it takes for it."""
    table = Table(
        *("service", "route", "requests/s", "ours / it", "p50", "p99", "failed"),
        *("per CPU second", "its cores", "Redis' cores", "generator's cores", "MB", "start s"),
        box=box.MARKDOWN,
    )
    reference = measured[OURS, ROUTE].rate
    for (service, route), each in measured.items():
        table.add_row(
            *(service.name, route, f"{each.rate:,.0f}", f"{reference / each.rate:.2f}"),
            *(_milliseconds(each.median(lambda s: s.load.p50)), _milliseconds(each.p99)),
            *(f"{each.failed}", f"{each.per_cpu_second:,.0f}"),
            f"{each.median(lambda s: s.service / s.load.seconds):.2f}",
            f"{each.median(lambda s: s.redis / s.load.seconds):.2f}",
            f"{each.median(lambda s: s.load.cpu / s.load.seconds):.2f}",
            *(f"{each.memory / 1e6:.0f}", f"{each.start:.2f}"),
        )
    if get_rate is not None:
        ratio = f"{reference / get_rate:.2f}"
        table.add_row("redis-benchmark", "GET", f"{get_rate:,.0f}", ratio, *9 * ["-"])
    return table


def rate_table(measured: dict[Service, Measured], rate: float) -> Table:
    """Latencies under the same load, and how far the generator was behind it."""
    table = Table(
        *(
            "service",
            "offered/s",
            "answered/s",
            "p50",
            "p99",
            "ours / it, p99",
            "failed",
            "behind, p99",
        ),
        box=box.MARKDOWN,
    )
    for service, each in measured.items():
        table.add_row(
            *(service.name, f"{rate:,.0f}", f"{each.rate:,.0f}"),
            *(_milliseconds(each.median(lambda s: s.load.p50)), _milliseconds(each.p99)),
            *(f"{measured[OURS].p99 / each.p99:.2f}", f"{each.failed}"),
            _milliseconds(each.median(lambda s: s.load.late)),
        )
    return table


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


def goals(top: dict[Case, Measured], loaded: dict[Service, Measured]) -> Iterator[str]:
    """What is to be reached, and whether it is."""
    one, two = top[OURS, ROUTE], top[OURS_TWICE, ROUTE]
    for name, peers, goal in (
        ("Django on gunicorn, its better line", (DJANGO, DJANGO_THREADS), DJANGO_GOAL),
        ("FastAPI on uvicorn", (FASTAPI,), FASTAPI_GOAL),
        ("the bare callable", (BARE,), BARE_GOAL),
    ):
        ratio = one.rate / max(top[peer, ROUTE].rate for peer in peers)
        yield _goal(ratio >= goal, f"{ratio:.2f} times {name}, to be at least {goal}")
    pairings = top[OURS, "Bought Together"].rate / one.rate
    yield _goal(
        pairings >= PAIRINGS_GOAL,
        f"Bought Together at {pairings:.2f} of Top Buys, to be at least {PAIRINGS_GOAL}",
    )
    latency = loaded[OURS].p99 / loaded[FASTAPI].p99
    yield _goal(
        latency < LATENCY_GOAL,
        f"p99 at the same load {latency:.2f} of FastAPI's, to be below {LATENCY_GOAL:.2f}",
    )
    scaled = OURS_TWICE.workers * two.per_cpu_second / one.per_cpu_second
    yield _goal(
        scaled >= WORKERS_GOAL,
        f"two workers {scaled:.2f} times one by processor time, to be at least {WORKERS_GOAL};"
        f" {two.rate / one.rate:.2f} with wrk and Redis on the same cores",
    )
    memory = max(one.memory, two.memory)
    yield _goal(
        memory < MEMORY_GOAL,
        f"a worker takes {memory / 1e6:.0f} MB, to be below {MEMORY_GOAL / 1e6:.0f}",
    )
    yield _goal(
        one.start < START_GOAL,
        f"first answer after {one.start:.2f} s, to be below {START_GOAL}",
    )
    failed = sum(each.failed for (service, _), each in top.items() if service in (OURS, OURS_TWICE))
    failed += loaded[OURS].failed
    yield _goal(failed == 0, f"{failed} requests of ours failed, to be none")


def _goal(met: bool, text: str) -> str:
    return f"{'met   ' if met else 'MISSED'} {text}"


def measure(console: Console, bench: Bench, port: int, rounds: int, seconds: float) -> None:
    """Measure and print all of it."""
    fill(bench.url)
    require_same_answers(bench)
    get_rate = redis_benchmark(port, user_top_buys_key(1), REDIS_REQUESTS)
    top = most(bench, rounds, seconds)
    rate = round(OFFERED_SHARE * top[FASTAPI, ROUTE].rate, -1)
    loaded = at_rate(bench, rounds, seconds, rate)
    console.print("What each can take")
    console.print(most_table(top, get_rate))
    console.print("At the same load")
    console.print(rate_table(loaded, rate))
    for goal in goals(top, loaded):
        console.print(goal)
    if get_rate is None:
        console.print("No redis-benchmark on the PATH: apt-get install redis-tools for its rate.")
    if not has_wrk():
        console.print(
            "No wrk on the PATH: driven by peers/load.py, which is slower than ours at its most;"
            " apt-get install wrk."
        )
    console.print(
        f"Medians of {rounds} rounds of {seconds:g} s; {len(os.sched_getaffinity(0))} cores,"
        f" {platform.machine()}, Python {platform.python_version()}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    chosen = parser.parse_args()
    console = Console(width=180, highlight=False)
    port = free_port(17_000)
    with tempfile.TemporaryDirectory(prefix="recsys-serving-") as name:
        folder = Path(name)
        server = RedisServer(folder / "redis", options={"port": str(port), "bind": HOST})
        with server.in_use(), redis.Redis(HOST, port) as client:
            bench = Bench(f"redis://{HOST}:{port}/0", client, folder)
            measure(console, bench, port, chosen.rounds, chosen.seconds)


if __name__ == "__main__":
    main()
