"""Our own tables beside the shop's: names, schemas, and the queries over them.

- ``user_product_interactions``: one row per user and product, see
  :mod:`recsys_assets.ingest.interactions`;
- ``batch_metadata``: the watermark of the job that fills it, and what that depended on.
"""

from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from recsys_assets.database import ShopError, columns_of
from recsys_assets.shop import Shop, plain_id

INTERACTIONS = "user_product_interactions"
BATCH_METADATA = "batch_metadata"


def interactions_table(shop: Shop) -> sql.Identifier:
    """Our table of interactions, as an identifier."""
    return sql.Identifier(shop.schema, INTERACTIONS)


def batch_metadata_table(shop: Shop) -> sql.Identifier:
    """Our table of watermarks, as an identifier."""
    return sql.Identifier(shop.schema, BATCH_METADATA)


def create_tables(connection: psycopg.Connection, shop: Shop) -> None:
    """Create our schema and tables where they are missing, with ids of the shop's own types.

    Asks for the right to create only when something is missing; others who do it now are waited
    for.

    Raises :class:`ShopError` when the interactions exist with ids of other types.
    """
    with connection.transaction():
        if not all(
            columns_of(connection, f"{shop.schema}.{table}")
            for table in (BATCH_METADATA, INTERACTIONS)
        ):
            # IF NOT EXISTS alone fails when another transaction is just creating the same.
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [INTERACTIONS])
            _create_missing(connection, shop)
    existing = columns_of(connection, f"{shop.schema}.{INTERACTIONS}")
    for column, wanted in (("user_id", shop.user_id_type), ("product_id", shop.product_id_type)):
        if existing.get(column) != wanted:
            raise ShopError(
                f"{shop.schema}.{INTERACTIONS}.{column} is {existing.get(column)}, but the shop's"
                f" ids are {wanted}. Drop the table (it is rebuilt from the orders) or set"
                " RECSYS_SCHEMA_NAME to another schema."
            )


def _create_missing(connection: psycopg.Connection, shop: Shop) -> None:
    if not _has_schema(connection, shop.schema):  # IF NOT EXISTS asks for the right all the same
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(shop.schema)))
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} ("
            " job_name text PRIMARY KEY,"
            " last_processed_at timestamptz,"
            " parameters jsonb NOT NULL DEFAULT '{{}}')"
        ).format(batch_metadata_table(shop))
    )
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} ("
            " user_id {} NOT NULL,"
            " product_id {} NOT NULL,"
            " interaction_score double precision NOT NULL,"
            " purchase_count integer NOT NULL,"
            " last_updated_at timestamptz NOT NULL,"
            " PRIMARY KEY (user_id, product_id))"
        ).format(
            interactions_table(shop), sql.SQL(shop.user_id_type), sql.SQL(shop.product_id_type)
        )
    )


def _has_schema(connection: psycopg.Connection, schema: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", [schema]
    ).fetchone()
    return row is not None and bool(row[0])


def weights(shop: Shop, as_of: datetime, half_life: timedelta) -> sql.Composed:
    """SELECT of (user_id, product_id, weight): every interaction's score decayed to ``as_of``.

    Ids are bigint or text, weight is float4.
    """
    return sql.SQL(
        "SELECT {user_id} AS user_id, {product_id} AS product_id,"
        " (interaction_score * power(0.5::float8, least(100, greatest(0,"
        " extract(epoch FROM {as_of} - last_updated_at)::float8 / {half_life}))))::float4"
        " AS weight FROM {interactions}"
    ).format(
        user_id=plain_id("user_id", shop.user_id_type),
        product_id=plain_id("product_id", shop.product_id_type),
        as_of=sql.Literal(as_of),
        half_life=sql.Literal(half_life.total_seconds()),
        interactions=interactions_table(shop),
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
