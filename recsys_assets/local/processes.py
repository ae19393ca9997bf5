"""The long-running processes of a local system: Dagster's webserver and daemon, and the API.

They are children of the command that starts them and end with it, also when it is killed.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from recsys_assets.local.errors import ServiceError

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 8.0


# The webserver and the daemon share one process that has the code loaded; given a module, each
# would start its own, and the daemon a new one every minute.
_CODE_SERVER = [
    "python",
    "-m",
    "recsys_assets.local.code_server",
    "start",
    "--location-name",
    "recsys_assets",
    "-m",
    "recsys_assets.definitions",
    "-a",
    "defs",
]
_WORKSPACE = """\
load_from:
  - grpc_server:
      socket: {socket}
      location_name: recsys_assets
"""


@dataclass(frozen=True)
class Local:
    """A running local system: addresses for people to open, and its processes."""

    dagster: str
    api: str
    children: "Sequence[_Child]"

    def pid(self, name: str) -> int:
        """The id of the process of that name; KeyError when there is none."""
        return {child.name: child.pid for child in self.children}[name]

    def watch(self) -> NoReturn:
        """Stay here as long as all processes live; ServiceError when one has ended by itself.

        Of the ``extra`` ones one that has failed.
        """
        while True:
            for child in self.children:
                child.require_alive()
            time.sleep(1)


@contextmanager
def running_system(
    root: Path,
    logs: Path,
    *,
    dagster_port: int,
    api_port: int,
    extra: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Local]:
    """Start the code location's server, the webserver, the daemon and the API; end them on leaving.

    ``root`` holds dagster.yaml; each process writes a log into ``logs``. A port that is taken is
    passed over for the next free one. The URLs of the servers must stand in the environment. Raises
    ServiceError, with the end of its log, when one does not start. ``extra`` are further commands
    by name, which start once the system answers and may end before it.
    """
    dagster = free_port(dagster_port)
    api = free_port(api_port, beside={dagster})
    environment = {
        "DAGSTER_HOME": str(root),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "RECSYS_API_HOST": HOST,
        "RECSYS_API_PORT": str(api),
    }
    children: list[_Child] = []
    with ExitStack() as stack:
        # A private folder with a short path, as a socket needs: whoever reaches it can run code.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="recsys-")))
        code_socket, workspace = folder / "code.sock", folder / "workspace.yaml"
        workspace.write_text(_WORKSPACE.format(socket=code_socket))

        def start(name: str, *command: str, may_end: bool = False) -> "_Child":
            child = _Child(name, command, root, logs / f"{name}.log", environment, may_end=may_end)
            stack.callback(child.stop)
            children.append(child)
            return child

        code = start("dagster-code-server", *_CODE_SERVER, "-d", str(root), "-s", str(code_socket))
        code.wait_until(code_socket.exists)
        web = start(
            "dagster-webserver",
            *("dagster-webserver", "-h", HOST, "-p", str(dagster), "-w", str(workspace)),
        )
        start("dagster-daemon", "dagster-daemon", "run", "-w", str(workspace))
        serving = start("api", "python", "-m", "serving")
        system = Local(f"http://{HOST}:{dagster}", f"http://{HOST}:{api}", children)
        web.wait_until(lambda: answers(f"{system.dagster}/server_info"))
        serving.wait_until(lambda: answers(f"{system.api}/health/live"))
        for name, command in (extra or {}).items():
            start(name, *command, may_end=True)
        try:
            yield system
        finally:  # all at once, but for the code server, whose runs the daemon would begin again
            for child in children:
                if child is not code:
                    child.ask_to_end()


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


def answers(url: str) -> bool:
    """Whether a GET of ``url`` is answered well."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


class _Child:
    """A child process with its log; commands are those of this Python's environment."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        log: Path,
        more: Mapping[str, str],
        *,
        may_end: bool,
    ) -> None:
        self.name, self.log = name, log
        self._asked_to_end = False
        self._good_ends = (0, -signal.SIGTERM) if may_end else ()
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

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return when ``ready`` says so; raise ServiceError when the process ends or takes long."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self.require_alive()
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {START_SECONDS:.0f} s")
            time.sleep(0.1)

    def require_alive(self) -> None:
        """Raise ServiceError when the process has ended, and not as it may."""
        code = self._process.poll()
        if code is not None and code not in self._good_ends:
            raise self._failure(f"ended with code {code}")

    def ask_to_end(self) -> None:
        """Send the process SIGTERM, once; a second one would interrupt its ending."""
        if not self._asked_to_end:
            self._asked_to_end = True
            self._process.terminate()

    def stop(self) -> None:
        """End the process, politely first, and whatever is left of those that it has started."""
        self.ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _failure(self, what: str) -> ServiceError:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        return ServiceError(f"{self.name} {what}\n--- end of {self.log}\n{tail}")
