"""What was known before a moment, and what was bought after it: queries over the counted orders.

The past is computed from the ledger of all orders, as a refresh at that moment would have computed
it: what is learnt from it has not seen what it is measured by.
"""

from datetime import datetime, timedelta

from psycopg import sql

from recsys_assets.ids import plain_id
from recsys_assets.ingest.popularity import decay
from recsys_assets.shop import LATEST_DATE, Shop, identifier
from recsys_assets.tables import counted_orders_table


def interactions_before(shop: Shop, moment: datetime, half_life: timedelta) -> sql.Composed:
    """SELECT of every interaction as of ``moment``, with the columns of :func:`tables.weights`."""
    return sql.SQL(
        "SELECT {user_id} AS user_id, {product_id} AS product_id,"
        " greatest(sum({weight}), 1e-30)::float4 AS weight, count(*)::integer AS purchase_count,"
        " min(purchased_at) AS first_purchased_at, max(purchased_at) AS last_purchased_at"
        " FROM {orders}, unnest(product_ids) AS product_id"
        " WHERE user_id IS NOT NULL AND purchased_at < {moment}"
        " GROUP BY user_id, product_id"
    ).format(
        weight=decay(sql.SQL("purchased_at"), sql.Literal(moment), half_life),
        moment=sql.Literal(moment),
        **_names(shop),
    )


def bought_between(shop: Shop, since: datetime, until: datetime) -> sql.Composed:
    """SELECT of the distinct (user_id, product_id) bought from ``since`` on and before ``until``.

    Of users only who had bought before, and whom a list could have been made for. These are found
    first and once, for to look at each order's user alone takes the square of the orders of one
    who has bought masses since.
    """
    return sql.SQL(
        "WITH earlier AS MATERIALIZED (SELECT DISTINCT user_id FROM {orders}"
        "  WHERE user_id IS NOT NULL AND purchased_at < {since})"
        " SELECT DISTINCT {user_id} AS user_id, {product_id} AS product_id"
        " FROM {orders}, unnest(product_ids) AS product_id"
        " WHERE purchased_at >= {since} AND purchased_at < {until}"
        " AND user_id IN (SELECT user_id FROM earlier)"
    ).format(since=sql.Literal(since), until=sql.Literal(until), **_names(shop))


def popularity_before(shop: Shop, moment: datetime, half_life: timedelta) -> sql.Composed:
    """SELECT of (product_id, orders, weight) as of ``moment``, guests' orders included.

    ``orders`` is the number of a product's purchases, ``weight`` the same with each halved for
    every half-life of its age.
    """
    return sql.SQL(
        "SELECT {product_id} AS product_id, count(*) AS orders, sum({weight}) AS weight"
        " FROM {orders}, unnest(product_ids) AS product_id WHERE purchased_at < {moment}"
        " GROUP BY product_id"
    ).format(
        weight=decay(sql.SQL("purchased_at"), sql.Literal(moment), half_life),
        moment=sql.Literal(moment),
        **_names(shop),
    )


def last_order(shop: Shop) -> sql.Composed:
    """SELECT of the time of the latest order of the shop; null where there is none."""
    return sql.SQL(
        "SELECT max({created})::timestamptz FROM {orders} WHERE {created} <= {latest}"
    ).format(
        created=sql.Identifier(shop.created_at),
        orders=identifier(shop.orders),
        latest=LATEST_DATE,
    )


def last_purchase(shop: Shop) -> sql.Composed:
    """SELECT of the time of the latest purchase; null where there is none."""
    return sql.SQL("SELECT max(purchased_at) FROM {}").format(counted_orders_table(shop))


def _names(shop: Shop) -> dict[str, sql.Composable]:
    return {
        "user_id": plain_id("user_id", shop.user_id_type),
        "product_id": plain_id("product_id", shop.product_id_type),
        "orders": counted_orders_table(shop),
    }
