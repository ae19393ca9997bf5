"""The decayed number of purchases of every product, guests' included, kept up by differences.

``weight`` is ``sum of 0.5 ** ((last_updated_at - purchased_at) / half_life)``. It comes to a later
date by a factor, so that an order that is new or gone changes the rows of its own products only.
What the additions lose to rounding, a recount makes good.
"""

from datetime import datetime, timedelta

import psycopg
from psycopg import sql

from recsys_assets.shop import Shop
from recsys_assets.tables import counted_orders_table, popularity_table

# 2 to the thousandth is the most that fits a float.
_DECAY = """
power(0.5::float8, greatest(-1000, least(1000,
    extract(epoch FROM {until} - {since})::float8 / {half_life})))
"""


def decay(since: sql.Composable, until: sql.Composable, half_life: timedelta) -> sql.Composed:
    """What a purchase ``since`` then weighs at ``until``, both expressions of timestamptz."""
    seconds = sql.Literal(half_life.total_seconds())
    return sql.SQL(_DECAY).format(since=since, until=until, half_life=seconds)


_SUMS = sql.SQL("""
SELECT product_id, sum(purchases)::integer AS purchase_count,
       sum(purchases * {weight}) AS weight, {as_of} AS last_updated_at
FROM ({purchases}) AS purchases
GROUP BY product_id
""")
_ADD = sql.SQL("""
INSERT INTO {popularity} AS old (product_id, purchase_count, weight, last_updated_at)
{sums}
ON CONFLICT (product_id) DO UPDATE SET
    purchase_count = old.purchase_count + excluded.purchase_count,
    weight = greatest(0, old.weight * {old_weight} + excluded.weight),
    last_updated_at = excluded.last_updated_at
""")


def add(connection: psycopg.Connection, shop: Shop, as_of: datetime, half_life: timedelta) -> None:
    """Count the purchases that are new, and those that are gone, of the table ``changes``."""
    changes = sql.SQL("SELECT product_id, purchased_at, purchases FROM pg_temp.changes")
    old_weight = decay(
        sql.SQL("old.last_updated_at"), sql.SQL("excluded.last_updated_at"), half_life
    )
    connection.execute(
        _ADD.format(
            popularity=popularity_table(shop),
            sums=_sums(changes, as_of, half_life),
            old_weight=old_weight,
        )
    )
    connection.execute(
        sql.SQL(
            "DELETE FROM {} AS old USING pg_temp.changes AS changes WHERE changes.purchases < 0"
            " AND changes.product_id = old.product_id AND old.purchase_count <= 0"
        ).format(popularity_table(shop))
    )


def recount(
    connection: psycopg.Connection, shop: Shop, as_of: datetime, half_life: timedelta
) -> None:
    """Replace the popularity by that of all counted orders."""
    every = sql.SQL(
        "SELECT product_id, purchased_at, 1 AS purchases FROM {}, unnest(product_ids) AS product_id"
    ).format(counted_orders_table(shop))
    connection.execute(sql.SQL("DELETE FROM {}").format(popularity_table(shop)))
    connection.execute(
        sql.SQL("INSERT INTO {} (product_id, purchase_count, weight, last_updated_at) {}").format(
            popularity_table(shop), _sums(every, as_of, half_life)
        )
    )


def _sums(purchases: sql.Composable, as_of: datetime, half_life: timedelta) -> sql.Composed:
    then = sql.SQL("{}::timestamptz").format(sql.Literal(as_of))
    weight = decay(sql.SQL("purchased_at"), then, half_life)
    return _SUMS.format(purchases=purchases, weight=weight, as_of=then)
