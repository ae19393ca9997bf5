"""Histories of a shop for tests: orders that come, change and go, as Hypothesis draws them.

What a refresh cannot see is kept apart as *hidden*: it neither came within the overlap nor changed
``updated_at``, or it is gone. The rows of its users and products are wrong until a reconciliation.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import count
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
)

from recsys_assets.database import connect
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop
from tests.shops import create_shop, id_of

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)  # before all orders
OVERLAP = timedelta(minutes=10)
STATEMENT_SECONDS = 30  # so that two who wait for each other fail

Line = tuple[int | None, int]
"""A product and its quantity."""

USERS = st.sampled_from([1, 2, 3])
BUYERS = st.one_of(USERS, st.none())
STATUSES = st.sampled_from(["completed", "paid", "open", "cancelled", "refunded"])
LINES: st.SearchStrategy[list[Line]] = st.lists(
    st.tuples(st.sampled_from([5, 6, 7, None]), st.sampled_from([1, 2, 0, -1])), max_size=4
)
SOME_LINES: st.SearchStrategy[list[Line]] = st.lists(
    st.tuples(st.sampled_from([5, 6, 7]), st.sampled_from([1, 2])), min_size=1, max_size=3
)
AGES = st.sampled_from([timedelta(0), timedelta(minutes=3), timedelta(days=9), timedelta(days=300)])
TYPES = st.sampled_from(
    [("bigint", "timestamptz"), ("text", "timestamp"), ("uuid", "timestamp(0)")]
)
PAUSES = st.sampled_from(
    [
        timedelta(0),
        timedelta(seconds=1),
        timedelta(minutes=4),
        timedelta(hours=1),
        timedelta(days=7),
    ]
)


@dataclass(frozen=True)
class Draft:
    """An order to come: ``user`` None is a guest's, ``age`` is since it was placed."""

    user: int | None
    lines: list[Line]
    status: str = "completed"
    age: timedelta = timedelta(0)
    never_updated: bool = False


def _drafts(age: st.SearchStrategy[timedelta], never_updated: bool) -> st.SearchStrategy[Draft]:
    return st.builds(
        Draft,
        user=BUYERS,
        lines=st.one_of(SOME_LINES, LINES),
        status=st.one_of(st.just("completed"), STATUSES),
        age=age,
        never_updated=st.just(never_updated),
    )


DRAFTS = st.lists(st.one_of(_drafts(AGES, False), _drafts(st.just(timedelta(0)), True)), max_size=8)


def place(
    connection: psycopg.Connection, order_id: Any, id_type: str, draft: Draft, changed: datetime
) -> None:
    """Insert an order that changed last, or was placed ``age`` before, at that time."""
    connection.execute(
        "INSERT INTO orders (id, user_id, status, created_at, updated_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        [
            order_id,
            None if draft.user is None else id_of(draft.user, id_type),
            draft.status,
            changed - draft.age,
            None if draft.never_updated else changed,
        ],
    )
    add_lines(connection, order_id, id_type, draft.lines)


def add_lines(
    connection: psycopg.Connection, order_id: Any, id_type: str, lines: list[Line]
) -> None:
    for product, quantity in lines:
        connection.execute(
            "INSERT INTO order_items (order_id, product_id, quantity) VALUES (%s, %s, %s)",
            [order_id, None if product is None else id_of(product, id_type), quantity],
        )


@dataclass
class Hidden:
    """Users and products whose rows may be wrong until the next reconciliation."""

    users: set[Any] = field(default_factory=set)
    products: set[Any] = field(default_factory=set)

    def __or__(self, other: "Hidden") -> "Hidden":
        return Hidden(self.users | other.users, self.products | other.products)


def step(**arguments: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A rule that writes down its calls: a failure that does not repeat has a history, too."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def written(self: "OrdersHistory", *drawn: Any, **named: Any) -> Any:
            values = ", ".join([*map(repr, drawn), *(f"{k}={v!r}" for k, v in named.items())])
            self.history.append(f"{function.__name__}({values})")
            return function(self, *drawn, **named)

        return rule(**arguments)(written)

    return decorate


class OrdersHistory(RuleBasedStateMachine):
    """The orders of one shop, in a schema of their own; ids and times of changing types."""

    orders = Bundle("orders")

    def __init__(self, database_url: str) -> None:
        super().__init__()
        self.url = database_url
        self.history: list[str] = []
        self.numbers = 0
        self.held: list[Any] = []  # orders of the transaction that is open
        self.began = False  # some run may have read the orders
        self.unfinished = False  # a rebuild was interrupted, and the next run may continue it
        self.watermark: datetime | None = None  # at most that which runs may have arrived at
        # By order: users and products that it has had since the last run.
        self.concerned: defaultdict[Any, set[tuple[Any, Any]]] = defaultdict(set)
        self.hidden = Hidden()
        self.hidden_from_unfinished = Hidden()

    @initialize(target=orders, types=TYPES, drafts=DRAFTS)
    def open_shop(self, types: tuple[str, str], drafts: list[Draft]) -> Any:
        self.id_type, timestamp_type = types
        self.connection = self.connect()
        self.holder = self.connect()
        self.connection.execute("SET client_min_messages = warning")
        self.connection.execute("DROP SCHEMA IF EXISTS oracle CASCADE")
        self.connection.execute("DROP SCHEMA public CASCADE")
        self.connection.execute("CREATE SCHEMA public")
        create_shop(self.connection, id_type=self.id_type, timestamp_type=timestamp_type)
        self.shop = inspect_shop(self.connection, ShopSettings())
        self.history.append(f"open_shop(types={types}, drafts={drafts})")
        (now,) = self._one("SELECT now()")
        self.clock: datetime = now - timedelta(days=1000)
        return self._come(drafts, self.clock)

    # --- Orders come

    @step(target=orders, drafts=DRAFTS, pause=PAUSES)
    def come(self, drafts: list[Draft], pause: timedelta) -> Any:
        return self._come(drafts, self._later(pause))

    @step(target=orders, drafts=DRAFTS, late=st.sampled_from([OVERLAP / 2, OVERLAP, OVERLAP * 2]))
    def come_late(self, drafts: list[Draft], late: timedelta) -> Any:
        return self._come(drafts, self.clock - late)

    @step(
        target=orders,
        drafts=DRAFTS,
        ahead=st.sampled_from([timedelta(minutes=1), timedelta(minutes=5), timedelta(days=700)]),
        updated=st.booleans(),
    )
    def come_from_the_future(self, drafts: list[Draft], ahead: timedelta, updated: bool) -> Any:
        """Dated ahead of the database's clock; ``updated`` now, otherwise likewise ahead."""
        (now,) = self._one("SELECT now()")
        dated_ahead = [replace(draft, age=timedelta(0)) for draft in drafts]
        return self._come(dated_ahead, now + ahead, updated=updated)

    # --- Orders change: those that are ``updated`` say so, the others are hidden

    @step(order=orders, status=STATUSES, pause=PAUSES, updated=st.booleans())
    def change_status(self, order: Any, status: str, pause: timedelta, updated: bool) -> None:
        self._later(pause)
        with self._changing([order], updated=updated):
            self._execute("UPDATE orders SET status = %s WHERE id = %s", status, order)

    @step(order=orders, lines=LINES, pause=PAUSES, updated=st.booleans())
    def change_lines(self, order: Any, lines: list[Line], pause: timedelta, updated: bool) -> None:
        self._later(pause)
        with self._changing([order], updated=updated):
            self._execute("DELETE FROM order_items WHERE order_id = %s", order)
            add_lines(self.connection, order, self.id_type, lines)

    @step(order=orders, product=st.sampled_from([5, 6, 7]), updated=st.booleans())
    def refund(self, order: Any, product: int, updated: bool) -> None:
        with self._changing([order], updated=updated):
            add_lines(self.connection, order, self.id_type, [(product, -1)])

    @step(order=orders, age=AGES, pause=PAUSES, updated=st.booleans())
    def change_date(self, order: Any, age: timedelta, pause: timedelta, updated: bool) -> None:
        placed = self._later(pause) - age
        with self._changing([order], updated=updated):
            self._execute("UPDATE orders SET created_at = %s WHERE id = %s", placed, order)

    @step(order=orders, user=BUYERS, pause=PAUSES, updated=st.booleans())
    def change_user(self, order: Any, user: int | None, pause: timedelta, updated: bool) -> None:
        self._later(pause)
        with self._changing([order], updated=updated):
            self._execute("UPDATE orders SET user_id = %s WHERE id = %s", self._user(user), order)

    @step(user=USERS, into=USERS, pause=PAUSES, updated=st.booleans())
    def merge_users(self, user: int, into: int, pause: timedelta, updated: bool) -> None:
        self._later(pause)
        rows = self.connection.execute(
            "SELECT id FROM orders WHERE user_id = %s AND id <> ALL(%s)",
            [self._user(user), self.held],
        ).fetchall()
        ids = [order for (order,) in rows]
        with self._changing(ids, updated=updated):
            self._execute(
                "UPDATE orders SET user_id = %s WHERE id = ANY(%s)", self._user(into), ids
            )

    @step(order=consumes(orders), lines_too=st.booleans())
    def delete(self, order: Any, lines_too: bool) -> None:
        with self._changing([order]):
            self._execute("DELETE FROM orders WHERE id = %s", order)
            if lines_too:
                self._execute("DELETE FROM order_items WHERE order_id = %s", order)

    # --- Orders whose transaction stays open while others commit

    @step(drafts=DRAFTS, pause=PAUSES)
    def hold_new(self, drafts: list[Draft], pause: timedelta) -> None:
        changed = self._later(pause)
        self._begin()
        ids = self._new_ids(drafts)
        for order_id, draft in zip(ids, drafts, strict=True):
            place(self.holder, order_id, self.id_type, draft, changed)
        self.held += ids

    @step(order=consumes(orders), status=STATUSES, pause=PAUSES)
    def hold_status(self, order: Any, status: str, pause: timedelta) -> None:
        changed = self._later(pause)
        self._begin()
        self.holder.execute(
            "UPDATE orders SET status = %s, updated_at = %s WHERE id = %s",
            [status, changed, order],
        )
        self.held.append(order)

    @precondition(lambda self: self.held)
    @step(target=orders, commit=st.booleans())
    def release(self, commit: bool) -> Any:
        with self._changing(self.held):
            self.holder.execute("COMMIT" if commit else "ROLLBACK")
        rows = self.connection.execute("SELECT id FROM orders WHERE id = ANY(%s)", [self.held])
        self.held = []
        return multiple(*(order for (order,) in rows.fetchall()))

    # --- How it is done

    def connect(self) -> psycopg.Connection:
        return connect(self.url, statement_timeout_seconds=STATEMENT_SECONDS, autocommit=True)

    def _execute(self, statement: str, *parameters: Any) -> None:
        self.connection.execute(statement, parameters)

    def _one(self, query: str, *parameters: Any) -> Any:
        return self.connection.execute(query, parameters).fetchone()

    def _user(self, number: int | None) -> Any:
        return None if number is None else id_of(number, self.id_type)

    def _later(self, pause: timedelta) -> datetime:
        self.clock += pause
        return self.clock

    def _new_ids(self, drafts: list[Draft]) -> list[Any]:
        self.numbers += len(drafts)
        first = self.numbers - len(drafts) + 1
        return [id_of(number, self.id_type) for number in range(first, self.numbers + 1)]

    def _come(self, drafts: list[Draft], changed: datetime, *, updated: bool = False) -> Any:
        ids = self._new_ids(drafts)
        with self._changing(ids, updated=updated):
            for order_id, draft in zip(ids, drafts, strict=True):
                place(self.connection, order_id, self.id_type, draft, changed)
        return multiple(*ids)

    def _begin(self) -> None:
        if not self.held:
            self.holder.execute("BEGIN")

    def _touch(self, ids: list[Any]) -> None:
        self._execute("UPDATE orders SET updated_at = %s WHERE id = ANY(%s)", self.clock, ids)

    @contextmanager
    def _changing(self, ids: list[Any], *, updated: bool = False) -> Iterator[None]:
        """Change orders, and remember whom the change concerns if no refresh will see it."""
        before = self._concerned(ids)
        with self.connection.transaction():
            yield
            if updated:
                self._touch(ids)
        for order, user, product in before + self._concerned(ids):
            self.concerned[order].add((user, product))
        hidden = self.hidden_from_unfinished if self.unfinished else self.hidden
        for order in set(ids) - self._seen(ids):
            hidden.users.update(user for user, _ in self.concerned[order])
            hidden.products.update(product for _, product in self.concerned[order])

    def _concerned(self, ids: list[Any]) -> list[tuple[Any, Any, Any]]:
        return self.connection.execute(
            "SELECT id, user_id, product_id FROM orders LEFT JOIN order_items ON order_id = id"
            " WHERE id = ANY(%s)",
            [ids],
        ).fetchall()

    def _seen(self, ids: list[Any]) -> set[Any]:
        """Of the orders, those that changed at or after the watermark less the overlap."""
        if not self.began:
            return set(ids)
        since = self.watermark - OVERLAP if self.watermark else BEGINNING
        rows = self.connection.execute(
            "SELECT id FROM orders WHERE id = ANY(%s) AND coalesce(updated_at, created_at) >= %s",
            [ids, since],
        ).fetchall()
        return {order for (order,) in rows}

    def latest_change(self) -> datetime | None:
        (latest,) = self._one(
            "SELECT max(coalesce(updated_at, created_at))::timestamptz FROM orders"
            " WHERE coalesce(updated_at, created_at) <= now()"
        )
        return max(filter(None, (self.watermark, latest)), default=None)


def connect_to_die(url: str, after: int) -> psycopg.Connection:
    """A connection whose session another one ends once it has executed ``after`` statements."""
    executed = count(1)

    class Cursor(psycopg.Cursor[Any]):
        def execute(self, *arguments: Any, **options: Any) -> "Cursor":
            super().execute(*arguments, **options)
            if next(executed) == after:
                _terminate(url, self.connection.info.backend_pid)
            return self

    return connect(
        url,
        statement_timeout_seconds=STATEMENT_SECONDS,
        autocommit=True,
        cursor_factory=Cursor,
    )


def _terminate(url: str, pid: int) -> None:
    """End a session, and wait until it has ended."""
    with closing(connect(url, autocommit=True)) as connection:
        ended = connection.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone()
    assert ended == (True,)
