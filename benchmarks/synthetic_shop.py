"""Synthetic shops of any size, whose shape is that of the sample shop, in PostgreSQL.

    .venv/bin/python benchmarks/synthetic_shop.py postgresql://... --lines 1000000

What is drawn, and what is known of the sample shop, 1.47 million lines of a grocery:

- a product's share of the lines falls with its rank by Zipf-Mandelbrot, 1 / (rank + 3) ** 0.85, of
  40,000 products: the first has 1.2 % of the lines, the first hundred 22 % (sample: 1.2 and 15 %);
- a basket's lines are log-normal: 9.4 on average, half of the baskets up to 5, at most 160 (sample:
  9.4, 5 and 161);
- a user's activity is log-normal, the most active tenth making a third of the orders (sample: 35
  %); there is a user for every 500 lines (sample: 595), so that a larger shop has more users, no
  busier ones;
- two fifths of a user's lines are of sixty products of their own, the others of anything, so that
  0.58 of the lines are the first of their product (sample: 0.59); a tenth of the orders are guests'
  and 3 % are cancelled;
- orders are spread evenly over two years, numbered as they come in, and last changed within hours.

Everything is a function of the seed and the size, drawn in chunks of orders in bounded memory.
"""

import argparse
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray
from psycopg import sql

from recsys_assets.database import connect
from recsys_assets.local.shop_tables import create_table, finish_table

START = datetime(2023, 1, 1, tzinfo=UTC)
YEARS = timedelta(days=730)
PRODUCTS = 40_000
LINES_PER_USER = 500
MEAN_BASKET = 9.4
MAX_BASKET = 160
GUESTS = 0.1
CANCELLED = 0.03
OWN_PRODUCTS = 60
OWN_SHARE = 0.4
CHUNK_ORDERS = 50_000
# New orders come one a minute, in a shop of any size.
NEW_ORDER_EVERY = timedelta(minutes=1)
NEW_USERS = 0.02

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Orders:
    """Some orders, as the tables ``orders`` and ``order_items`` hold them."""

    orders: pa.Table
    order_items: pa.Table


@dataclass(frozen=True)
class SyntheticShop:
    """A shop of about ``lines`` order lines; equal ones have equal orders."""

    lines: int
    seed: int = 7

    @property
    def n_orders(self) -> int:
        """Orders of the two years."""
        return max(1, round(self.lines / MEAN_BASKET))

    @property
    def n_users(self) -> int:
        """Users that may order, numbered from 1; some never do."""
        return max(1, self.lines // LINES_PER_USER)

    def history(self) -> Iterator[Orders]:
        """The orders of the two years, in the order in which they came in, chunk by chunk."""
        for first in range(0, self.n_orders, CHUNK_ORDERS):
            numbers = np.arange(first, min(first + CHUNK_ORDERS, self.n_orders))
            rng = np.random.default_rng([self.seed, 0, first])
            spacing = YEARS.total_seconds() / self.n_orders
            created = (numbers + rng.random(len(numbers))) * spacing
            users = 1 + np.searchsorted(self._activity, rng.random(len(numbers)))
            changed_after = rng.exponential(6 * 3600, len(numbers))
            yield self._drawn(rng, numbers + 1, users, created, changed_after)

    def later(self, number: int, *, after: datetime, last_id: int) -> Iterator[Orders]:
        """Batches of ``number`` further orders, without end, the first dated just after ``after``.

        They are of users of the shop, a few of them new, and have the ids after ``last_id``.
        """
        while True:
            rng = np.random.default_rng([self.seed, 1, last_id])
            users = 1 + np.searchsorted(self._activity, rng.random(number))
            new = rng.random(number) < NEW_USERS
            users[new] = self.n_users + last_id + np.flatnonzero(new)
            minutes = (after - START) / NEW_ORDER_EVERY + 1 + np.arange(number)
            created = minutes * NEW_ORDER_EVERY.total_seconds()
            ids = np.arange(last_id + 1, last_id + number + 1)
            yield self._drawn(rng, ids, users, created, np.zeros(number))
            after, last_id = after + number * NEW_ORDER_EVERY, last_id + number

    def _drawn(
        self,
        rng: np.random.Generator,
        ids: Ints,
        users: Ints,
        created: NDArray[np.float64],
        changed_after: NDArray[np.float64],
    ) -> Orders:
        """Orders with lines; times are seconds, from ``START`` and from an order's creation."""
        sizes = np.clip(np.rint(rng.lognormal(1.57, 1.16, len(ids))), 1, MAX_BASKET).astype(int)
        buyers = np.repeat(users, sizes)
        guest = rng.random(len(ids)) < GUESTS
        cancelled = rng.random(len(ids)) < CANCELLED
        orders = pa.table(
            {
                "id": ids,
                "user_id": pa.array(users, mask=guest),
                "status": np.where(cancelled, "cancelled", "completed"),
                "created_at": _timestamps(created),
                "updated_at": _timestamps(created + changed_after),
            }
        )
        order_items = pa.table(
            {
                "order_id": np.repeat(ids, sizes),
                "product_id": self._products(rng, buyers, np.repeat(guest, sizes)),
                "quantity": rng.geometric(0.8, len(buyers)),
            }
        )
        return Orders(orders, order_items)

    def _products(self, rng: np.random.Generator, buyers: Ints, guest: NDArray[np.bool_]) -> Ints:
        """A product for each line: by popularity, or one of the buyer's own, drawn by it too."""
        drawn = rng.random(len(buyers))
        own = ~guest & (rng.random(len(buyers)) < OWN_SHARE)
        place = (OWN_PRODUCTS * rng.random(int(own.sum())) ** 2).astype(np.int64)
        drawn[own] = _hashed(buyers[own] * OWN_PRODUCTS + place)
        products: Ints = self._catalogue[np.searchsorted(self._popularity, drawn)]
        return products

    @cached_property
    def _activity(self) -> NDArray[np.float64]:
        """Cumulative shares of the users in the orders."""
        return _cumulative(np.random.default_rng([self.seed, 2]).lognormal(0, 0.9, self.n_users))

    @cached_property
    def _popularity(self) -> NDArray[np.float64]:
        """Cumulative shares of the products in the lines, most popular first."""
        return _cumulative((np.arange(1, PRODUCTS + 1) + 3) ** -0.85)

    @cached_property
    def _catalogue(self) -> Ints:
        """Ids of the products, most popular first: an id says nothing of its product."""
        return np.random.default_rng([self.seed, 3]).permutation(PRODUCTS) + 1


def load(connection: psycopg.Connection, shop: SyntheticShop) -> int:
    """Create ``orders`` and ``order_items`` with all orders and their indexes; counts the lines.

    In one transaction. The indexes are on orders (id), (user_id), (updated_at) and on
    order_items (order_id).
    """
    lines = 0
    with connection.transaction():
        for table in ("orders", "order_items"):
            create_table(connection, table)
        for chunk in shop.history():
            append(connection, chunk, freeze=True)
            lines += chunk.order_items.num_rows
        for table in ("orders", "order_items"):
            finish_table(connection, table)
    return lines


def append(connection: psycopg.Connection, orders: Orders, *, freeze: bool = False) -> None:
    """Add the orders; ``freeze`` only in the transaction that has created the tables."""
    how = sql.SQL("csv, FREEZE" if freeze else "csv")
    for table, rows in (("orders", orders.orders), ("order_items", orders.order_items)):
        statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT {})").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, rows.column_names)), how
        )
        buffer = io.BytesIO()
        pa_csv.write_csv(rows, buffer, pa_csv.WriteOptions(include_header=False))
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(buffer.getbuffer())


def new_orders(
    connection: psycopg.Connection, shop: SyntheticShop, number: int
) -> Iterator[Orders]:
    """Batches of ``number`` orders newer than all that the shop in the database has, endlessly."""
    row = connection.execute("SELECT max(updated_at), max(id) FROM orders").fetchone()
    assert row is not None
    return shop.later(number, after=row[0], last_id=row[1])


def _cumulative(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative shares, the last of them 1."""
    sums = np.cumsum(weights)
    shares: NDArray[np.float64] = sums / sums[-1]
    return shares


def _hashed(keys: Ints) -> NDArray[np.float64]:
    """Each key's own number in [0, 1), as if drawn: the finalizer of SplitMix64."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) / 2.0**53


def _timestamps(seconds: NDArray[np.float64]) -> pa.Array:
    """Seconds from ``START`` as timestamps in UTC, to the second."""
    since_epoch = (START.timestamp() + seconds).astype(np.int64)
    return pa.array(since_epoch).cast(pa.timestamp("s", tz="UTC"))


def main() -> None:
    """Load a shop into an empty database."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url", help="of an empty PostgreSQL database")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with connect(arguments.url) as connection:
        lines = load(connection, SyntheticShop(arguments.lines, arguments.seed))
    print(f"{lines:,} lines in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
