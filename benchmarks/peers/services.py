"""The services that are measured: how each is started, and what its processes take."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys_assets.local.processes import HOST, answers, free_port

BENCHMARKS = Path(__file__).parents[1]
TOP_BUYS = "/api/recommendations/top-buys/?user_id="
GUESTS = "/api/recommendations/top-buys/"
BOUGHT_TOGETHER = "/api/recommendations/bought-together/{}/"

START_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.005
FIRST_PORT = 18_000
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Service:
    """A service by the module that starts it, its arguments, and how many workers these make.

    ``{host}`` and ``{port}`` stand for its address.
    """

    name: str
    arguments: tuple[str, ...]
    workers: int = 1


DJANGO = Service(
    "Django, gunicorn (sync)",
    ("gunicorn", "--workers", "1", "--bind", "{host}:{port}", "peers.django_service.wsgi"),
)
DJANGO_THREADS = Service(
    "Django, gunicorn (8 threads)",
    (
        *("gunicorn", "--workers", "1", "--threads", "8", "--bind", "{host}:{port}"),
        "peers.django_service.wsgi",
    ),
)
FASTAPI = Service(
    "FastAPI, uvicorn",
    (
        *("uvicorn", "--workers", "1", "--host", "{host}", "--port", "{port}"),
        *("--no-access-log", "peers.fastapi_service:app"),
    ),
)
BARE = Service(
    "bare ASGI callable, granian",
    (
        *("granian", "--interface", "asgi", "--workers", "1", "--no-ws", "--http", "1"),
        *("--host", "{host}", "--port", "{port}", "peers.bare:app"),
    ),
)


def ours(workers: int) -> Service:
    """The project's own API."""
    name = "ours" if workers == 1 else f"ours, {workers} workers"
    return Service(
        name,
        ("serving", "--host", "{host}", "--port", "{port}", "--workers", str(workers)),
        workers,
    )


@dataclass(frozen=True)
class Running:
    """A service that runs: its address, its first process, and how long it took to answer."""

    url: str
    pid: int
    seconds_to_start: float

    def cpu(self) -> float:
        """Seconds of processor time that its processes have taken so far."""
        return sum(_cpu(pid) for pid in _tree(self.pid))

    def memory(self) -> float:
        """Resident bytes of the largest of its processes, a worker."""
        return max(_resident(pid) for pid in _tree(self.pid))


@contextmanager
def running(service: Service, redis_url: str, folder: Path) -> Iterator[Running]:
    """Start a service that reads the given Redis, wait until it answers, and end it on leaving.

    Its log goes to ``folder``. Raises RuntimeError, with the log, when it does not answer.
    """
    port = free_port(FIRST_PORT)
    module, *arguments = (part.format(host=HOST, port=port) for part in service.arguments)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RECSYS_", "OTEL_"))}
    log = folder / f"{module}.log"
    with log.open("w") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=BENCHMARKS,
            env=environment | {"RECSYS_REDIS_URL": redis_url},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://{HOST}:{port}"
        while not answers(f"{url}{TOP_BUYS}1"):
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise RuntimeError(f"{service.name} does not answer: {log.read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)
        yield Running(url, process.pid, time.monotonic() - began)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            process.wait()


def _tree(root: int) -> list[int]:
    """A process and all that descend from it, as Linux tells in /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(_fields(path)[1])
        except (OSError, IndexError):  # it has ended
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _fields(path: Path) -> list[str]:
    """What follows the command's name in a process's ``stat``: its state, its parent, ..."""
    return path.read_text().rpartition(")")[2].split()


def _cpu(pid: int) -> float:
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident(pid: int) -> float:
    return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
