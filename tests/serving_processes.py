"""The API as it runs in production: ``python -m serving`` in a process of its own, over TCP."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import httpx

SECONDS_TO_START = 20
SECONDS_TO_STOP = 15


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    redis_url: str, folder: Path, *options: str, killed: bool = False
) -> Iterator[tuple[httpx.Client, int]]:
    """A client of ``python -m serving`` on a port of its own, and the server's process id.

    It must end cleanly when told to, unless the test has ``killed`` it.
    """
    port = free_port()
    environment = os.environ | {"RECSYS_REDIS_URL": redis_url, "TMPDIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", str(port), *options],
        env=environment,
        start_new_session=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            _wait_until_alive(client, process)
            yield client, process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS_TO_STOP) == (-signal.SIGKILL if killed else 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.wait()


def _wait_until_alive(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = monotonic() + SECONDS_TO_START
    while monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        try:
            client.get("/health/live").raise_for_status()
            return
        except httpx.TransportError:
            sleep(0.05)
    raise AssertionError("the server does not answer")
