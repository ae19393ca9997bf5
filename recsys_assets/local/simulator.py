"""Orders that come in: those the sample shop was loaded without, placed one after the other.

The shop's timeline simply goes on: an order keeps the time at which its customer placed it. Which
orders are left and when each comes in is pure; :func:`place_orders` writes.
"""

import random
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import accumulate, groupby, islice, repeat
from operator import itemgetter

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from recsys_assets.local.errors import LocalError
from recsys_assets.local.sample_shop import STATUS, loaded_sample, prices, sample_lines

_ORDER = ("basket_id", "household_id", "placed_at")
_LINE = ("product_id", "quantity", "price")
_ROWS_AT_ONCE = 10_000


class NothingHeldBackError(LocalError):
    """The database does not hold a sample that was loaded without its last days."""


@dataclass(frozen=True)
class Line:
    """A product in an order."""

    product_id: int
    quantity: int
    price: Decimal


@dataclass(frozen=True)
class Order:
    """An order and its lines, at least one."""

    id: int
    user_id: int
    placed_at: datetime
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class WaitingOrders:
    """Orders that have yet to come in, in the order of their time; made as they are read."""

    lines: pa.Table
    """As :func:`~recsys_assets.local.sample_shop.sample_lines` gives them, sorted by order."""

    def __len__(self) -> int:
        count: int = pc.count_distinct(self.lines["basket_id"]).as_py()
        return count

    def __iter__(self) -> Iterator[Order]:
        moments = self.lines["transaction_timestamp"].cast(pa.timestamp("s", "UTC"))
        table = self.lines.append_column("placed_at", moments).append_column(
            "price", prices(self.lines)
        )
        rows = (row for chunk in table.to_batches(_ROWS_AT_ONCE) for row in chunk.to_pylist())
        for (order_id, user_id, placed_at), lines in groupby(rows, itemgetter(*_ORDER)):
            bought = tuple(Line(*itemgetter(*_LINE)(line)) for line in lines)
            yield Order(order_id, user_id, placed_at, bought)


def remaining(lines: pa.Table, present: Collection[int]) -> WaitingOrders:
    """The orders of ``lines`` whose ids are not ``present``, those placed first in front."""
    there = pa.array(present, pa.int64())
    left = lines.filter(pc.invert(pc.is_in(lines["basket_id"], there)))
    by = ("transaction_timestamp", "basket_id", "product_id")
    return WaitingOrders(left.sort_by([(column, "ascending") for column in by]))


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Moments of a Poisson process, in seconds from its start, ``rate`` a second; without end."""
    chance = random.Random(seed)
    return accumulate(chance.expovariate(each) for each in repeat(rate))


def waiting_orders(connection: psycopg.Connection) -> WaitingOrders:
    """The orders that the sample was loaded without and that have not come in since.

    Raises :class:`NothingHeldBackError` where no sample is loaded, or all of it.
    """
    sample = loaded_sample(connection)
    if sample is None or sample.until is None:
        found = f"the {sample} is loaded with all of its orders" if sample else "there is no sample"
        raise NothingHeldBackError(
            f"no order is held back that could come in: {found}. Load the sample without its last"
            " four weeks: recsys load-sample --hold-back-days 28 (with --replace where its tables"
            " are there already)"
        )
    lines = sample_lines(households=sample.households, since=sample.until)
    ids = pc.unique(lines["basket_id"]).to_pylist()
    rows = connection.execute("SELECT id FROM orders WHERE id = ANY(%s)", [ids])
    return remaining(lines, [order_id for (order_id,) in rows])


def come_in(
    connection: psycopg.Connection,
    orders: Iterable[Order],
    *,
    rate: float,
    burst: int = 0,
    seed: int = 0,
) -> Iterator[Sequence[Order]]:
    """Place the orders as time passes, ``rate`` a second on average; yield those of each commit.

    The first ``burst`` of them come at once. Where the database is slower than ``rate``, the next
    order comes as soon as it can. Orders that are there already are passed over without waiting.
    """
    left = iter(orders)
    if first := place_orders(connection, list(islice(left, burst))):
        yield first
    moments = arrivals(rate, seed)
    started, moment = time.monotonic(), next(moments)
    for order in left:
        time.sleep(max(0.0, started + moment - time.monotonic()))
        if placed := place_orders(connection, [order]):
            moment = next(moments)
            yield placed


_PLACE = """
WITH placed AS (
    INSERT INTO orders (id, user_id, status, created_at, updated_at)
    SELECT id, user_id, %s, placed_at, placed_at
    FROM unnest(%s::bigint[], %s::bigint[], %s::timestamptz[]) AS o (id, user_id, placed_at)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), lines AS (
    INSERT INTO order_items (order_id, product_id, quantity, price)
    SELECT order_id, product_id, quantity, price
    FROM unnest(%s::bigint[], %s::bigint[], %s::integer[], %s::numeric[])
        AS l (order_id, product_id, quantity, price)
    WHERE order_id IN (SELECT id FROM placed)
)
SELECT id FROM placed
"""


def place_orders(connection: psycopg.Connection, orders: Sequence[Order]) -> list[Order]:
    """Write orders with their lines and commit; return those that were not there before.

    An order that is there, as it is when another process was faster, is left as it is.
    """
    lines = [(order.id, line) for order in orders for line in order.lines]
    rows = connection.execute(
        _PLACE,
        [
            STATUS,
            [order.id for order in orders],
            [order.user_id for order in orders],
            [order.placed_at for order in orders],
            [order_id for order_id, _ in lines],
            [line.product_id for _, line in lines],
            [line.quantity for _, line in lines],
            [line.price for _, line in lines],
        ],
    ).fetchall()
    connection.commit()
    placed = {order_id for (order_id,) in rows}
    return [order for order in orders if order.id in placed]
