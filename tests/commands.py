"""Commands as a person runs them: subprocesses with folders of their own, and what they leave."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SECONDS = 90.0

_Seen = TypeVar("_Seen")


def eventually(look: Callable[[], _Seen], what: str, *, seconds: float = SECONDS) -> _Seen:
    """What ``look`` returns once it is true; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
    return seen


def free_ports() -> int:
    """A port that is free with the nine after it."""
    for first in range(20_000 + os.getpid() % 1000 * 10, 60_000, 10):
        try:
            for port in range(first, first + 10):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@dataclass(frozen=True)
class Home:
    """The folder in which commands keep all that they make, and from which they are run."""

    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)
    through: Sequence[str] = ()
    """A program that each command is run through, such as ``prlimit``, with its arguments."""

    @property
    def state(self) -> Path:
        """The folder of the embedded servers."""
        return self.folder / "state"

    @property
    def data(self) -> Path:
        """The folder of the artifacts."""
        return self.folder / "data"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command."""
        return {
            **os.environ,
            "RECSYS_STATE_DIR": str(self.state),
            "RECSYS_DATA_DIR": str(self.data),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "COLUMNS": "160",
            **self.more,
        }

    def recsys(self, *arguments: object, fails: int = 0) -> str:
        """What a command prints, on both outputs; it must end with the exit code ``fails``."""
        done = subprocess.run(
            [*self.through, BIN / "recsys", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == fails, done.stdout
        return done.stdout

    @contextmanager
    def started(self, *arguments: object) -> Iterator["Started"]:
        """A command that stays; the block is to end it, and else it is killed."""
        log = self.folder / "started.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*self.through, BIN / "recsys", *map(str, arguments)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Started(process, log)
        finally:
            process.kill()
            process.wait()

    def processes(self) -> set[str]:
        """Commands of the living processes that were started for this home, but for the servers."""
        return {p.command for p in _living() if p.state == str(self.state) and not self._owns(p)}

    def pids_of(self, part: str) -> list[int]:
        """Processes that were started for this home and whose command has this part."""
        ours = [p for p in _living() if p.state == str(self.state) and not self._owns(p)]
        return [p.pid for p in ours if part in p.command]

    def servers(self) -> set[str]:
        """Names of the servers that run for this home."""
        return {p.name for p in _living() if self._owns(p)}

    @contextmanager
    def in_use(self) -> Iterator["Home"]:
        """This home; after the block nothing of it may run, and nothing does."""
        try:
            yield self
            eventually(lambda: not self.processes() | self.servers(), "the end of all", seconds=30)
        finally:
            for process in _living():
                if self._owns(process) or process.state == str(self.state):
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)

    def _owns(self, process: "_Process") -> bool:
        return process.folder.is_relative_to(self.state)


@dataclass(frozen=True)
class _Process:
    pid: int
    name: str
    command: str
    folder: Path
    state: str | None


def _living() -> Iterator[_Process]:
    """All processes of this user, or of all for root; a zombie has no command."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or is another's
            variables = (process / "environ").read_text(errors="replace").split("\0")
            state = next((v for v in variables if v.startswith("RECSYS_STATE_DIR=")), None)
            if command := (process / "cmdline").read_text().replace("\0", " "):
                yield _Process(
                    pid=int(process.name),
                    name=(process / "comm").read_text().strip(),
                    command=command,
                    folder=(process / "cwd").readlink(),
                    state=state and state.partition("=")[2],
                )


@dataclass(frozen=True)
class Started:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def printed(self) -> str:
        """All that it has printed so far."""
        return self.log.read_text()

    def wait_for(self, text: str) -> str:
        """What it has printed, once ``text`` is in it."""

        def look() -> bool:
            ended = self.process.poll() is not None
            assert text in self.printed() or not ended, self.printed()
            return text in self.printed()

        eventually(look, f"printing {text!r}")
        return self.printed()

    def interrupt(self) -> int:
        """Press Ctrl-C; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(SECONDS)

    def terminate(self) -> int:
        """Ask it to end; returns the exit code."""
        self.process.terminate()
        return self.process.wait(SECONDS)
