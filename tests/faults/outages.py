"""Faults of servers and disks that hit a run, each as a scenario: what breaks, and what a run says.

A scenario makes one run fail and may leave everything broken; :func:`repaired` puts it right, and
the next run has to do the rest.
"""

import hashlib
import os
import pickle
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from tests.commands import SECONDS, Started, eventually
from tests.faults.system import System, is_alive

MISSES_BYTES = 4096  # of a file that a disk has no room for


@dataclass(frozen=True)
class Scenario:
    """A fault of one run."""

    run: Callable[[System], "Ended"]
    says: tuple[str, ...]
    """Patterns of what the run has to print: what happened, and what to do."""
    served_unchanged: bool = True
    """Whether the lists must be those from before; else each may be old or new, but whole."""
    recorded: bool = True
    """Whether Dagster's storage was there for the failure to be recorded."""


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    code: int
    printed: str


def run(system: System, *assets: str, through: tuple[str, ...] = ()) -> Ended:
    """Materialize the assets to whatever end, through a program that restricts it."""
    home = replace(system.home, through=through)
    with home.started("materialize", *assets, "--force") as command:
        return ended(command)


def ended(command: Started) -> Ended:
    """The command, once it has ended by itself."""
    return Ended(command.process.wait(SECONDS), command.printed())


@contextmanager
def repaired(system: System) -> Iterator[None]:
    """Have the servers run, without limits, once the block has ended."""
    try:
        yield
    finally:
        with system.postgres.in_use(), system.redis.in_use(), system.store() as client:
            client.config_set("maxmemory", 0)


# --- PostgreSQL


def postgresql_stops_mid_refresh(system: System) -> Ended:
    """It ends without a checkpoint, as in a crash, while the interactions are being written."""
    with (
        held_mid_refresh(system),
        system.home.started("materialize", "user_product_interactions", "user_top_buys") as command,
    ):
        wait_until_held(system)
        end_at_once(postmaster(system), signal.SIGQUIT)
        return ended(command)


@contextmanager
def held_mid_refresh(system: System) -> Iterator[None]:
    """Let a refresh wait in the midst of its transaction as long as the block lasts."""
    with system.database() as connection, suppress(psycopg.OperationalError):
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE user_product_interactions IN EXCLUSIVE MODE")
        yield
        connection.execute("COMMIT")


def wait_until_held(system: System) -> None:
    """Return when a refresh waits for the lock of :func:`held_mid_refresh`."""
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted"
        " AND relation = 'user_product_interactions'::regclass"
    )
    with system.database() as connection:
        eventually(lambda: connection.execute(waiting).fetchone() != (0,), "a held refresh")


def postmaster(system: System) -> int:
    """The process that all others of PostgreSQL are children of."""
    return int((system.postgres.data / "postmaster.pid").read_text().split()[0])


# --- Redis


def redis_is_killed_mid_publication(system: System) -> Ended:
    """``kill -9`` as soon as the first user's list is another."""
    with (
        system.store() as client,
        system.home.started(
            "materialize", "als_model", "top_buys_backtest", "user_top_buys", "--force"
        ) as command,
    ):
        pid, before = client.info("server")["process_id"], client.get("user:1:top_buys")
        while client.get("user:1:top_buys") == before:
            assert command.process.poll() is None, command.printed()
        end_at_once(pid, signal.SIGKILL)
        return ended(command)


def redis_refuses_writes(system: System) -> Ended:
    """It has reached the memory that it may use, and may evict nothing."""
    with system.store() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
    return run(system, "user_top_buys", "bought_together")


# --- the data folder


def disk_is_full(system: System) -> Ended:
    """The artifact's file cannot grow beyond a few bytes."""
    limit = ("prlimit", f"--fsize={MISSES_BYTES}", "--")
    return run(system, "als_model", "top_buys_backtest", "user_top_buys", through=limit)


def small_disk_is_full(system: System) -> Ended:
    """The data folder is on a file system of its own, with room for half a model more."""
    files = current_artifacts(system.home.data)
    room = sum(map(len, files.values())) + len(files["als_model.pkl"]) // 2
    with mounted(system.home.data, f"size={room}"):
        for name, content in files.items():
            (system.home.data / name).write_bytes(content)
        return run(system, "als_model", "top_buys_backtest", "user_top_buys")


def current_artifacts(folder: Path) -> dict[str, bytes]:
    """The content of the current artifacts by file name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.pkl") if "-" not in path.name}


def data_folder_is_read_only(system: System) -> Ended:
    """Its permissions forbid to write, to root as well, which loses the privilege to override."""
    limit = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", "--")
    system.home.data.chmod(0o500)
    try:
        return run(
            system,
            "als_model",
            "top_buys_backtest",
            "user_top_buys",
            through=limit if is_root() else (),
        )
    finally:
        system.home.data.chmod(0o755)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """An empty file system in memory over the folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def can_mount(folder: Path) -> bool:
    """Whether this user may mount file systems here."""
    tried = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True)
    return tried.returncode == 0 and not subprocess.run(["umount", folder]).returncode


def is_root() -> bool:
    """Whether permissions do not bind us."""
    return os.geteuid() == 0


# --- artifacts that are not what was written


def artifact_is_truncated(system: System) -> Ended:
    """Its end is missing."""
    return run_with_model(system, lambda whole: whole[: len(whole) // 2])


def artifact_is_tampered_with(system: System) -> Ended:
    """One bit in the midst of the numbers is another."""
    return run_with_model(system, _with_another_bit)


def artifact_is_foreign(system: System) -> Ended:
    """It is a pickle of somebody else's."""
    return run_with_model(system, lambda _: pickle.dumps({"weights": [1.0, 2.0]}))


def artifact_would_execute_code(system: System) -> Ended:
    """Unpickling it as pickles are commonly read would make a file."""
    harm = system.home.folder / "harm"
    harmful = pickle.dumps(_Harm(f"touch {harm}"))
    end = run_with_model(system, lambda _: harmful + hashlib.sha256(harmful).digest())
    assert not harm.exists()
    return end


def run_with_model(system: System, spoil: Callable[[bytes], bytes]) -> Ended:
    """Publish from a model that was replaced by a spoilt one."""
    model = system.home.data / "als_model.pkl"
    spoilt = system.home.data / "spoilt"
    spoilt.write_bytes(spoil(model.read_bytes()))
    spoilt.replace(model)  # not written into: the kept version beside it is the same file
    return run(system, "user_top_buys")


def _with_another_bit(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


@dataclass(frozen=True)
class _Harm:
    command: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def end_at_once(pid: int, how: signal.Signals) -> None:
    """Signal a process that is not our child, and wait for its end."""
    os.kill(pid, how)
    eventually(lambda: not is_alive(pid), f"the end of process {pid}", seconds=30)


STOPPED = Scenario(
    postgresql_stops_mid_refresh,
    says=("PostgreSQL", "RECSYS_DATABASE_URL"),
)
UNREADABLE = (r"als_model\.pkl is damaged or not an artifact", "materialize als_model")
UNWRITABLE = ("/data: als_model cannot be written", "RECSYS_DATA_DIR")

SCENARIOS = {
    "postgresql stops": replace(STOPPED, recorded=False),
    "postgresql stops, dagster's storage is elsewhere": STOPPED,
    "redis is killed": Scenario(
        redis_is_killed_mid_publication,
        says=("Redis", "RECSYS_REDIS_URL"),
        served_unchanged=False,
    ),
    "redis refuses writes": Scenario(redis_refuses_writes, says=("Redis", "maxmemory")),
    "disk is full": Scenario(disk_is_full, says=(*UNWRITABLE, "File too large")),
    "small disk is full": Scenario(small_disk_is_full, says=(*UNWRITABLE, "No space left")),
    "data folder is read-only": Scenario(
        data_folder_is_read_only, says=(*UNWRITABLE, "Permission denied")
    ),
    "artifact is truncated": Scenario(artifact_is_truncated, says=UNREADABLE),
    "artifact is tampered with": Scenario(artifact_is_tampered_with, says=UNREADABLE),
    "artifact is foreign": Scenario(artifact_is_foreign, says=UNREADABLE),
    "artifact would execute code": Scenario(
        artifact_would_execute_code, says=(*UNREADABLE, r"posix\.system")
    ),
}
