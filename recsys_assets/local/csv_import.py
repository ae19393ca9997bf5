"""The import of a shop's own export: CSV files into ``orders``, ``order_items``, ``products``.

Good lines stream into temporary tables, in which PostgreSQL looks for ids that are there twice or
not at all; then, in the same transaction, into the shop's tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from recsys_assets.local.csv_lines import BadLines, Column, Ids, read_lines, shop_columns
from recsys_assets.local.shop_tables import (
    Progress,
    ShopCounts,
    create_table,
    existing_tables,
    finish_table,
    no_progress,
)

ID_COLUMNS = {
    "order": (("orders", "id"), ("order_items", "order_id")),
    "user": (("orders", "user_id"),),
    "product": (("order_items", "product_id"), ("products", "id")),
}


def load_csv(
    connection: psycopg.Connection,
    orders_csv: Path,
    items_csv: Path,
    *,
    products_csv: Path | None = None,
    progress: Progress = no_progress,
) -> ShopCounts:
    """Append the files' lines to the shop's tables in one transaction; return how many.

    A file is UTF-8, separated by commas, with a header of these names in any order; a column or
    field that may be missing has the default in brackets:

    - orders: ``id``, ``user_id`` [a guest; the column must be there], ``created_at``,
      ``updated_at`` [``created_at``], ``status`` [``completed``];
    - items: ``order_id``, ``product_id``, ``quantity`` [1], ``price`` [none];
    - products: ``id``, ``name``, ``department``, ``category``, ``brand`` [none].

    Timestamps are ISO 8601, in UTC where they give no offset. Quantities may be zero or negative.
    Tables that are missing are created, with ids of type bigint where every id is an integer, else
    text. ``progress`` is told bytes per file. Memory does not grow with the files.

    Raises CsvError with the first bad lines and the number of all, and loads nothing. Whether ids
    are unique and known is looked at once every line is good by itself.
    """
    paths = {"orders": orders_csv, "order_items": items_csv}
    if products_csv is not None:
        paths["products"] = products_csv
    with connection.transaction():
        connection.execute("SET LOCAL timezone TO 'UTC'")
        ids = {kind: Ids(_existing_type(connection, kind)) for kind in ID_COLUMNS}
        columns = shop_columns(ids)
        bad = BadLines()
        counts = {
            table: _stage(connection, table, path, columns[table], bad, progress)
            for table, path in paths.items()
        }
        bad.raise_if_any()
        id_types = {kind: known.sql_type for kind, known in ids.items()}
        _note_repeated_ids(connection, "orders", orders_csv, id_types["order"], bad)
        _note_unknown_orders(connection, items_csv, id_types["order"], bad)
        if products_csv is not None:
            _note_repeated_ids(connection, "products", products_csv, id_types["product"], bad)
        bad.raise_if_any()
        for table in paths:
            _move(connection, table, columns[table], id_types)
    return ShopCounts(**{"products": 0, **counts})


def _existing_type(connection: psycopg.Connection, kind: str) -> str | None:
    """The SQL type that the tables, where there are any, have for ids of the kind."""
    for table, column in ID_COLUMNS[kind]:
        found = connection.execute(
            "SELECT format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attname = %s",
            [table, column],
        ).fetchone()
        if found is not None:
            return str(found[0])
    return None


def _stage(
    connection: psycopg.Connection,
    table: str,
    path: Path,
    columns: Sequence[Column],
    bad: BadLines,
    progress: Progress,
) -> int:
    """Copy the good lines into a temporary table of text columns; return how many."""
    staged = _staged(table)
    definition = sql.SQL(", ").join(
        sql.SQL("{} text").format(sql.Identifier(column.name)) for column in columns
    )
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} (line bigint, {})").format(staged, definition)
    )
    count = 0
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY {} FROM STDIN").format(staged)) as copy,
    ):
        for line, values in read_lines(path, columns, bad, progress):
            copy.write_row((line, *values))
            count += 1
    connection.execute(sql.SQL("ANALYZE {}").format(staged))
    return count


def _note_repeated_ids(
    connection: psycopg.Connection, table: str, path: Path, id_type: str, bad: BadLines
) -> None:
    names = {"staged": _staged(table), "table": sql.Identifier(table), "type": sql.SQL(id_type)}
    repeated = sql.SQL("""
        SELECT line, id FROM (
            SELECT line, id, row_number() OVER (PARTITION BY id::{type} ORDER BY line) AS nth
            FROM {staged}
        ) AS numbered WHERE nth > 1 ORDER BY line""")
    for line, key in _each(connection, repeated.format(**names)):
        bad.add(path, line, f"id {key!r} is in the file before")
    if table not in existing_tables(connection):
        return
    known = sql.SQL(
        "SELECT line, s.id FROM {staged} s JOIN {table} t ON t.id = s.id::{type} ORDER BY line"
    )
    for line, key in _each(connection, known.format(**names)):
        bad.add(path, line, f"id {key!r} is in the table {table} already")


def _note_unknown_orders(
    connection: psycopg.Connection, path: Path, id_type: str, bad: BadLines
) -> None:
    known = [_staged("orders")]
    if "orders" in existing_tables(connection):
        known.append(sql.Identifier("orders"))
    conditions = sql.SQL(" AND ").join(
        sql.SQL("NOT EXISTS (SELECT FROM {} o WHERE o.id::{} = i.order_id::{})").format(
            orders, sql.SQL(id_type), sql.SQL(id_type)
        )
        for orders in known
    )
    query = sql.SQL("SELECT line, order_id FROM {} i WHERE {} ORDER BY line")
    for line, key in _each(connection, query.format(_staged("order_items"), conditions)):
        bad.add(path, line, f"order_id {key!r} is neither in the orders file nor in the table")


def _each(connection: psycopg.Connection, query: sql.Composed) -> Iterator[tuple[int, str]]:
    """The rows of the query, however many, without keeping them all here."""
    with connection.cursor("bad_lines") as cursor:
        yield from cursor.execute(query)


def _move(
    connection: psycopg.Connection,
    table: str,
    columns: Sequence[Column],
    id_types: Mapping[str, str],
) -> None:
    """Insert the staged lines into the table, which is made if it is missing."""
    create = table not in existing_tables(connection)
    if create:
        create_table(connection, table, id_types)
    present = _column_names(connection, table)
    moved = [column for column in columns if column.required or column.name in present]
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY line").format(
            sql.Identifier(table),
            sql.SQL(", ").join(sql.Identifier(column.name) for column in moved),
            sql.SQL(", ").join(_typed(column) for column in moved),
            _staged(table),
        )
    )
    connection.execute(sql.SQL("DROP TABLE {}").format(_staged(table)))
    if create:
        finish_table(connection, table)


def _typed(column: Column) -> sql.Composed:
    """The staged text of a column as a value of the column's type."""
    text = sql.Identifier(column.name)
    value = (
        sql.SQL("coalesce({}, created_at)").format(text) if column.name == "updated_at" else text
    )
    return sql.SQL("{}::{}").format(value, sql.SQL(column.sql_type))


def _column_names(connection: psycopg.Connection, table: str) -> set[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        [table],
    )
    return {name for (name,) in rows}


def _staged(table: str) -> sql.Identifier:
    return sql.Identifier(f"csv_{table}")
