"""What a command works with: settings, and connections to servers that run while it does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from recsys_assets.catalogue import product_names
from recsys_assets.database import connect
from recsys_assets.local.services import export_urls, running_services
from recsys_assets.settings import Settings, load_settings
from recsys_assets.shop import Shop, inspect_shop

if TYPE_CHECKING:
    from recsys_assets.publish.redis_writer import Client


@dataclass(frozen=True)
class Session:
    """Connections by the settings, whose URLs are those of running servers."""

    settings: Settings

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """A connection to PostgreSQL, its transaction committed at the end."""
        with connect(self.settings.database_url or "") as connection:
            yield connection

    @contextmanager
    def shop(self) -> Iterator[tuple[psycopg.Connection, Shop]]:
        """A connection and the shop as it was found there."""
        with self.database() as connection:
            yield connection, inspect_shop(connection, self.settings)

    @contextmanager
    def redis(self) -> Iterator["Client"]:
        """A client of Redis, closed at the end."""
        from recsys_assets.publish.redis_writer import connect

        client = connect(self.settings.redis_url or "")
        try:
            yield client
        finally:
            client.close()

    def names(self, product_ids: Sequence[object]) -> dict[str, str]:
        """Names of products by the text of their id, as far as the shop has any."""
        with self.shop() as (connection, shop):
            return product_names(connection, shop, list(product_ids))


@contextmanager
def open_session(*, database: bool = True, redis: bool = True) -> Iterator[Session]:
    """A session by the environment's settings; embedded servers run as long as it is open."""
    with running_services(load_settings(), database=database, redis=redis) as settings:
        export_urls(settings)
        yield Session(settings)
