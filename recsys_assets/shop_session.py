"""An open connection to the shop with what every stage asks it by."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from recsys_assets.shop import Shop
from recsys_assets.tables import is_publication_due

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ShopSession:
    """A connection in autocommit mode, the shop found there, and how its purchases weigh.

    ``read`` gives the Arrow table of a query, on a second connection. ``most_per_category`` caps
    the products of a category in a list.
    """

    connection: psycopg.Connection
    shop: Shop
    half_life: timedelta
    overlap: timedelta
    read: "Callable[[sql.Composed], pa.Table]"
    most_per_category: int | None = None

    def changes(self) -> tuple[Any, ...]:
        """What is other as soon as an order has changed, or there are lists to be published.

        See :meth:`Shop.changes` and :func:`recsys_assets.tables.is_publication_due`.
        """
        orders = self.connection.execute(self.shop.changes(self.overlap)).fetchone()
        return orders, is_publication_due(self.connection, self.shop)
