"""The sample shop in a real database."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.local.errors import ShopNotEmptyError
from recsys_assets.local.sample_shop import (
    Sample,
    load_sample,
    loaded_sample,
    product_name,
    sample_lines,
    start_of_last,
)
from recsys_assets.local.shop_tables import ShopCounts, count_rows

WHOLE = ShopCounts(orders=155_848, order_items=1_469_307, products=92_331)


def test_the_whole_sample(sample_database_url: str) -> None:
    with psycopg.connect(sample_database_url) as connection:
        assert count_rows(connection) == WHOLE
        users = connection.execute("SELECT count(DISTINCT user_id) FROM orders").fetchone()
        assert users == (2_469,)
        first = connection.execute("SELECT * FROM orders ORDER BY created_at LIMIT 1").fetchone()
        moment = datetime(2017, 1, 1, 11, 53, 26, tzinfo=UTC)
        assert first == (31_198_570_044, 900, "completed", moment, moment)
        line = connection.execute("SELECT * FROM order_items WHERE order_id = 31198570044")
        assert line.fetchall() == [(31_198_570_044, 1_095_275, 1, Decimal("0.50"))]
        name = connection.execute("SELECT name FROM products WHERE id = 25671").fetchone()
        assert name == ("Ice - crushed/cubed, 22 lb (National)",)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (("SUGAR", "SUGARS/SWEETNERS", "2 LB"), "Sugar, 2 lb (National)"),
        (("SUGAR", "SUGARS/SWEETNERS", None), "Sugar (National)"),
        ((None, "SUGARS/SWEETNERS", None), "Sugars/sweetners (National)"),
        ((None, None, None), "Grocery (National)"),
    ],
)
def test_names_fall_back_on_what_is_known(
    fields: tuple[str | None, str | None, str | None], name: str
) -> None:
    kind, category, size = fields
    assert name == product_name(
        product_type=kind,
        product_category=category,
        department="GROCERY",
        brand="National",
        package_size=size,
    )


def test_keys_and_indexes(small_sample_database_url: str) -> None:
    with psycopg.connect(small_sample_database_url) as connection:
        indexes = connection.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
        )
        assert [name for (name,) in indexes] == [
            "order_items_order_id",
            "orders_pkey",
            "orders_updated_at",
            "orders_user_id",
            "products_pkey",
        ]
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("INSERT INTO order_items VALUES (1, 1, 1, 1)")


def test_households_and_until_cut_the_sample_down(database_url: str) -> None:
    until = datetime(2017, 7, 1, tzinfo=UTC)
    with psycopg.connect(database_url) as connection:
        counts = load_sample(connection, households=20, until=until)
        assert counts == count_rows(connection)
        newest, last_user = connection.execute(
            "SELECT max(created_at), max(user_id) FROM orders"
        ).fetchall()[0]
    assert datetime(2017, 6, 25, tzinfo=UTC) < newest < until
    assert last_user == 20


def test_loading_again_does_nothing_even_when_orders_were_added(
    small_sample_database_url: str,
) -> None:
    with psycopg.connect(small_sample_database_url) as connection:
        connection.execute("INSERT INTO orders VALUES (1, 1, 'completed', now(), now())")
        before = count_rows(connection)
        assert load_sample(connection, households=200) == before
        assert connection.execute("SELECT count(*) FROM orders WHERE id = 1").fetchone() == (1,)


def test_the_last_days_end_with_the_latest_order_of_all() -> None:
    assert start_of_last(28) == datetime(2017, 12, 4, 4, 1, 20, tzinfo=UTC)


def test_a_moment_parts_the_sample_in_two() -> None:
    moment = datetime(2017, 1, 1, 11, 53, 26, tzinfo=UTC)  # of the very first order, of one line
    assert sample_lines(until=moment).num_rows == 0
    assert sample_lines(since=moment).num_rows == WHOLE.order_items
    assert sample_lines(until=moment + timedelta(seconds=1)).num_rows == 1
    assert sample_lines(since=moment + timedelta(seconds=1)).num_rows == WHOLE.order_items - 1


@given(
    st.builds(
        Sample,
        st.none() | st.integers(min_value=1),
        st.none() | st.datetimes(timezones=st.just(UTC)),
    )
)
def test_the_marker_says_which_sample_it_is(sample: Sample) -> None:
    assert Sample.parse(str(sample)) == sample


@pytest.mark.parametrize("comment", ["", "orders of ours", "sample shop of x households"])
def test_other_comments_are_no_marker(comment: str) -> None:
    assert Sample.parse(comment) is None


def test_what_was_held_back_is_remembered_when_orders_have_come_in(database_url: str) -> None:
    until = start_of_last(28)
    with psycopg.connect(database_url) as connection:
        assert loaded_sample(connection) is None
        loaded = load_sample(connection, households=10, until=until)
        connection.execute("INSERT INTO orders VALUES (1, 1, 'completed', now(), now())")
        assert loaded_sample(connection) == Sample(10, until)
        again = load_sample(connection, households=10, until=until)
        assert (again.orders, again.order_items) == (loaded.orders + 1, loaded.order_items)
        for other in (None, until - timedelta(days=1)):
            with pytest.raises(ShopNotEmptyError, match="until 2017-12-04T04:01:20"):
                load_sample(connection, households=10, until=other)


def test_another_sample_is_refused_unless_it_may_replace(small_sample_database_url: str) -> None:
    with psycopg.connect(small_sample_database_url) as connection:
        before = count_rows(connection)
        with pytest.raises(ShopNotEmptyError, match="sample shop of 200 households"):
            load_sample(connection, households=10)
        assert count_rows(connection) == before
        after = load_sample(connection, households=10, replace=True)
        assert after == count_rows(connection) != before


def test_tables_that_are_not_the_sample_are_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE products (sku text)")
        with pytest.raises(ShopNotEmptyError, match=r"has products \(not a sample\)"):
            load_sample(connection)
        assert connection.execute("SELECT count(sku) FROM products").fetchone() == (0,)


def test_a_failure_leaves_nothing_behind(database_url: str) -> None:
    def fail(done: int, total: int, label: str) -> None:
        if label == "order_items":
            raise InterruptedError

    with psycopg.connect(database_url) as connection:
        with pytest.raises(InterruptedError):
            load_sample(connection, households=5, progress=fail)
        assert count_rows(connection) == ShopCounts(orders=0, order_items=0, products=0)


def test_progress_ends_each_step(database_url: str) -> None:
    steps: dict[str, tuple[int, int]] = {}
    with psycopg.connect(database_url) as connection:
        load_sample(
            connection,
            households=5,
            progress=lambda done, total, label: steps.update({label: (done, total)}),
        )
    assert list(steps) == ["reading", "products", "orders", "order_items", "indexes"]
    assert all(done == total for done, total in steps.values())
