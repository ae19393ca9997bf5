"""The long-running processes of a local system: Dagster's webserver and daemon, and the API.

They are children of the command that starts them and end with it, also when it is killed.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys_assets.local.errors import ServiceError

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Local:
    """Addresses of the processes of a local system, for people to open."""

    dagster: str
    api: str


@contextmanager
def running_system(root: Path, logs: Path, *, dagster_port: int, api_port: int) -> Iterator[Local]:
    """Start the webserver, the daemon and the API, and end them on leaving.

    ``root`` holds workspace.yaml and dagster.yaml; each process writes a log into ``logs``. A port
    that is taken is passed over for the next free one. The URLs of the servers must stand in the
    environment. Raises ServiceError, with the end of its log, when one does not start.
    """
    dagster = free_port(dagster_port)
    api = free_port(api_port, beside={dagster})
    environment = {"DAGSTER_HOME": str(root), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    workspace = ["-w", str(root / "workspace.yaml")]
    with ExitStack() as stack:

        def start(name: str, command: Sequence[str], more: Mapping[str, str]) -> "_Child":
            child = _Child(name, command, root, logs / f"{name}.log", {**environment, **more})
            stack.callback(child.stop)
            return child

        web = start(
            "dagster-webserver",
            ["dagster-webserver", "-h", HOST, "-p", str(dagster), *workspace],
            {},
        )
        daemon = start("dagster-daemon", ["dagster-daemon", "run", *workspace], {})
        serving = start(
            "api",
            ["python", "-m", "serving"],
            {
                "RECSYS_API_HOST": HOST,
                "RECSYS_API_PORT": str(api),
            },
        )
        web.wait_for(f"http://{HOST}:{dagster}/server_info")
        serving.wait_for(f"http://{HOST}:{api}/health/live")
        daemon.require_alive()
        yield Local(dagster=f"http://{HOST}:{dagster}", api=f"http://{HOST}:{api}")


def free_port(first: int, beside: frozenset[int] | set[int] = frozenset()) -> int:
    """The first port from ``first`` on that nobody listens on and that is not in ``beside``."""
    for port in range(first, min(first + 200, 65536)):
        if port in beside:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServiceError(f"no free port from {first} on")


class _Child:
    """A child process with its log; commands are those of this Python's environment."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, log: Path, more: Mapping[str, str]
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
        if setpriv := shutil.which("setpriv"):  # the kernel ends it if we are killed
            program = [setpriv, "--pdeathsig", "TERM", "--", *program]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                program,
                cwd=folder,
                env={**os.environ, **more},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we end our children in order
            )

    def wait_for(self, url: str) -> None:
        """Return when ``url`` answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.require_alive()
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                if time.monotonic() > deadline:
                    raise self._failure(f"did not answer within {START_SECONDS:.0f} s") from None
                time.sleep(0.1)

    def require_alive(self) -> None:
        """Raise ServiceError when the process has ended."""
        if (code := self._process.poll()) is not None:
            raise self._failure(f"ended with code {code}")

    def stop(self) -> None:
        """End the process: politely first."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _failure(self, what: str) -> ServiceError:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        return ServiceError(f"{self.name} {what}\n--- end of {self.log}\n{tail}")
