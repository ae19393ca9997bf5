"""Whatever happens to a shop's orders and to the refreshes: they arrive where a rebuild does.

Hypothesis draws histories: orders that come, change and go, in time or late, seen by users or not;
refreshes, rebuilds and reconciliations that follow one another, run at once or are killed. What a
refresh cannot see, for it changed neither ``updated_at`` nor came within the overlap, is kept apart
as *hidden*: rows of its users and products are compared from the next reconciliation on.

``RECSYS_TEST_FAULTS=full`` draws many and long histories, others each time.
"""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import multiple, precondition, run_state_machine_as_test
from psycopg import sql

from recsys_assets.ingest.interactions import Log, Progress, Refresh, refresh_interactions
from recsys_assets.ingest.reconcile import reconcile_interactions
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop
from recsys_assets.tables import USER_TOP_BUYS
from tests.histories import (
    DRAFTS,
    OVERLAP,
    STATUSES,
    Draft,
    Hidden,
    OrdersHistory,
    connect_to_die,
    step,
)

# The session's fixture removes the variable before a test runs.
FULL = os.environ.get("RECSYS_TEST_FAULTS") == "full"
HISTORIES, STEPS = (80, 50) if FULL else (20, 25)
HALF_LIFE = timedelta(days=90)
CHUNK_ORDERS = 4

Row = tuple[float, int, datetime, datetime]
"""Decayed purchases, their number, the first of them, and the time as of which they are."""
Rows = dict[tuple[Any, ...], Row]
"""By user and product, or by product."""

Run = Literal["refresh", "rebuild", "reconcile"]
RUNS: st.SearchStrategy[Run] = st.sampled_from(["refresh", "refresh", "rebuild", "reconcile"])
# A run, and the number of statements after which it is killed: about as many as it executes.
KILLS: st.SearchStrategy[tuple[Run, int]] = st.one_of(
    st.tuples(st.just("refresh"), st.integers(1, 45)),
    st.tuples(st.just("rebuild"), st.integers(1, 120)),
    st.tuples(st.just("reconcile"), st.integers(1, 90)),
)

_EXPECTED = """
WITH counted AS (
    SELECT DISTINCT o.id, o.user_id, i.product_id, o.created_at::timestamptz AS purchased_at
    FROM orders AS o JOIN order_items AS i ON i.order_id = o.id
    WHERE o.status IN ('completed', 'paid', 'shipped', 'delivered') AND i.quantity > 0
      AND i.product_id IS NOT NULL AND o.created_at < now() + interval '1 day'
), dated AS (
    SELECT *, max(purchased_at) OVER (PARTITION BY {key}) AS newest FROM counted WHERE {whose}
)
SELECT {key}, sum(power(0.5::float8, extract(epoch FROM newest - purchased_at) / {half_life})),
       count(*)::integer, min(purchased_at), newest
FROM dated GROUP BY {key}, newest
"""


def expected_interactions(connection: psycopg.Connection) -> Rows:
    return _expected(connection, "user_id, product_id", "user_id IS NOT NULL")


def expected_popularity(connection: psycopg.Connection) -> Rows:
    return _expected(connection, "product_id", "true")


def _expected(connection: psycopg.Connection, key: str, whose: str) -> Rows:
    half_life = HALF_LIFE.total_seconds()
    return _rows(connection, sql.SQL(_EXPECTED.format(key=key, whose=whose, half_life=half_life)))


def interactions(connection: psycopg.Connection, schema: str = "public") -> Rows:
    return _rows(
        connection,
        sql.SQL(
            "SELECT user_id, product_id, interaction_score, purchase_count, first_purchased_at,"
            " last_updated_at FROM {}.user_product_interactions"
        ).format(sql.Identifier(schema)),
    )


def popularity(connection: psycopg.Connection, schema: str = "public") -> Rows:
    return _rows(
        connection,
        sql.SQL(
            "SELECT product_id, weight, purchase_count, NULL, last_updated_at"
            " FROM {}.product_popularity"
        ).format(sql.Identifier(schema)),
    )


def _rows(connection: psycopg.Connection, query: sql.Composable) -> Rows:
    return {
        tuple(key): (weight, number, first, as_of)
        for *key, weight, number, first, as_of in connection.execute(query).fetchall()
    }


def same_interaction(one: Row, other: Row) -> bool:
    """Whether two rows are equal but for the rounding of their scores."""
    return one[1:] == other[1:] and math.isclose(one[0], other[0], rel_tol=1e-9)


def same_popularity(one: Row, other: Row) -> bool:
    """Whether two rows are equal at one date, but for the rounding of their weights."""
    there = other[0] * 0.5 ** ((one[3] - other[3]) / HALF_LIFE)
    return one[1] == other[1] and math.isclose(one[0], there, rel_tol=1e-9)


Same = Callable[[Row, Row], bool]


def differences(actual: Rows, expected: Rows, same: Same) -> dict[tuple[Any, ...], str]:
    """What is wrong with a row, by its key."""
    return {
        key: f"is {actual.get(key)}, expected {expected.get(key)}"
        for key in actual.keys() | expected.keys()
        if key not in actual or key not in expected or not same(actual[key], expected[key])
    }


class Stopped(Exception):
    """Raised by a callback in the middle of a run."""


class InteractionsHistory(OrdersHistory):
    """Runs between the orders' changes, and what must hold after each."""

    def __init__(self, database_url: str, done: list[list[str]]) -> None:
        super().__init__(database_url)
        done.append(self.history)
        self.failed = False
        self.ready = False  # our tables are there
        self.published: Rows = {}

    @step()
    def refresh(self) -> None:
        self._complete("refresh")

    @step()
    def refresh_twice(self) -> None:
        self._complete("refresh")
        with self._whole():
            again = self._run("refresh", self.connection)
            assert again is not None
            assert (again.difference.rows_written, again.difference.rows_deleted) == (0, 0)
            self._verify()

    @step()
    def rebuild(self) -> None:
        self._complete("rebuild")

    @step(target=OrdersHistory.orders, order=OrdersHistory.orders, status=STATUSES, drafts=DRAFTS)
    def rebuild_meanwhile(self, order: Any, status: str, drafts: list[Draft]) -> Any:
        """Change an order, then let others come, when the first chunk of a rebuild is done."""
        came: list[Any] = []

        def progress(_done: int, _total: int) -> None:
            if not came:
                self.change_status(order, status, timedelta(hours=1), updated=True)
                came.append(self.come(drafts, timedelta(hours=1)))

        with self._whole(), closing(self.connect()) as other:
            self._run("rebuild", other, progress=progress)
            self._completed("rebuild", self.latest_change())
            self._verify()
        return came[0] if came else multiple()

    @step()
    def reconcile(self) -> None:
        self._complete("reconcile")

    @step(kill=KILLS)
    def kill(self, kill: tuple[Run, int]) -> None:
        """End the session of a run after so many statements, if it executes as many."""
        run, statements = kill
        with closing(connect_to_die(self.url, statements)) as connection:
            self._interrupt(run, connection, psycopg.OperationalError)

    @step(run=RUNS, messages=st.integers(1, 4))
    def stop(self, run: Run, messages: int) -> None:
        """Raise from a run's callback, if it is called as often."""
        left = iter(range(messages - 1))

        def log(_: str) -> None:
            if next(left, None) is None:
                raise Stopped

        self._interrupt(run, self.connection, Stopped, log)

    @step(first=RUNS, second=RUNS)
    def run_at_once(self, first: Run, second: Run) -> None:
        latest = self.latest_change()
        with self._whole():
            with closing(self.connect()) as other, ThreadPoolExecutor(2) as threads:
                list(threads.map(self._run, (first, second), (self.connection, other)))
            for run in (first, second):
                self._completed(run, latest)
            self._verify()

    @precondition(lambda self: self.ready)
    @step()
    def publish(self) -> None:
        """Take the users whose rows have changed, as publishing their lists does."""
        self._execute("DELETE FROM changed_users")
        self._execute(
            "INSERT INTO batch_metadata (job_name) VALUES (%s) ON CONFLICT DO NOTHING",
            USER_TOP_BUYS,
        )
        self.published = interactions(self.connection)

    def teardown(self) -> None:
        """Compare with a rebuild into another schema, unless this history has failed already."""
        if not hasattr(self, "connection"):
            return
        with closing(self.connection), closing(self.holder):
            if not self.failed:
                self.holder.execute("ROLLBACK")
                self._complete("reconcile")
                self._compare_with_rebuild()

    def _run(
        self,
        run: Run,
        connection: psycopg.Connection,
        log: Log = lambda _: None,
        progress: Progress = lambda _done, _total: None,
    ) -> Refresh | None:
        if run == "reconcile":
            reconcile_interactions(
                connection, self.shop, half_life=HALF_LIFE, overlap=OVERLAP, log=log
            )
            return None
        return refresh_interactions(
            connection,
            self.shop,
            half_life=HALF_LIFE,
            overlap=OVERLAP,
            rebuild=run == "rebuild",
            chunk_orders=CHUNK_ORDERS,
            log=log,
            progress=progress,
        )

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Mark the history as failed for as long as the block has not ended."""
        self.failed = True
        try:
            yield
        except Exception as error:
            self.history.append(f"failed: {error!r}")
            raise
        self.failed = False

    def _complete(self, run: Run) -> None:
        latest = self.latest_change()
        with self._whole():
            result = self._run(run, self.connection)
            if result and result.watermark:
                assert latest is not None
                assert result.watermark <= latest, "the watermark ran ahead of the orders"
            self._completed(run, latest)
            self._verify()

    def _completed(self, run: Run, latest: datetime | None) -> None:
        self.began, self.ready, self.watermark = True, True, latest
        self.concerned.clear()
        if run == "refresh":
            self.hidden |= self.hidden_from_unfinished
        else:
            self.hidden = Hidden() if run == "reconcile" else self.hidden_from_unfinished
        self.hidden_from_unfinished = Hidden()
        self.unfinished = False

    def _interrupt(
        self,
        run: Run,
        connection: psycopg.Connection,
        error: type[Exception],
        log: Log = lambda _: None,
    ) -> None:
        latest = self.latest_change()
        rebuilds = run == "rebuild" or self.watermark is None or self.unfinished
        before = None if rebuilds or run == "reconcile" else self._state()
        with self._whole():
            try:
                self._run(run, connection, log)
            except error:
                if rebuilds:
                    self.began, self.unfinished, self.watermark = True, True, latest
                if before:
                    assert self._state() == before, "an interrupted refresh left its traces"
                self._verify_changed_users()
            else:
                self._completed(run, latest)
                self._verify()

    def _state(self) -> tuple[Rows, Rows]:
        return interactions(self.connection), popularity(self.connection)

    def _verify(self) -> None:
        """Compare our tables with the orders, but for what is hidden."""
        hidden = self.hidden | self.hidden_from_unfinished
        connection = self.connection
        wrong = differences(
            interactions(connection), expected_interactions(connection), same_interaction
        )
        wrong = {key: text for key, text in wrong.items() if key[0] not in hidden.users}
        assert not wrong, f"interactions {wrong}, all but {hidden}"
        wrong = differences(
            popularity(connection), expected_popularity(connection), same_popularity
        )
        wrong = {key: text for key, text in wrong.items() if key[0] not in hidden.products}
        assert not wrong, f"popularity {wrong}, all but {hidden}"
        self._verify_changed_users()

    def _verify_changed_users(self) -> None:
        if not self.ready or self.unfinished:
            return  # the lists of all users are published after a rebuild
        publishes_all = not self._one(
            "SELECT 1 FROM batch_metadata WHERE job_name = %s", USER_TOP_BUYS
        )
        changed = differences(interactions(self.connection), self.published, same_interaction)
        marked = {user for (user,) in self.connection.execute("SELECT user_id FROM changed_users")}
        missing = {user for user, _ in changed} - marked
        assert publishes_all or not missing, f"changed, but not marked: {missing}"

    def _compare_with_rebuild(self) -> None:
        refresh_interactions(
            self.connection,
            inspect_shop(self.connection, ShopSettings(schema_name="oracle")),
            half_life=HALF_LIFE,
            overlap=OVERLAP,
            rebuild=True,
        )
        for rows, same in ((interactions, same_interaction), (popularity, same_popularity)):
            wrong = differences(rows(self.connection), rows(self.connection, "oracle"), same)
            assert not wrong, f"other than a rebuild: {wrong}"


@pytest.mark.timeout(1800)  # to make the history of a failure short takes minutes
def test_whatever_happens(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[list[str]] = []
    try:
        run_state_machine_as_test(
            lambda: InteractionsHistory(database_url, done),
            settings=settings(
                max_examples=HISTORIES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=not FULL,
                database=None,
                print_blob=FULL,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Flaky as error:  # a race, say, which Hypothesis has no history of
        failed = [history for history in done if history and history[-1].startswith("failed")]
        error.add_note("\n".join(["the first failure:", *failed[0]] if failed else []))
        raise
    steps = sum(map(len, done))
    if FULL:
        with capsys.disabled():
            print(f"\n{steps} steps in {len(done)} histories")
        assert steps >= 2000
