"""The API for ten minutes at half of its most, while the whole graph republishes every 20 s.

    .venv/bin/python benchmarks/soak.py                             twelve minutes
    .venv/bin/python benchmarks/soak.py --minutes 1 --idle-seconds 10   to see that it works

Starts a system of its own in a temporary folder - PostgreSQL, Redis, the API -, loads some
households of the sample shop and materializes everything once. Then:

- most: as many requests as the API takes, for ten seconds: Top Buys of all users and of guests, and
  Bought Together of all products, drawn at random;
- idle: the same requests at half of that rate, and nobody publishes;
- soak: the same again, while a process that stays materializes the whole graph every 20 s, or as
  soon as the last run has ended: all orders counted, both models trained and tried, all lists
  replaced, as `recsys materialize --force` does.

Everything shares the machine's cores. Publication, PostgreSQL included, therefore runs on what the
API and Redis leave (idle priority), as it should where it must share a machine with the API.
Linux may weigh sessions against each other before it looks at that; root turns this off meanwhile.
The shop is so small that two cores publish it within 20 s beside all that.

Any answer of 400 or above, and any request without one, has failed. Memory is the resident set of
the largest process of the API, every second.
"""

import argparse
import os
import platform
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from peers.driving import Load, flood, has_wrk, steady
from peers.services import BOUGHT_TOGETHER, GUESTS, TOP_BUYS, Running, ours, running
from rich import box
from rich.console import Console
from rich.table import Table

from recsys_assets.batch import materialize
from recsys_assets.dagster_storage import open_instance
from recsys_assets.definitions import build_definitions
from recsys_assets.demo import load_demo
from recsys_assets.publish.redis_writer import Client
from recsys_assets.session import Session, open_session
from serving.contract import Family, family_pattern, id_of_key

PUBLISH_EVERY_SECONDS = 20.0
PEAK_SECONDS = 10.0
SAMPLE_SECONDS = 1.0
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
SHARE = 0.5
GUESTS_SHARE = 0.1

MEMORY_GOAL = 1.05
RATE_GOAL = 0.95
LATENCY_GOAL = 2.0


@dataclass(frozen=True)
class Soak:
    """What was seen: loads, seconds of each publication, bytes of memory over time."""

    idle: Load
    soak: Load
    publications: Sequence[float]
    memory: Sequence[float]

    @property
    def growth(self) -> float:
        """Mean memory in the last third of the time, by that in the first."""
        third = max(1, len(self.memory) // 3)
        return statistics.fmean(self.memory[-third:]) / statistics.fmean(self.memory[:third])

    @property
    def interval(self) -> float:
        """Seconds from the start of a publication to that of the next, in the mean."""
        return statistics.fmean(max(PUBLISH_EVERY_SECONDS, taken) for taken in self.publications)

    @property
    def delay(self) -> float:
        """The p99 while the graph republishes, by that while it does not."""
        return self.soak.p99 / self.idle.p99


def published_paths(client: Client) -> list[str]:
    """A path for each list in Redis, and those of guests among them."""
    own = [
        path.format(id_of_key(family, key.decode()))
        for family, path in (
            (Family.USER_TOP_BUYS, TOP_BUYS + "{}"),
            (Family.BOUGHT_TOGETHER, BOUGHT_TOGETHER),
        )
        for key in client.scan_iter(match=family_pattern(family), count=1000)
    ]
    return own + [GUESTS] * round(GUESTS_SHARE * len(own))


def publish() -> float:
    """Materialize the whole graph; returns the seconds it took. Raises what `materialize` does."""
    began = time.monotonic()
    with open_instance() as instance:
        materialize(build_definitions(), instance, Console(quiet=True), force=True)
    return time.monotonic() - began


def publish_until(over: threading.Event, publisher: Executor) -> list[float]:
    """Publish again and again; returns the seconds that each one took."""
    taken = []
    while not over.is_set():
        taken.append(publisher.submit(publish).result())
        over.wait(max(0.0, PUBLISH_EVERY_SECONDS - taken[-1]))
    return taken


def memory_until(over: threading.Event, service: Running) -> list[float]:
    """The service's memory in bytes, once a second."""
    seen = [service.memory()]
    while not over.wait(SAMPLE_SECONDS):
        seen.append(service.memory())
    return seen


def soak(
    service: Running, paths: Sequence[str], chosen: argparse.Namespace, publisher: Executor
) -> Soak:
    """Find the most, then load idle and under publication at a share of it."""
    rate = SHARE * flood(service.url, paths, PEAK_SECONDS).rate
    idle = steady(service.url, paths, chosen.idle_seconds, rate)
    over = threading.Event()
    with ThreadPoolExecutor() as others:
        publications = others.submit(publish_until, over, publisher)
        memory = others.submit(memory_until, over, service)
        try:
            load = steady(service.url, paths, 60 * chosen.minutes, rate)
        finally:
            over.set()
    return Soak(idle, load, publications.result(), memory.result())


def table(seen: Soak) -> Table:
    """The loads; latencies in milliseconds."""
    shown = Table(
        *("", "seconds", "requests", "requests/s", "failed", "p50", "p99", "generator's cores"),
        box=box.MARKDOWN,
    )
    for name, load in (("idle", seen.idle), ("republishing", seen.soak)):
        shown.add_row(
            *(name, f"{load.seconds:.0f}", f"{load.requests:,}", f"{load.rate:,.0f}"),
            *(f"{load.failed}", f"{load.p50 * 1000:.2f}", f"{load.p99 * 1000:.2f}"),
            f"{load.cpu / load.seconds:.2f}",
        )
    return shown


def goals(seen: Soak) -> Iterator[str]:
    """What is to be reached, and whether it is."""
    failed = seen.idle.failed + seen.soak.failed
    for met, goal in (
        (failed == 0, f"{failed} requests failed, to be none"),
        (
            seen.growth <= MEMORY_GOAL,
            f"memory of the last third {seen.growth:.3f} times that of the first"
            f" ({seen.memory[0] / 1e6:.1f} MB to {seen.memory[-1] / 1e6:.1f} MB),"
            f" to be at most {MEMORY_GOAL}",
        ),
        (
            seen.soak.rate >= RATE_GOAL * seen.idle.rate,
            f"rate {seen.soak.rate / seen.idle.rate:.3f} of idle's, to be at least {RATE_GOAL}",
        ),
        (
            seen.interval <= PUBLISH_EVERY_SECONDS,
            f"published every {seen.interval:.1f} s, to be every {PUBLISH_EVERY_SECONDS:g} s",
        ),
        (
            seen.delay <= LATENCY_GOAL,
            f"p99 {seen.delay:.2f} times that of idle, to be at most {LATENCY_GOAL:g}",
        ),
    ):
        yield f"{'met   ' if met else 'MISSED'} {goal}"


@contextmanager
def system(
    console: Console, folder: Path, households: int
) -> Iterator[tuple[Session, ProcessPoolExecutor]]:
    """A system of its own in a folder, everything materialized once by the process that publishes.

    The environment says where it keeps what it makes, to this process and its children.
    """
    for name in [name for name in os.environ if name.startswith("RECSYS_")]:
        del os.environ[name]  # none of these is of the system that is measured
    os.environ.update(RECSYS_STATE_DIR=str(folder / "state"), RECSYS_DATA_DIR=str(folder / "data"))
    with open_session() as session:
        load_demo(console, session, households)
        with session.database() as connection:
            run_on_what_others_leave(parent(connection.info.backend_pid))
        with ProcessPoolExecutor(
            1, get_context("spawn"), publish_on_what_others_leave
        ) as publisher:
            publisher.submit(publish).result()
            yield session, publisher


def parent(process: int) -> int:
    """The process that has started another one."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def run_on_what_others_leave(process: int) -> None:
    """Let a process, what it has started and what it will start run when nothing else wants to."""
    started = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for each in (process, *map(int, started)):
        os.sched_setscheduler(each, os.SCHED_IDLE, os.sched_param(0))


def publish_on_what_others_leave() -> None:
    """Begin the process that publishes."""
    run_on_what_others_leave(os.getpid())


@contextmanager
def without_autogroups(console: Console) -> Iterator[None]:
    """Let idle priority hold among all processes.

    Linux may share the processor by sessions first, and each process of PostgreSQL is one of its
    own: it would then get as much as the API, whatever its priority.
    """
    if not AUTOGROUP.exists() or AUTOGROUP.read_text().strip() == "0":
        yield
    elif not os.access(AUTOGROUP, os.W_OK):
        console.print(
            "PostgreSQL gets as much of the processor as the API, for Linux shares it by sessions:"
            " to prevent it, sysctl kernel.sched_autogroup_enabled=0, or run this as root."
        )
        yield
    else:
        AUTOGROUP.write_text("0")
        try:
            yield
        finally:
            AUTOGROUP.write_text("1")


def report(console: Console, seen: Soak, chosen: argparse.Namespace) -> None:
    """Print what was seen."""
    console.print(table(seen))
    for goal in goals(seen):
        console.print(goal)
    console.print(
        f"The whole graph was published {len(seen.publications)} times, in"
        f" {statistics.median(seen.publications):.1f} s in the median; {chosen.households}"
        f" households; {len(os.sched_getaffinity(0))} cores for all of it, the publication on"
        f" what the others leave; {platform.machine()}, Python {platform.python_version()}"
    )
    if not has_wrk():
        console.print("No wrk on the PATH: driven by peers/load.py; apt-get install wrk.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    parser.add_argument("--households", type=int, default=30, help="of the sample shop")
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # all that was started ends, too
    console = Console(width=130, highlight=False)
    with tempfile.TemporaryDirectory(prefix="recsys-soak-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # root's servers run as another user, who must come through
        with (
            without_autogroups(console),
            system(console, folder, chosen.households) as (session, publisher),
        ):
            with session.redis() as client:
                paths = published_paths(client)
            redis_url = session.settings.redis_url or ""
            with running(ours(chosen.workers), redis_url, folder) as service:
                seen = soak(service, paths, chosen, publisher)
    report(console, seen, chosen)


if __name__ == "__main__":
    main()
