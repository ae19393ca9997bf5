"""The life of an embedded server: found or started, shared by processes, stopped by the last.

Three files beside the server's data, each locked with flock(2), carry all of its state. The kernel
drops such a lock when its holder dies, however it dies, so nothing here can go stale:

- ``users.lock``, held shared by every process that uses the server;
- ``server.lock``, held exclusively by the server itself, which inherits it from its starter;
- ``gate.lock``, held exclusively while a server is being looked for, started or stopped.

What is particular to PostgreSQL or Redis is in the subclasses.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recsys_assets.local.errors import ServiceError

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
STOP_SECONDS = 60.0
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 20
# A unix socket's path is limited to 107 bytes, of which the longest file name of ours takes 14.
MAX_SOCKET_FOLDER_BYTES = 90


class EmbeddedServer(ABC):
    """One server with its data in one folder, listening on a unix socket only."""

    name: str
    """What messages call it."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the server's own; it is created with mode 0700 on first use."""
        self.folder = folder.resolve()
        self.log = self.folder / "server.log"

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find the server."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server serves clients now; False too while it is still loading its data."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what a start needs, with no server running; raise ServiceError if that fails."""

    @abstractmethod
    def launch(self, lock: int) -> None:
        """Start the server in the background, without waiting, and let it inherit ``lock``."""

    @abstractmethod
    def shut_down(self) -> None:
        """Ask the server, which may have been killed, to stop in good order, without waiting."""

    @contextmanager
    def in_use(self) -> Iterator[str]:
        """Yield the URL of the server, started if need be, stopped again by its last user.

        Raises ServiceError when the server cannot be started, MissingPackageError when its package
        is missing.
        """
        _private_folder(self.folder)
        with _open_lock(self.folder / "users.lock") as users:
            try:
                with self._gate():
                    fcntl.flock(users, fcntl.LOCK_SH)
                    self._ensure_running()
                yield self.url
            finally:
                with self._gate():
                    if _locked_at_once(users):
                        self._stop()

    @property
    def socket_folder(self) -> Path:
        """The server's folder or, where that path is too long for a socket, a short one.

        The short one depends on nothing but the server's folder and the user, so that every
        process finds the same.
        """
        path = os.fsencode(self.folder)
        if len(path) <= MAX_SOCKET_FOLDER_BYTES:
            return self.folder
        return Path(f"/tmp/recsys-{os.geteuid()}-{hashlib.sha256(path).hexdigest()[:16]}")

    def run(self, command: Sequence[str | Path], *inherited: int) -> None:
        """Run a command of the server's package, away from the terminal's Ctrl-C.

        Raises ServiceError with the command's output when it fails.
        """
        done = subprocess.run(
            [os.fspath(part) for part in command],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=inherited,
            start_new_session=True,
        )
        if done.returncode != 0:
            raise self._failure(f"{command[0]} failed ({done.returncode}): {done.stdout.strip()}")

    @contextmanager
    def _gate(self) -> Iterator[None]:
        with _open_lock(self.folder / "gate.lock") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield

    def _ensure_running(self) -> None:
        launched = False
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            with _open_lock(self.folder / "server.lock") as lock:
                if _locked_at_once(lock):  # so no process of the server lives
                    if launched:
                        raise self._failure("ended while starting")
                    self._launch(lock)
                    launched = True
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        logger.info("%s %s in %s", self.name, "started" if launched else "found", self.folder)

    def _launch(self, lock: int) -> None:
        _private_folder(self.socket_folder)
        self.prepare()
        self.launch(lock)

    def _stop(self) -> None:
        if not self._is_alive():
            return
        self.shut_down()
        deadline = time.monotonic() + STOP_SECONDS
        while self._is_alive():
            if time.monotonic() > deadline:
                raise self._failure(f"did not stop within {STOP_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        if self.socket_folder != self.folder:
            shutil.rmtree(self.socket_folder)
        logger.info("%s stopped in %s", self.name, self.folder)

    def _is_alive(self) -> bool:
        with _open_lock(self.folder / "server.lock") as lock:
            return not _locked_at_once(lock)

    def _failure(self, what: str) -> ServiceError:
        return ServiceError(
            f"the embedded {self.name} in {self.folder}: {what}\n"
            f"--- end of {self.log}\n{_tail(self.log)}"
        )


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    """Yield a descriptor of the file, made if need be; a lock taken on it ends with the block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked_at_once(lock: int) -> bool:
    """Whether the exclusive lock was to be had without waiting; it is held from now on."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _private_folder(path: Path) -> None:
    """Make the folder, or accept the one that is there, if it is ours alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or status.st_mode & 0o077:
        raise ServiceError(f"{path} must be a folder with mode 0700 that belongs to this user")


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "(no log yet)"
    return "\n".join(lines[-LOG_TAIL_LINES:])
