"""What of the shop's orders and lines does not count, and why: foreign data is dirty."""

from psycopg import sql

from recsys_assets.ids import is_integer
from recsys_assets.shop import EARLIEST_DATE, LATEST_DATE, Shop, identifier

NEVER = sql.SQL("false")
LONG_AGO = sql.SQL("'1990-01-01'")

BROKEN = (
    "orders_without_date",
    "orders_dated_ahead",
    "lines_of_no_order",
    "lines_without_product",
    "lines_without_quantity",
)
"""Of the columns of :func:`left_out` those that no sound shop has."""


def left_out(shop: Shop) -> sql.Composed:
    """SELECT of one row of counts, by a scan of both tables.

    Orders without a date or dated more than a day ahead, and lines of no order, without a product,
    without a quantity that is a number or with one that is not above zero (returns), do not count.
    Orders of guests and those dated before 1990 do.
    """
    created_at = sql.Identifier("o", shop.created_at)
    not_above_zero: sql.Composable = NEVER
    no_quantity: sql.Composable = NEVER
    if shop.quantity:
        quantity = sql.Identifier("i", shop.quantity)
        not_above_zero = sql.SQL("{} <= 0").format(quantity)
        no_quantity = sql.SQL("{} IS NULL").format(quantity)
        if not is_integer(shop.quantity_type or ""):
            no_quantity = sql.SQL("{0} IS NULL OR {0}::text = 'NaN'").format(quantity)
    return sql.SQL(
        "SELECT * FROM ("
        " SELECT count(*) AS orders,"
        "  count(*) FILTER (WHERE {user_id} IS NULL) AS orders_of_guests,"
        "  count(*) FILTER (WHERE {created_at} < {long_ago} AND {created_at} >= {earliest_date})"
        "   AS orders_before_1990,"
        "  count(*) FILTER (WHERE {created_at} IS NULL OR {created_at} < {earliest_date})"
        "   AS orders_without_date,"
        "  count(*) FILTER (WHERE {created_at} > {latest_date}) AS orders_dated_ahead"
        " FROM {orders} o) AS orders, ("
        " SELECT count(*) AS lines,"
        "  count(*) FILTER (WHERE {order_id} IS NULL) AS lines_of_no_order,"
        "  count(*) FILTER (WHERE {product_id} IS NULL) AS lines_without_product,"
        "  count(*) FILTER (WHERE {no_quantity}) AS lines_without_quantity,"
        "  count(*) FILTER (WHERE {not_above_zero}) AS lines_not_above_zero"
        " FROM {items} i LEFT JOIN {orders} o ON {order_id} = {item_order_id}) AS lines"
    ).format(
        user_id=sql.Identifier("o", shop.user_id),
        created_at=created_at,
        long_ago=LONG_AGO,
        earliest_date=EARLIEST_DATE,
        latest_date=LATEST_DATE,
        orders=identifier(shop.orders),
        items=identifier(shop.order_items),
        order_id=sql.Identifier("o", shop.order_id),
        item_order_id=sql.Identifier("i", shop.item_order_id),
        product_id=sql.Identifier("i", shop.item_product_id),
        no_quantity=no_quantity,
        not_above_zero=not_above_zero,
    )
