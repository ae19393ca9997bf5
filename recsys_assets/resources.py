"""Connections as Dagster resources: the shop's PostgreSQL, Redis, the folder of artifacts.

They hand out plain objects - a psycopg connection, an Arrow table, a Redis client, arrays - so that
the code of the stages needs no Dagster. URLs come from environment variables, which the Dagster UI
shows by name and not by value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from psycopg import sql

from recsys_assets import tables
from recsys_assets.catalogue import product_names
from recsys_assets.database import arrow_reader, connect, interruptions_told, read_arrow
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import Shop, inspect_shop

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from recsys_assets.learn.artifacts import Arrays, Header
    from recsys_assets.publish.redis_client import Client
    from recsys_assets.shop_session import ShopSession
    from serving.contract import Id


class ShopDatabase(ShopSettings, dg.ConfigurableResource):  # type: ignore[type-arg]
    """The shop's database, and ours in it; the fields say where the shop keeps its orders."""

    url: str

    @contextmanager
    def connect(self) -> Iterator["psycopg.Connection"]:
        """A connection in autocommit mode, closed at the end; ShopError when it breaks off."""
        timeout = self.statement_timeout_seconds
        with (
            interruptions_told(),
            connect(self.url, statement_timeout_seconds=timeout, autocommit=True) as connection,
        ):
            yield connection

    def inspect(self) -> Shop:
        """The shop's tables, checked; see :func:`recsys_assets.shop.inspect_shop`."""
        with self.connect() as connection:
            return inspect_shop(connection, self)

    @contextmanager
    def session(self) -> "Iterator[ShopSession]":
        """A connection with the shop as it is found there, closed at the end."""
        from recsys_assets.shop_session import ShopSession

        timeout = self.statement_timeout_seconds
        with (
            self.connect() as connection,
            arrow_reader(self.url, statement_timeout_seconds=timeout) as read,
        ):
            shop = inspect_shop(connection, self)
            yield ShopSession(
                connection, shop, self.half_life, self.overlap, read, self.most_per_category
            )

    def read(self, query: Callable[[Shop], sql.Composed]) -> "pa.Table":
        """The Arrow table of a query over the shop."""
        return self._read(query(self.inspect()))

    def _read(self, query: sql.Composed) -> "pa.Table":
        return read_arrow(self.url, query, statement_timeout_seconds=self.statement_timeout_seconds)

    def processed_through(self) -> datetime | None:
        """The time up to which orders are in the interactions; None before the first refresh."""
        from recsys_assets.ingest.watermark import orders_watermark

        with self.connect() as connection:
            return orders_watermark(connection, inspect_shop(connection, self))

    def watermark(self) -> datetime:
        """The time up to which orders are in the interactions; ShopError before the first."""
        from recsys_assets.ingest.watermark import required_watermark

        with self.connect() as connection:
            return required_watermark(connection, inspect_shop(connection, self), self.half_life)

    def last_change(self) -> datetime | None:
        """The time of the latest change of an order; None in a shop without orders."""
        with self.connect() as connection:
            shop = inspect_shop(connection, self)
            row = connection.execute(shop.last_change()).fetchone()
        return row[0] if row else None

    def count_users(self) -> int:
        """Users with interactions."""
        with self.connect() as connection:
            shop = inspect_shop(connection, self)
            return tables.count_interactions(connection, shop)[1]

    def some_users(self, most: int = 20) -> "list[Id]":
        """Ids of a few users with interactions, the ones whose ids come first."""
        with self.connect() as connection:
            return tables.some_users(connection, inspect_shop(connection, self), most)

    def product_names(self, product_ids: list[Any]) -> dict[str, str]:
        """Names of products by the text of their id; empty where no names table is configured."""
        with self.connect() as connection:
            shop = inspect_shop(connection, self)
            return product_names(connection, shop, product_ids)

    def side_by_side(self, lists: "Mapping[str, Sequence[Id]]", most: int = 5) -> str:
        """The first products of a few lists by name, a Markdown table with a column for each."""
        from recsys_assets.figures import markdown_table

        names = self.product_names([i for products in lists.values() for i in products[:most]])
        places = range(min(most, max(map(len, lists.values()), default=0)))
        return markdown_table(
            [
                {
                    title: names.get(str(products[place]), products[place])
                    if place < len(products)
                    else ""
                    for title, products in lists.items()
                }
                for place in places
            ]
        )


class RedisPublisher(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The Redis that lists are published to: a single server or a cluster."""

    url: str

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """A connected client, closed at the end; a clear error when Redis is away."""
        from recsys_assets.publish.redis_writer import connect

        client = connect(self.url)
        try:
            yield client
        finally:
            client.close()


class ArtifactStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder of model artifacts; see :mod:`recsys_assets.learn.artifacts`."""

    folder: str
    keep: int = 3

    def propose(self, header: "Header", arrays: "Arrays") -> Path:
        """Make this the candidate of its artifact, which nobody uses before it is accepted."""
        from recsys_assets.learn.artifacts import save_candidate

        return save_candidate(Path(self.folder), header, arrays)

    def leave_behind(self, header: "Header", arrays: "Arrays") -> None:
        """Keep this as the candidate that was not accepted, unless there is another one by now."""
        latest = self.latest(header.name)[0]
        if latest.version == header.version:
            self.propose(header, arrays)

    def accept(
        self, header: "Header", arrays: "Arrays", *, instead_of: "Header | None" = None
    ) -> Path:
        """Make this the current version of its artifact, in place of the one it was measured by.

        Raises ArtifactError when that is not the current version any more.
        """
        from recsys_assets.learn.artifacts import ArtifactError, save_artifact

        current = self.incumbent(header.name)
        if current and (instead_of is None or current.version != instead_of.version):
            raise ArtifactError(
                f"{header.name} {current.version} has become current while {header.version} was"
                " evaluated: materialize it again"
            )
        return save_artifact(Path(self.folder), header, arrays, keep=self.keep)

    def latest(self, name: str) -> "tuple[Header, dict[str, Any]]":
        """The candidate, or where there is none the current version."""
        from recsys_assets.learn.artifacts import load_candidate

        return load_candidate(Path(self.folder), name) or self.load(name)

    def tuned(self, name: str) -> "dict[str, Any]":
        """What `recsys tune` has chosen for an artifact; nothing where it was not run."""
        from recsys_assets.tuned import read_tuned

        chosen: dict[str, Any] = read_tuned(Path(self.folder)).get(name, {})
        return chosen

    def incumbent(self, name: str) -> "Header | None":
        """The header of the current version; None where there is none that can be read."""
        from recsys_assets.learn.artifacts import ArtifactError

        try:
            return self.load(name)[0]
        except ArtifactError:
            return None

    def load(self, name: str, version: str | None = None) -> "tuple[Header, dict[str, Any]]":
        """The current version of an artifact, or the kept ``version``."""
        from recsys_assets.learn.artifacts import load_artifact

        return load_artifact(Path(self.folder), name, version)

    def als_model(self, version: str | None = None) -> "tuple[Header, dict[str, Any]]":
        """The artifact of ALS: the current version, or a kept one."""
        return self.load("als_model", version)
