"""Our own tables beside the shop's: names, schemas, and the queries over them.

- ``user_product_interactions``: one row per user and product, what the later stages learn from;
- ``counted_orders``: every order that counts as purchases, as it was when it was last read: what a
  changed order is compared with, and what the interactions are computed from;
- ``product_popularity``: the decayed number of purchases of every product, guests' included;
- ``changed_users``: users whose interactions have changed since their lists were published;
- ``unavailable_products``: products that the shop does not sell now, and since when we know it; see
  :mod:`recsys_assets.catalogue`;
- ``recommendation_rules``: what the shop's people want in lists and what not, which they write; see
  :mod:`recsys_assets.publish.merchandising`;
- ``batch_metadata``: how far a job has got, and what its result depended on.

How the first four are kept up is told in :mod:`recsys_assets.ingest`.
"""

from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from recsys_assets.database import ShopError, columns_of
from recsys_assets.ids import plain_id
from recsys_assets.shop import EVERYTHING, Shop

INTERACTIONS = "user_product_interactions"
COUNTED_ORDERS = "counted_orders"
POPULARITY = "product_popularity"
CHANGED_USERS = "changed_users"
UNAVAILABLE_PRODUCTS = "unavailable_products"
RECOMMENDATION_RULES = "recommendation_rules"
BATCH_METADATA = "batch_metadata"
# The job whose row in batch_metadata tells what the users' lists are published from.
USER_TOP_BUYS = "user_top_buys"


def interactions_table(shop: Shop) -> sql.Identifier:
    """Our table of interactions, as an identifier."""
    return sql.Identifier(shop.schema, INTERACTIONS)


def counted_orders_table(shop: Shop) -> sql.Identifier:
    """Our table of counted orders, as an identifier."""
    return sql.Identifier(shop.schema, COUNTED_ORDERS)


def popularity_table(shop: Shop) -> sql.Identifier:
    """Our table of popularity, as an identifier."""
    return sql.Identifier(shop.schema, POPULARITY)


def changed_users_table(shop: Shop) -> sql.Identifier:
    """Our table of users to publish, as an identifier."""
    return sql.Identifier(shop.schema, CHANGED_USERS)


def unavailable_products_table(shop: Shop) -> sql.Identifier:
    """Our table of products that the shop does not sell now, as an identifier."""
    return sql.Identifier(shop.schema, UNAVAILABLE_PRODUCTS)


def recommendation_rules_table(shop: Shop) -> sql.Identifier:
    """Our table of rules, as an identifier."""
    return sql.Identifier(shop.schema, RECOMMENDATION_RULES)


def batch_metadata_table(shop: Shop) -> sql.Identifier:
    """Our table of watermarks, as an identifier."""
    return sql.Identifier(shop.schema, BATCH_METADATA)


# The score is above zero and at most the count (but for the last bits of a sum of ones).
_TABLES = {
    BATCH_METADATA: (
        "job_name text PRIMARY KEY",
        "last_processed_at timestamptz",
        "parameters jsonb NOT NULL DEFAULT '{{}}'",
    ),
    INTERACTIONS: (
        "user_id {user_id} NOT NULL",
        "product_id {product_id} NOT NULL",
        "interaction_score double precision NOT NULL"
        " CHECK (interaction_score > 0 AND interaction_score <= purchase_count * (1 + 1e-9))",
        "purchase_count integer NOT NULL",
        "first_purchased_at timestamptz NOT NULL",
        "last_updated_at timestamptz NOT NULL",
        "PRIMARY KEY (user_id, product_id)",
    ),
    COUNTED_ORDERS: (
        "order_id {order_id} NOT NULL",
        "user_id {user_id}",
        "purchased_at timestamptz NOT NULL",
        "product_ids {product_id}[] NOT NULL",
    ),
    POPULARITY: (
        "product_id {product_id} PRIMARY KEY",
        "purchase_count integer NOT NULL",
        "weight double precision NOT NULL",
        "last_updated_at timestamptz NOT NULL",
    ),
    CHANGED_USERS: ("user_id {user_id} PRIMARY KEY", "change bigint NOT NULL"),
    UNAVAILABLE_PRODUCTS: ("product_id {product_id} PRIMARY KEY", "since timestamptz NOT NULL"),
    # Without constraints: a row that is wrong is told of when it is read.
    RECOMMENDATION_RULES: (
        "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "scope text DEFAULT 'everywhere'",
        "product_id text",
        "action text",
        "weight double precision",
        "valid_from timestamptz",
        "valid_until timestamptz",
        "note text",
    ),
}
OUR_TABLES = tuple(_TABLES)
_REBUILT = [table for table in _TABLES if table != RECOMMENDATION_RULES]
_INDEXES = {COUNTED_ORDERS: ("order_id", "user_id")}
# Room in every page, in which a row is updated without touching the index.
_FILLFACTORS = {INTERACTIONS: 80, POPULARITY: 50}


def tables_exist(connection: psycopg.Connection, shop: Shop) -> bool:
    """Whether all of our tables are there, and as this release has them."""
    return all(
        columns_of(connection, f"{shop.schema}.{table}") for table in _TABLES
    ) and not _is_outdated(connection, shop)


def _is_outdated(connection: psycopg.Connection, shop: Shop) -> bool:
    columns = columns_of(connection, f"{shop.schema}.{INTERACTIONS}")
    return bool(columns) and "first_purchased_at" not in columns


def create_tables(connection: psycopg.Connection, shop: Shop) -> None:
    """Create our schema and tables where they are missing, with ids of the shop's own types.

    Asks for the right to create only when something is missing; others who do it now are waited
    for.

    Raises :class:`ShopError` when the interactions exist with ids of other types.
    """
    with connection.transaction():
        if not tables_exist(connection, shop):
            # IF NOT EXISTS alone fails when another transaction is just creating the same.
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [INTERACTIONS])
            _create_missing(connection, shop)
    for table, column, wanted in (
        (INTERACTIONS, "user_id", shop.user_id_type),
        (INTERACTIONS, "product_id", shop.product_id_type),
        (COUNTED_ORDERS, "order_id", shop.order_id_type),
        (UNAVAILABLE_PRODUCTS, "product_id", shop.product_id_type),
    ):
        existing = columns_of(connection, f"{shop.schema}.{table}").get(column)
        if existing != wanted:
            raise ShopError(
                f"{shop.schema}.{table}.{column} is {existing}, but the shop's ids are {wanted}."
                f" Drop our tables ({', '.join(_REBUILT)}; they are rebuilt from the orders) or set"
                " RECSYS_SCHEMA_NAME to another schema."
            )


def _create_missing(connection: psycopg.Connection, shop: Shop) -> None:
    if not _has_schema(connection, shop.schema):  # IF NOT EXISTS asks for the right all the same
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(shop.schema)))
    types = {
        "order_id": sql.SQL(shop.order_id_type),
        "user_id": sql.SQL(shop.user_id_type),
        "product_id": sql.SQL(shop.product_id_type),
    }
    if _is_outdated(connection, shop):  # the next refresh computes them anew
        connection.execute(sql.SQL("DROP TABLE {}").format(interactions_table(shop)))
        forget_orders(connection, shop)
    for table, columns in _TABLES.items():
        if columns_of(connection, f"{shop.schema}.{table}"):
            continue
        name = sql.Identifier(shop.schema, table)
        connection.execute(
            sql.SQL("CREATE TABLE {} ({}) WITH (fillfactor = {})").format(
                name,
                sql.SQL(", ".join(columns)).format(**types),
                sql.Literal(_FILLFACTORS.get(table, 100)),
            )
        )
        for column in _INDEXES.get(table, ()):
            connection.execute(
                sql.SQL("CREATE INDEX ON {} ({})").format(name, sql.Identifier(column))
            )


def _has_schema(connection: psycopg.Connection, schema: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", [schema]
    ).fetchone()
    return row is not None and bool(row[0])


def weights(
    shop: Shop, as_of: datetime, half_life: timedelta, whose: sql.Composable = EVERYTHING
) -> sql.Composed:
    """SELECT of the interactions, with each score brought to ``as_of`` as its weight.

    Columns are user_id and product_id, bigint or text, weight, float4, purchase_count,
    first_purchased_at and last_purchased_at. What was bought since weighs more, but no more than
    twice: without bound, one purchase would outweigh whatever else the model knows. ``whose``
    narrows it (a condition that starts with WHERE).
    """
    return sql.SQL(
        "SELECT {user_id} AS user_id, {product_id} AS product_id,"
        " (interaction_score * power(0.5::float8, least(100, greatest(-1,"
        " extract(epoch FROM {as_of} - last_updated_at)::float8 / {half_life}))))::float4"
        " AS weight, purchase_count, first_purchased_at, last_updated_at AS last_purchased_at"
        " FROM {interactions} {whose}"
    ).format(
        user_id=plain_id("user_id", shop.user_id_type),
        product_id=plain_id("product_id", shop.product_id_type),
        as_of=sql.Literal(as_of),
        half_life=sql.Literal(half_life.total_seconds()),
        interactions=interactions_table(shop),
        whose=whose,
    )


def popularity(
    shop: Shop, as_of: datetime, half_life: timedelta, most: int | None = None
) -> sql.Composed:
    """SELECT of (product_id, weight, orders) of the ``most`` popular products, best first.

    ``weight`` is the number of a product's purchases, guests' included, each halved for every
    half-life before ``as_of``. What differs in the last bits only is in the order of ids.
    """
    return sql.SQL(
        "SELECT product_id, weight, orders FROM ("
        " SELECT {product_id} AS product_id, weight * power(0.5::float8, greatest(-1000,"
        "  least(1000, extract(epoch FROM {as_of} - last_updated_at)::float8 / {half_life})))"
        "  AS weight, purchase_count::bigint AS orders FROM {popularity}) AS counted"
        " ORDER BY round(weight * 1e9) DESC, product_id LIMIT {most}"
    ).format(
        product_id=plain_id("product_id", shop.product_id_type),
        as_of=sql.Literal(as_of),
        half_life=sql.Literal(half_life.total_seconds()),
        popularity=popularity_table(shop),
        most=sql.Literal(most),
    )


def mark_users(connection: psycopg.Connection, shop: Shop, users: sql.Composable) -> None:
    """Note that the lists of the users of a SELECT of (user_id) are to be published.

    A mark tells the transaction it was set in: who has read one can tell it from a later one.
    """
    connection.execute(
        sql.SQL(
            "INSERT INTO {} (user_id, change)"
            " SELECT user_id, pg_current_xact_id()::text::bigint FROM ({}) AS users"
            " ORDER BY user_id"
            " ON CONFLICT (user_id) DO UPDATE SET change = excluded.change"
        ).format(changed_users_table(shop), users)
    )


def has_purchases(connection: psycopg.Connection, shop: Shop) -> bool:
    """Whether any purchase counts, a guest's or a user's; our tables must be there."""
    row = connection.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {})").format(popularity_table(shop))
    ).fetchone()
    return row == (True,)


def is_publication_due(connection: psycopg.Connection, shop: Shop) -> bool:
    """Whether users are marked, or all lists have to be made anew; before there are tables: no."""
    if not tables_exist(connection, shop):
        return False
    row = connection.execute(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM {}) OR NOT EXISTS (SELECT FROM {} WHERE job_name = %s)"
        ).format(changed_users_table(shop), batch_metadata_table(shop)),
        [USER_TOP_BUYS],
    ).fetchone()
    return row == (True,)


def count_marked_users(connection: psycopg.Connection, shop: Shop) -> int:
    """Users whose lists are to be published; our tables must be there."""
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(changed_users_table(shop))
    ).fetchone()
    assert row is not None
    return int(row[0])


def forget_publication(connection: psycopg.Connection, shop: Shop) -> None:
    """Let the next publication of the users' lists be one of all users."""
    connection.execute(
        sql.SQL("DELETE FROM {} WHERE job_name = %s").format(batch_metadata_table(shop)),
        [USER_TOP_BUYS],
    )


def forget_orders(connection: psycopg.Connection, shop: Shop) -> None:
    """Let the next refresh recompute every user: the shop's tables were replaced by others."""
    if columns_of(connection, f"{shop.schema}.{BATCH_METADATA}"):
        connection.execute(sql.SQL("DELETE FROM {}").format(batch_metadata_table(shop)))


def count_interactions(connection: psycopg.Connection, shop: Shop) -> tuple[int, int]:
    """Rows and users of our interactions; zeros before the table exists."""
    if not columns_of(connection, f"{shop.schema}.{INTERACTIONS}"):
        return 0, 0
    row = connection.execute(
        sql.SQL(
            "SELECT coalesce(sum(rows), 0)::bigint, count(*)"
            " FROM (SELECT count(*) AS rows FROM {} GROUP BY user_id) AS users"
        ).format(interactions_table(shop))
    ).fetchone()
    assert row is not None
    return row


def some_users(connection: psycopg.Connection, shop: Shop, most: int) -> list[Any]:
    """Ids of a few users with interactions, the ones whose ids come first."""
    rows = connection.execute(
        sql.SQL("SELECT DISTINCT user_id FROM {} ORDER BY 1 LIMIT %s").format(
            interactions_table(shop)
        ),
        [most],
    ).fetchall()
    return [row[0] if isinstance(row[0], int) else str(row[0]) for row in rows]


def users_by_purchases(connection: psycopg.Connection, shop: Shop, most: int) -> list[Any]:
    """Ids of the users with the most purchases, these first."""
    rows = connection.execute(
        sql.SQL(
            "SELECT user_id FROM {} GROUP BY user_id"
            " ORDER BY sum(purchase_count) DESC, user_id LIMIT %s"
        ).format(interactions_table(shop)),
        [most],
    ).fetchall()
    return [row[0] if isinstance(row[0], int) else str(row[0]) for row in rows]
