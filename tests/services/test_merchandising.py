"""The table of rules in real PostgreSQL, filled as a shop's people would."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from recsys_assets.catalogue import refresh_unavailable
from recsys_assets.publish.merchandising import Action, Rule, Rules, Scope, read_rules
from recsys_assets.shop_session import ShopSession
from tests.publications import shop_session
from tests.shops import create_shop, day, id_of

NOW = day(10)


@pytest.fixture(params=["bigint", "uuid", "text"])
def id_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(database_url: str, id_type: str) -> Iterator[ShopSession]:
    with shop_session(database_url) as session:
        yield session


@pytest.fixture
def database_url(database_url: str, id_type: str) -> str:
    """A shop with our tables."""
    import psycopg

    with psycopg.connect(database_url) as connection:
        create_shop(connection, id_type=id_type)
    with shop_session(database_url, schema_name="recsys") as session:
        refresh_unavailable(session.connection, session.shop)
    with shop_session(database_url) as session:
        refresh_unavailable(session.connection, session.shop)
    return database_url


def insert(session: ShopSession, columns: str, *values: Any) -> None:
    session.connection.execute(
        f"INSERT INTO recommendation_rules ({columns}) VALUES"
        f" ({', '.join(['%s'] * len(values))})".encode(),
        values,
    )


def plain(number: int, id_type: str) -> Any:
    product = id_of(number, id_type)
    return product if isinstance(product, int) else str(product)


def test_rules_are_read_in_the_order_of_their_rows(session: ShopSession, id_type: str) -> None:
    one, two = (plain(number, id_type) for number in (1, 2))
    insert(session, "product_id, action", str(one), "block")
    insert(session, "scope, product_id, action, weight", "top_buys", str(two), "pin", 2)
    insert(
        session,
        "scope, product_id, action, weight, note",
        f"bought_together:{two}",
        str(one),
        "boost",
        1.5,
        "summer",
    )
    assert read_rules(session, NOW) == (
        Rules(
            (
                Rule(Scope.EVERYWHERE, None, one, Action.BLOCK, 0),
                Rule(Scope.TOP_BUYS, None, two, Action.PIN, 2),
                Rule(Scope.BOUGHT_TOGETHER, two, one, Action.BOOST, 1.5),
            )
        ),
        [],
    )


@pytest.mark.parametrize(
    ("valid_from", "valid_until", "applies"),
    [
        (None, None, True),
        (NOW, None, True),
        (NOW + timedelta(seconds=1), None, False),
        (None, NOW, False),
        (None, NOW + timedelta(seconds=1), True),
        (day(9), day(11), True),
        ("-infinity", "infinity", True),
        ("infinity", None, False),
    ],
)
def test_a_rule_applies_from_and_until(
    session: ShopSession, id_type: str, valid_from: Any, valid_until: Any, applies: bool
) -> None:
    insert(
        session,
        "product_id, action, valid_from, valid_until",
        str(plain(1, id_type)),
        "block",
        valid_from,
        valid_until,
    )
    rules, bad = read_rules(session, NOW)
    assert bad == []
    assert bool(rules.rules) == applies


def test_bad_rows_are_told_by_their_number_and_skipped(session: ShopSession, id_type: str) -> None:
    one = str(plain(1, id_type))
    session.connection.execute("INSERT INTO recommendation_rules DEFAULT VALUES")
    insert(session, "product_id, action", one, "block")
    insert(session, "scope, product_id, action", None, one, "block")
    insert(session, "product_id, action, weight", one, "boost", "NaN")
    insert(session, "product_id, action, valid_from, valid_until", one, "block", day(2), day(1))
    insert(session, "product_id, action", "", "block")
    rules, bad = read_rules(session, NOW)
    assert len(rules.rules) == 1
    assert [str(row).partition(":")[0] for row in bad] == [
        f"recommendation_rules row {number} is skipped" for number in (1, 3, 4, 5, 6)
    ]
    assert [row.reason.partition(" (")[0] for row in bad] == [
        "unknown action None",
        "unknown scope None",
        "a boost has a weight above 0, from 1e-06 to 1000000, not nan",
        "valid_until is not after valid_from",
        f"'' is no id of a product, which here are of type {id_type}",
    ]


def test_rules_are_of_their_schema(database_url: str, session: ShopSession, id_type: str) -> None:
    insert(session, "product_id, action", str(plain(1, id_type)), "block")
    with shop_session(database_url, schema_name="recsys") as other:
        assert read_rules(other, NOW) == (Rules(), [])
