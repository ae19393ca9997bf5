"""The past as of a moment, against what refreshes keep up and against orders made by hand."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from recsys_assets.evaluate.past import (
    bought_between,
    interactions_before,
    last_order,
    last_purchase,
    popularity_before,
)
from recsys_assets.ingest.interactions import refresh_interactions
from recsys_assets.ingest.watermark import required_watermark
from recsys_assets.shop_session import ShopSession
from recsys_assets.tables import popularity, weights
from tests.publications import shop_session
from tests.shops import Order, add_orders, create_shop, day, id_of

HALF_LIFE = timedelta(days=10)
HOUR = timedelta(hours=1)
ORDERS = [
    Order(1, 1, [5, 6, 6], day(1)),  # a product counts once, however many lines
    Order(2, 1, [5], day(11)),
    Order(3, 2, [5, 7], day(11)),
    Order(4, None, [7, 8], day(16)),
    Order(5, 2, {5: 0, 6: -1, 7: 1}, day(21)),
    Order(6, 1, [8], day(21), status="cancelled"),
    Order(7, 3, [8], day(21)),
    Order(8, 1, [5, 8], day(26)),
]

Open = Callable[..., ShopSession]


@pytest.fixture
def open_shop(database_url: str) -> Iterator[Open]:
    """Opens a shop of these orders, all of them counted."""
    with ExitStack() as stack:

        def opened(orders: list[Order] = ORDERS, *, id_type: str = "bigint") -> ShopSession:
            with closing(psycopg.connect(database_url)) as connection:
                create_shop(connection, orders, id_type=id_type)
            return refreshed(stack.enter_context(shop_session(database_url)))

        yield opened


def refreshed(session: ShopSession) -> ShopSession:
    refresh_interactions(
        session.connection, session.shop, half_life=HALF_LIFE, overlap=session.overlap
    )
    return session


def by_ids(session: ShopSession, query: Any, *ids: str) -> dict[Any, dict[str, Any]]:
    """The rows of a query by their ids, of which none is repeated."""
    rows = session.read(query).to_pylist()
    found = {tuple(row.pop(name) for name in ids): row for row in rows}
    assert len(found) == len(rows)
    return found


def interactions(session: ShopSession, moment: datetime) -> dict[Any, dict[str, Any]]:
    query = interactions_before(session.shop, moment, HALF_LIFE)
    return by_ids(session, query, "user_id", "product_id")


def sold(session: ShopSession, moment: datetime) -> dict[Any, tuple[int, Any]]:
    found = by_ids(session, popularity_before(session.shop, moment, HALF_LIFE), "product_id")
    return {product: (row["orders"], row["weight"]) for (product,), row in found.items()}


def bought(session: ShopSession, since: datetime, until: datetime) -> list[tuple[Any, Any]]:
    rows = session.read(bought_between(session.shop, since, until)).to_pylist()
    return sorted((row["user_id"], row["product_id"]) for row in rows)


# --- As a refresh at that moment would have found it


def test_at_the_watermark_it_is_what_refreshes_arrive_at(small_sample_database_url: str) -> None:
    with shop_session(small_sample_database_url) as session:
        # Whatever changes last raises the watermark beyond all purchases.
        session.connection.execute(
            "INSERT INTO orders (id, user_id, status, created_at, updated_at)"
            " SELECT 1 + max(id), 1, 'cancelled', max(created_at), max(created_at)"
            " + interval '3 days' FROM orders"
        )
        refreshed(session)
        watermark = required_watermark(session.connection, session.shop)
        kept = by_ids(session, weights(session.shop, watermark, HALF_LIFE), "user_id", "product_id")
        computed = interactions(session, watermark)
        assert len(computed) > 10_000
        assert computed.keys() == kept.keys()
        worst = max(abs(computed[pair].pop("weight") - kept[pair].pop("weight")) for pair in kept)
        assert worst < 1e-6
        assert computed == kept

        counted = session.read(popularity(session.shop, watermark, HALF_LIFE)).to_pylist()
        assert sold(session, watermark) == {
            row["product_id"]: (row["orders"], pytest.approx(row["weight"], rel=1e-9))
            for row in counted
        }


def test_a_moment_between_is_what_a_refresh_then_would_have_found(database_url: str) -> None:
    moment = day(16) + HOUR
    earlier = [order for order in ORDERS if order.at < moment]
    with closing(psycopg.connect(database_url)) as connection:
        create_shop(connection, earlier)
        with shop_session(database_url) as session:
            refreshed(session)
            then = by_ids(
                session, weights(session.shop, moment, HALF_LIFE), "user_id", "product_id"
            )
            add_orders(connection, ORDERS)
            refreshed(session)
            assert interactions(session, moment) == {
                pair: row | {"weight": pytest.approx(row["weight"], rel=1e-6)}
                for pair, row in then.items()
            }


# --- By hand


@pytest.mark.parametrize("id_type", ["bigint", "integer", "text", "uuid"])
def test_interactions_by_hand(open_shop: Open, id_type: str) -> None:
    session = open_shop(id_type=id_type)

    def plain(number: int) -> Any:
        shown = id_of(number, id_type)
        return shown if isinstance(shown, int) else str(shown)

    # Two half-lives, and one, before the 21st; what was bought on it has not happened yet.
    assert interactions(session, day(21)) == {
        (plain(1), plain(5)): told(0.25 + 0.5, 2, day(1), day(11)),
        (plain(1), plain(6)): told(0.25, 1, day(1), day(1)),
        (plain(2), plain(5)): told(0.5, 1, day(11), day(11)),
        (plain(2), plain(7)): told(0.5, 1, day(11), day(11)),
    }
    assert bought(session, day(21), day(26) + HOUR) == [
        (plain(1), plain(5)), (plain(1), plain(8)), (plain(2), plain(7))
    ]  # fmt: skip
    assert set(sold(session, day(21))) == {plain(product) for product in (5, 6, 7, 8)}


def told(weight: float, count: int, first: datetime, last: datetime) -> dict[str, Any]:
    return {
        "weight": pytest.approx(weight, rel=1e-6),
        "purchase_count": count,
        "first_purchased_at": first,
        "last_purchased_at": last,
    }


def test_popularity_counts_guests_and_nothing_later(open_shop: Open) -> None:
    session = open_shop()
    half = 0.5**0.5  # of five days
    assert sold(session, day(21)) == {
        5: (3, pytest.approx(0.25 + 0.5 + 0.5)),
        6: (1, pytest.approx(0.25)),
        7: (2, pytest.approx(0.5 + half)),
        8: (1, pytest.approx(half)),
    }
    assert sold(session, day(1)) == {}


def test_bought_is_what_users_with_a_past_bought_then(open_shop: Open) -> None:
    session = open_shop()
    # User 3 buys for the first time on the 21st, the guest is nobody, order 6 is cancelled.
    assert bought(session, day(11), day(26)) == [(1, 5)]
    assert bought(session, day(21), day(26)) == [(2, 7)]
    # From the first moment on, and before the last.
    assert bought(session, day(26), day(26) + HOUR) == [(1, 5), (1, 8)]
    assert bought(session, day(12), day(26)) == [(2, 7)]
    assert bought(session, day(1), day(30)) == []


def test_what_was_bought_twice_is_told_once(open_shop: Open) -> None:
    session = open_shop([Order(n, 1, [5, 6], day(n)) for n in range(1, 5)])
    assert bought(session, day(2), day(5)) == [(1, 5), (1, 6)]


# --- What came last


def test_the_last_order_and_the_last_purchase(open_shop: Open) -> None:
    orders = [*ORDERS, Order(9, 1, [5], day(30), status="cancelled")]
    session = open_shop(orders)
    connection, shop = session.connection, session.shop
    assert connection.execute(last_order(shop)).fetchone() == (day(30),)
    assert connection.execute(last_purchase(shop)).fetchone() == (day(26),)


def test_an_order_dated_years_ahead_is_not_the_last(open_shop: Open) -> None:
    session = open_shop([*ORDERS, Order(9, 1, [5], day(100_000))])
    connection, shop = session.connection, session.shop
    assert connection.execute(last_order(shop)).fetchone() == (day(26),)
    assert connection.execute(last_purchase(shop)).fetchone() == (day(26),)


def test_a_shop_without_orders_has_no_past(open_shop: Open) -> None:
    session = open_shop([])
    connection, shop = session.connection, session.shop
    assert connection.execute(last_order(shop)).fetchone() == (None,)
    assert connection.execute(last_purchase(shop)).fetchone() == (None,)
    assert interactions(session, day(1)) == {}
    assert sold(session, day(1)) == {}
    assert bought(session, day(1), day(2)) == []
