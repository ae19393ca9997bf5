"""What a user's three keys hold, and that they are of one mind, with all that a shop may want."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recsys_assets.catalogue import refresh_unavailable
from recsys_assets.database import connect
from recsys_assets.learn.artifacts import load_artifact
from recsys_assets.publish.list_making import ListMaker, list_maker
from recsys_assets.publish.redis_client import connect as connect_redis
from serving.contract import (
    BecausePinned,
    BecausePopular,
    BecauseRepeat,
    BecauseSimilar,
    Family,
    decode_buy_again,
    decode_explanations,
    decode_top_buys,
)
from tests.publications import LENGTHS, MODEL, Publishing, shop_session
from tests.shops import Order, add_orders, create_shop, day, id_of

PRODUCTS, USERS, ORDERS = 16, 12, 80
BLOCKED, NOT_AGAIN, UNAVAILABLE, BOOSTED, PINNED = 3, 2, 4, 5, 7
UNSOLD = 99  # which nobody has bought, and the shop pins
RULES = [
    ("everywhere", BLOCKED, "block", None),
    ("buy_again", NOT_AGAIN, "block", None),
    ("top_buys", BOOSTED, "boost", 1000.0),
    ("top_buys", PINNED, "pin", 2.0),
    ("everywhere", UNSOLD, "pin", 1.0),
]
MADE = [
    Order(n, 1 + n % USERS, [n % USERS % 4 * 4 + n % 5 % 4, (n * 7) % PRODUCTS], day(n / 2))
    for n in range(1, ORDERS)
]


@dataclass(frozen=True)
class User:
    """What is published of a user: the value of each key."""

    top_buys: Any
    because: Any
    buy_again: Any

    @property
    def listed(self) -> list[Any]:
        """The products of the Top Buys."""
        return [product.product_id for product in self.top_buys.products]

    @property
    def again(self) -> list[Any]:
        """The products of Buy Again."""
        return [product.product_id for product in self.buy_again.products]

    @property
    def reasons(self) -> dict[Any, Any]:
        """Why products are listed, by product."""
        return {of.product_id: of.because for of in self.because.because}


@pytest.fixture
def id_type() -> str:
    """The type of the shop's ids, which tests may set."""
    return "bigint"


@pytest.fixture
def database(database_url: str, id_type: str) -> Iterator[psycopg.Connection]:
    """The shop's people at work on their tables: orders, and products in four categories."""
    with closing(connect(database_url, autocommit=True)) as connection:
        names = {n: f"product {n}" for n in [*range(PRODUCTS), UNSOLD]}
        create_shop(connection, MADE, names=names, id_type=id_type)
        connection.execute("ALTER TABLE products ADD category text, ADD is_active boolean")
        connection.execute("UPDATE products SET is_active = true")
        for n in range(PRODUCTS):
            connection.execute(
                "UPDATE products SET category = %s WHERE id = %s",
                [f"category {n % 4}", id_of(n, id_type)],
            )
        yield connection


@pytest.fixture
def shop(
    database: psycopg.Connection, database_url: str, redis_url: str, tmp_path: Path
) -> Iterator[Publishing]:
    """Its orders counted, and a model learnt of them."""
    with (
        shop_session(database_url, products_category_column="category") as session,
        closing(connect_redis(redis_url)) as client,
    ):
        refresh_unavailable(session.connection, session.shop)
        shop = Publishing(session, client, tmp_path)
        shop.refresh()
        shop.train()
        yield shop


@pytest.fixture
def wish(database: psycopg.Connection, id_type: str) -> Callable[..., None]:
    """The shop's people write a rule."""

    def write(scope: str, product: int, action: str, weight: float | None = None) -> None:
        database.execute(
            "INSERT INTO recommendation_rules (scope, product_id, action, weight)"
            " VALUES (%s, %s, %s, %s)",
            [scope, str(id_of(product, id_type)), action, weight],
        )

    return write


@pytest.fixture
def wanted(
    shop: Publishing, database: psycopg.Connection, wish: Callable[..., None], id_type: str
) -> Publishing:
    """The same with all that the shop may want."""
    for rule in RULES:
        wish(*rule)
    database.execute(
        "UPDATE products SET is_active = false WHERE id = %s", [id_of(UNAVAILABLE, id_type)]
    )
    return replace(shop, session=replace(shop.session, most_per_category=2))


def users(shop: Publishing) -> dict[str, User]:
    """All that is published, by the text of the user's id."""
    top_buys, because, again = (
        shop.values(family)
        for family in (Family.USER_TOP_BUYS, Family.USER_TOP_BUYS_BECAUSE, Family.USER_BUY_AGAIN)
    )
    assert top_buys.keys() == because.keys() == again.keys()
    return {
        user: User(
            decode_top_buys(value),
            decode_explanations(because[user]),
            decode_buy_again(again[user]),
        )
        for user, value in top_buys.items()
    }


def purchases(id_type: str = "bigint") -> dict[str, dict[Any, list[datetime]]]:
    """By the text of a user's id and by product the moments at which it was bought."""
    bought: dict[str, dict[Any, list[datetime]]] = defaultdict(lambda: defaultdict(list))
    for order in MADE:
        for product in dict.fromkeys(order.lines):
            plain = id_of(product[0] or 0, id_type)
            bought[str(id_of(order.user or 0, id_type))][plain].append(order.at)
    return bought


# --- Of one mind


@pytest.mark.parametrize("id_type", ["bigint", "text"])
@pytest.mark.parametrize("shop_wants", [False, True])
def test_the_keys_of_a_user_agree(
    shop: Publishing, id_type: str, shop_wants: bool, request: pytest.FixtureRequest
) -> None:
    chosen: Publishing = request.getfixturevalue("wanted") if shop_wants else shop
    chosen.everybody(chosen.maker(top_buys=14, explained=12, buy_again=4))
    published, bought = users(chosen), purchases(id_type)
    assert published.keys() == bought.keys()
    kinds: Counter[type] = Counter()
    pins = [id_of(product, id_type) for product in (PINNED, UNSOLD)] if shop_wants else []
    for name, user in published.items():
        assert [*user.reasons] == user.listed[:12]
        told = {(v.model_version, v.generated_at) for v in vars(user).values()}
        assert len(told) == 1
        assert 0 < len(user.again) <= 4
        for repeat in user.buy_again.products:
            moments = bought[name][repeat.product_id]
            assert (repeat.purchases, repeat.last_purchased_at) == (len(moments), max(moments))
        for product, reason in user.reasons.items():
            kinds[type(reason)] += 1
            moments = bought[name].get(product, [])
            assert isinstance(reason, BecausePinned) == (product in pins)
            if isinstance(reason, BecauseRepeat):
                assert (reason.purchases, reason.last_purchased_at) == (len(moments), max(moments))
            elif product not in pins:
                assert not moments
            if isinstance(reason, BecauseSimilar):
                assert {of.product_id for of in reason.purchases} <= bought[name].keys()
    assert kinds[BecauseRepeat] > USERS < kinds[BecauseSimilar]
    assert kinds[BecausePinned] == len(pins) * USERS


def test_buy_again_is_the_users_own_however_short_top_buys_are(shop: Publishing) -> None:
    shop.everybody(shop.maker(top_buys=1, explained=5, buy_again=100))
    for name, user in users(shop).items():
        assert set(user.again) == purchases()[name].keys()
        assert [*user.reasons] == user.listed
        assert len(user.listed) == 1
        assert [p.score for p in user.buy_again.products] == sorted(
            (p.score for p in user.buy_again.products), reverse=True
        )


@pytest.mark.parametrize(
    ("evaluation", "source"),
    [
        ({}, "personal"),
        ({"verdict": "proven", "forced": False}, "personal"),
        ({"verdict": "unproven", "forced": True}, "personal"),
        ({"verdict": "refused", "forced": True}, "personal"),
        ({"verdict": "unproven", "forced": False}, "own_purchases"),
    ],
)
def test_what_is_not_proven_says_so_and_speaks_of_no_likeness(
    shop: Publishing, evaluation: dict[str, Any], source: str
) -> None:
    header, arrays = load_artifact(shop.folder, MODEL)
    all_explained = replace(LENGTHS, explained=LENGTHS.top_buys)
    maker: ListMaker = list_maker((replace(header, evaluation=evaluation), arrays), all_explained)
    published = shop.everybody(maker)
    assert published.source == source
    kinds = {type(reason) for user in users(shop).values() for reason in user.reasons.values()}
    assert {user.top_buys.source for user in users(shop).values()} == {source}
    assert (BecauseSimilar in kinds) == (source == "personal")
    if source == "own_purchases":
        assert kinds == {BecauseRepeat, BecausePopular}


# --- What the shop wants


def test_what_the_shop_wants_is_in_all_lists(shop: Publishing, wanted: Publishing) -> None:
    wanted.everybody()
    published, bought = users(wanted), purchases()
    buyers = {p: [u for u in bought if p in bought[u]] for p in range(PRODUCTS)}
    assert all(buyers[p] for p in (BLOCKED, UNAVAILABLE, NOT_AGAIN, PINNED))
    for user in published.values():
        assert not {BLOCKED, UNAVAILABLE} & {*user.listed, *user.again, *user.reasons}
        assert user.listed[:3] == [PINNED, UNSOLD, BOOSTED]
        assert NOT_AGAIN not in user.again
        assert UNSOLD not in user.again
    assert any(NOT_AGAIN in user.listed for user in published.values())
    # A pin of Top Buys is none of Buy Again.
    assert {published[name].again[0] for name in buyers[PINNED]} != {PINNED}


def test_a_category_has_no_more_places_than_the_shop_grants(shop: Publishing) -> None:
    shop.everybody(shop.maker(top_buys=PRODUCTS))
    uncapped = {name: user.listed for name, user in users(shop).items()}
    capped = replace(shop, session=replace(shop.session, most_per_category=2))
    capped.everybody(capped.maker(top_buys=7))
    for name, user in users(capped).items():
        seen: Counter[int] = Counter()
        expected = []
        for product in uncapped[name]:
            seen[product % 4] += 1
            if seen[product % 4] <= 2:
                expected.append(product)
        assert len(expected) == 8
        assert user.listed == expected[:7]
        assert [*user.reasons] == expected[:5]


# --- Changed users


@pytest.mark.parametrize("id_type", ["bigint", "text"])
def test_lists_of_changed_users_are_those_of_all(
    wanted: Publishing, database: psycopg.Connection, id_type: str
) -> None:
    wanted.everybody(wanted.maker(top_buys=8, explained=6, buy_again=4))
    before = wanted.contents()
    add_orders(
        database,
        [
            Order(1001, 1, [BLOCKED, UNAVAILABLE, 12], day(60)),
            Order(1002, 2, [NOT_AGAIN, PINNED, 50], day(61)),  # the model does not know 50
            Order(1003, 77, [BOOSTED, 50], day(62)),
            Order(1004, 78, [BLOCKED], day(63)),
            replace(MADE[1], status="cancelled", updated_at=day(64)),
        ],
    )
    wanted.refresh()
    published = wanted.changed()
    assert published is not None
    assert published.written == 5
    after = wanted.contents()
    changed = {user for _, user in after if after[_, user] != before.get((_, user))}
    assert changed == {str(id_of(user, id_type)) for user in (1, 2, 3, 77, 78)}
    wanted.everybody(wanted.maker(top_buys=8, explained=6, buy_again=4))
    assert wanted.contents() == after


def test_a_rule_of_later_is_in_the_lists_of_changed_users(
    shop: Publishing, database: psycopg.Connection, wish: Callable[..., None]
) -> None:
    shop.everybody()
    before = shop.contents()
    wish("everywhere", BLOCKED, "block")
    wish("top_buys", PINNED, "pin")
    add_orders(database, [Order(1001, 1, [BLOCKED, 12], day(60))])
    shop.refresh()
    shop.changed()
    after, user = shop.contents(), users(shop)["1"]
    assert user.listed[0] == PINNED
    assert BLOCKED not in {*user.listed, *user.again}
    others = {key: value for key, value in after.items() if key[1] != "1"}
    assert others == {key: value for key, value in before.items() if key[1] != "1"}
    shop.everybody()
    assert {k: v for k, v in shop.contents().items() if k[1] == "1"} == {
        k: v for k, v in after.items() if k[1] == "1"
    }
