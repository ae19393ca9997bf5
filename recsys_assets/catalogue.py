"""The shop's products: their names, their categories, and which of them it does not sell now.

What it does not sell a column of its table of products tells, a query, or both. It is kept in our
table ``unavailable_products`` by differences, with the time at which we learnt of it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from recsys_assets.database import ShopError
from recsys_assets.ids import parse_id, plain_id
from recsys_assets.shop import Shop, identifier
from recsys_assets.tables import create_tables, unavailable_products_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recsys_assets.learn.matrix import Ids
    from recsys_assets.shop_session import ShopSession

_NOW = sql.Identifier("pg_temp", "unavailable_now")


def product_names(
    connection: psycopg.Connection, shop: Shop, product_ids: list[Any]
) -> dict[str, str]:
    """Names by the text of the product's id; empty where no names table is configured."""
    texts = [
        text for text in map(str, product_ids) if parse_id(text, shop.product_id_type) is not None
    ]
    if shop.products is None or shop.products_name is None or not texts:
        return {}
    rows = connection.execute(
        sql.SQL(
            "SELECT {id}::text, {name} FROM {table} WHERE {id} = ANY(%s::text[]::{type}[])"
        ).format(
            id=sql.Identifier(shop.products_id),
            name=sql.Identifier(shop.products_name),
            table=identifier(shop.products),
            type=sql.SQL(shop.product_id_type),
        ),
        [texts],
    ).fetchall()
    return {key: name for key, name in rows if name is not None}


def categories(session: "ShopSession", product_ids: "Ids") -> "NDArray[np.int64]":
    """A number for the category of each product, int64 [P]; -1 for those without.

    Equal numbers are equal categories, within one call. ``product_ids`` are in any order.
    """
    import numpy as np

    from recsys_assets.learn.matrix import as_ids, positions

    shop = session.shop
    if shop.products is None or shop.products_category is None:
        return np.full(len(product_ids), -1, np.int64)
    table = session.read(
        sql.SQL(
            "SELECT DISTINCT ON (product_id) {id} AS product_id, category FROM ("
            " SELECT {products_id} AS product_id,"
            "  dense_rank() OVER (ORDER BY {category}::text) AS category"
            " FROM {products} WHERE {category} IS NOT NULL) AS ranked"
            " WHERE product_id IS NOT NULL ORDER BY product_id, category"
        ).format(
            id=plain_id("product_id", shop.product_id_type),
            products_id=_products_id(shop),
            category=sql.Identifier(shop.products_category),
            products=identifier(shop.products),
        )
    )
    ids = as_ids(table["product_id"].combine_chunks())
    order = np.argsort(ids)
    found = positions(ids[order], product_ids)
    codes = np.append(table["category"].to_numpy()[order], -1)
    return codes[found].astype(np.int64)


@dataclass(frozen=True)
class Changes:
    """Numbers of products: that the shop has stopped selling, sells again, and does not sell."""

    added: int
    removed: int
    total: int

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


class AvailabilityError(ShopError):
    """The shop's column or query does not tell what is unavailable, or not in time."""


def refresh_unavailable(
    connection: psycopg.Connection, shop: Shop, *, within: timedelta | None = None
) -> Changes:
    """Bring our table of unavailable products up to what the shop says, in one transaction.

    Creates our tables where they are missing, and waits for others who do the same. The shop's
    query runs read-only, and no product travels here. The connection is in autocommit mode. Raises
    :class:`ShopError` that names the setting when the shop's column or query does not yield ids of
    products, and :class:`AvailabilityError` when one of them takes longer than ``within``.
    """
    create_tables(connection, shop)
    kept = unavailable_products_table(shop)
    with connection.transaction():
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(kept))
        connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE IF NOT EXISTS {} (product_id {}) ON COMMIT DELETE ROWS"
            ).format(_NOW, sql.SQL(shop.product_id_type))
        )
        for setting, query in _sources(shop):
            _ask(connection, setting, query, within)
        row = connection.execute(
            sql.SQL(
                "WITH now_unavailable AS"
                "  (SELECT DISTINCT product_id FROM {now} WHERE product_id IS NOT NULL),"
                " gone AS (DELETE FROM {kept} AS kept WHERE NOT EXISTS"
                "  (SELECT FROM now_unavailable AS n WHERE n.product_id = kept.product_id)"
                "  RETURNING 1),"
                " new AS (INSERT INTO {kept} (product_id, since)"
                "  SELECT product_id, now() FROM now_unavailable AS n WHERE NOT EXISTS"
                "  (SELECT FROM {kept} AS kept WHERE kept.product_id = n.product_id) RETURNING 1)"
                " SELECT (SELECT count(*) FROM new), (SELECT count(*) FROM gone),"
                " (SELECT count(*) FROM now_unavailable)"
            ).format(now=_NOW, kept=kept)
        ).fetchone()
    assert row is not None
    return Changes(*row)


def unavailable_ids(session: "ShopSession", since: datetime | None = None) -> "Ids":
    """Ids of the products that the shop does not sell now by the last refresh, ascending.

    ``since`` narrows them to those of which we have learnt then or later. Our tables must be there.
    """
    from recsys_assets.learn.matrix import as_ids

    shop = session.shop
    table = session.read(
        sql.SQL("SELECT {} AS product_id FROM {} WHERE {}").format(
            plain_id("product_id", shop.product_id_type),
            unavailable_products_table(shop),
            sql.SQL("since >= {}").format(since) if since else sql.SQL("true"),
        )
    )
    ids = as_ids(table["product_id"].combine_chunks())
    ids.sort()
    return ids


def _sources(shop: Shop) -> list[tuple[str, sql.Composed]]:
    """SELECTs of the ids of unavailable products, with the setting that each comes from."""
    sources = []
    if shop.products and shop.products_available:
        query = sql.SQL("SELECT {} FROM {} WHERE {} {}").format(
            _products_id(shop),
            identifier(shop.products),
            sql.Identifier(shop.products_available),
            sql.SQL("IS FALSE" if shop.products_available_type == "boolean" else "<= 0"),
        )
        sources.append(("RECSYS_PRODUCTS_AVAILABLE_COLUMN", query))
    if shop.unavailable_query:
        # The first column has a name that no other of the shop's query has.
        query = sql.SQL("SELECT {id}::text::{type} FROM ({query}\n) AS given ({id})").format(
            id=sql.Identifier("recsys_unavailable_product_id"),
            type=sql.SQL(shop.product_id_type),
            query=sql.SQL(shop.unavailable_query.strip().rstrip(";")),
        )
        sources.append(("RECSYS_UNAVAILABLE_PRODUCTS_QUERY", query))
    return sources


def _ask(
    connection: psycopg.Connection, setting: str, query: sql.Composed, within: timedelta | None
) -> None:
    """Put the ids of a query of the shop's into our temporary table."""
    try:
        with connection.transaction():  # at whose end the outer one may write again
            connection.execute("SET TRANSACTION READ ONLY")  # but for temporary tables
            if within is not None:
                milliseconds = sql.Literal(within // timedelta(milliseconds=1))
                connection.execute(
                    sql.SQL("SET LOCAL statement_timeout TO {}").format(milliseconds)
                )
            # In the binary protocol, where this can be one statement only.
            connection.execute(sql.SQL("INSERT INTO {} {}").format(_NOW, query), binary=True)
            connection.execute("SET LOCAL statement_timeout TO DEFAULT")  # the connection's own
    except psycopg.errors.QueryCanceled as error:
        if within is None:
            raise
        raise AvailabilityError(
            f"{setting} has not told within {within.total_seconds():g} s which products are"
            f" unavailable: {' '.join(str(error).split())}"
        ) from error
    except psycopg.OperationalError:  # which says nothing of the query
        raise
    except psycopg.Error as error:
        raise AvailabilityError(
            f"{setting} does not tell which products are unavailable:"
            f" {' '.join(str(error).split())}. See docs/configuring.md."
        ) from error


def _products_id(shop: Shop) -> sql.Composed:
    """The id in the table of products, in the type of the order lines' ids."""
    return sql.SQL("{}::text::{}").format(
        sql.Identifier(shop.products_id), sql.SQL(shop.product_id_type)
    )
