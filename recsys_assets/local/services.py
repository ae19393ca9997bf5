"""The two servers everything runs on: the shop's own, or embedded ones where none are set."""

import atexit
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from recsys_assets.settings import Settings


@contextmanager
def running_services(
    settings: Settings, *, database: bool = True, redis: bool = True
) -> Iterator[Settings]:
    """Yield the settings with the URLs of running servers filled in.

    A URL that is set is left alone. For one that is not, the embedded server in
    ``settings.state_dir`` is found or started, and stopped on leaving if no other process uses it.
    ``database`` and ``redis`` say which of the two the caller needs.

    Raises MissingPackageError when an embedded server is not installed, ServiceError when it does
    not start.
    """
    urls: dict[str, str] = {}
    with ExitStack() as servers:
        if database and settings.database_url is None:
            postgres = PostgresServer(settings.state_dir / "postgres")
            urls["database_url"] = servers.enter_context(postgres.in_use())
        if redis and settings.redis_url is None:
            server = RedisServer(settings.state_dir / "redis")
            urls["redis_url"] = servers.enter_context(server.in_use())
        yield settings.model_copy(update=urls)


_of_this_process = ExitStack()


def use_services(settings: Settings) -> Settings:
    """The settings with the URLs of servers that run for as long as this process lives.

    Children of this process find the URLs in the environment. For programs that nobody can wrap
    in :func:`running_services`, such as Dagster's own commands.
    """
    if not (settings.database_url and settings.redis_url):
        settings = _of_this_process.enter_context(running_services(settings))
        atexit.register(_of_this_process.close)
    export_urls(settings)
    return settings


def export_urls(settings: Settings) -> None:
    """Let the resources of this process and its children find the servers of ``settings``."""
    os.environ.update(
        {
            f"RECSYS_{name.upper()}": url
            for name in ("database_url", "redis_url")
            if (url := getattr(settings, name))
        }
    )
