"""`recsys show`: what the API would answer of published lists, with names, and why."""

import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from recsys_assets.cli import app
from recsys_assets.publish.redis_client import RedisUnavailableError, connect
from serving.contract import (
    BecausePinned,
    BecausePopular,
    BecauseRepeat,
    BecauseSimilar,
    Family,
    PairCount,
    Pairing,
    Repeat,
    WeighedPurchase,
    blocked_key,
    unavailable_key,
)
from tests.answers import BOUGHT_TOGETHER, BUY_AGAIN, TOP_BUYS, products_of
from tests.clusters import redis_cluster
from tests.published import Publisher
from tests.shops import create_shop

NAMES = {1: "Bananas", 2: "Milk", 3: "Bread [500 g]", 4: "Eggs", 5: "Butter", 6: "Tea"}
LAST = datetime(2017, 11, 20, 18, 30, tzinfo=UTC)
DUE = datetime(2017, 11, 27, 6, 0, tzinfo=UTC)

Show = Callable[..., str]
Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process, in a terminal of 160 columns unless it is told others."""
    with psycopg.connect(database_url) as connection:
        create_shop(connection, names=NAMES)

    def run(*arguments: object, columns: int = 160, redis_url: str = redis_url) -> Result:
        monkeypatch.setenv("RECSYS_DATABASE_URL", database_url)
        monkeypatch.setenv("RECSYS_REDIS_URL", redis_url)
        monkeypatch.setenv("COLUMNS", str(columns))
        return CliRunner().invoke(app, ["show", *map(str, arguments)])

    return run


@pytest.fixture
def show(run: Run) -> Show:
    """What the command prints, which must succeed."""

    def show(*arguments: object, **more: object) -> str:
        result = run(*arguments, **more)
        assert result.exit_code == 0, result.exception or result.output
        return result.output

    return show


def rows_of(printed: str) -> list[list[str]]:
    """The cells of the numbered rows of a printed ranking."""
    return [re.split(r"\s{2,}", line.strip()) for line in re.findall(r"^ +\d+ .*$", printed, re.M)]


def shown(printed: str) -> list[int]:
    """The products of a printed ranking."""
    return [int(cells[1]) for cells in rows_of(printed)]


def repeat(product_id: int, purchases: int, due_at: datetime | None) -> Repeat:
    return Repeat(
        product_id=product_id,
        score=1.0 / product_id,
        purchases=purchases,
        last_purchased_at=LAST,
        due_at=due_at,
    )


@pytest.fixture
def lists(published: Publisher) -> Publisher:
    """Lists of every kind, of user 7, of guests, and of products 1 and 2."""
    for family in Family:
        published.record(family)
    published.top_buys(7, 1, 2, 3, 4, 5)
    published.top_buys(None, 4, 3, 2, 1)
    published.buy_again(7, repeat(2, 7, DUE), repeat(3, 1, None), repeat(4, 1200, LAST))
    published.bought_together(1, 2, 3, 4)
    published.bought_together(2, 4, 5)
    return published


def test_every_reason_is_told_in_words_with_names(show: Show, lists: Publisher):
    similar = [WeighedPurchase(6, 0.306), WeighedPurchase(99, 0.12)]
    lists.because(
        7,
        {
            1: BecauseRepeat(7, LAST),
            2: BecauseRepeat(1, LAST),
            3: BecauseSimilar(similar),
            4: BecausePinned(),
        },
    )
    printed = show("user", 7, "--explain")
    assert "Top Buys of user 7 (personal)" in printed
    assert "model als-7, orders through 2025-03-01 02:59" in printed
    assert rows_of(printed) == [
        ["1", "1", "Bananas", "1.000", "bought 7 times, last 2017-11-20"],
        ["2", "2", "Milk", "0.500", "bought once, 2017-11-20"],
        ["3", "3", "Bread [500 g]", "0.333", "like Tea (0.31), 99 (0.12)"],
        ["4", "4", "Eggs", "0.250", "pinned"],
        ["5", "5", "Butter", "0.200"],  # of which nothing is known
    ]
    lists.because(7, {1: BecausePopular()})
    assert rows_of(show("user", 7, "--explain"))[0][-1] == "popular"
    assert rows_of(show("user", 7))[2] == ["3", "3", "Bread [500 g]", "0.333"]


def test_whoever_has_no_list_is_shown_what_is_popular(show: Show, lists: Publisher):
    guest = show("guest", "-n", 2)
    assert "Top Buys of guests (global)" in guest
    assert rows_of(guest) == [["1", "4", "Eggs", "1.000"], ["2", "3", "Bread [500 g]", "0.500"]]
    stranger = show("user", "nobody", "--explain", "-n", 2)
    assert "Top Buys of user nobody (global)" in stranger
    assert rows_of(stranger) == [[*cells, "popular"] for cells in rows_of(guest)]


def test_a_list_of_own_purchases_is_the_users_own(show: Show, lists: Publisher):
    later = datetime(2025, 3, 2, 8, 15, tzinfo=UTC)
    lists.record(Family.USER_TOP_BUYS, model_version="als-7", orders_through=later)
    lists.top_buys(7, 3, 1, source="own_purchases")
    printed = show("user", 7)
    assert "Top Buys of user 7 (own purchases)" in printed
    assert "orders through 2025-03-02 08:15" in printed
    assert shown(printed) == [3, 1]


def test_buy_again_tells_how_often_when_last_and_when_next(show: Show, lists: Publisher):
    printed = show("buy-again", 7)
    assert "Buy Again of user 7" in printed
    assert rows_of(printed) == [
        ["1", "2", "Milk", "0.500", "7", "2017-11-20", "2017-11-27"],
        ["2", "4", "Eggs", "0.250", "1,200", "2017-11-20", "2017-11-20"],
        ["3", "3", "Bread [500 g]", "0.333", "1", "2017-11-20", "-"],
    ]
    assert show("buy-again", 8) == "Nothing is known that user 8 buys again\n"


def test_a_product_is_explained_by_the_counts_behind_it(show: Show, lists: Publisher):
    # of 400 orders 20 have product 1, 80 product 2; both are in 10, where chance would have 4
    lists.evidence(1, PairCount(2, 10, 80), PairCount(3, 1, 5), baskets=400, orders=20)
    printed = show("product", 1, "--explain")
    assert "Bought together with 1 Bananas\n" in re.sub(" +\n", "\n", printed)
    assert "model rules-3" in printed
    assert rows_of(printed) == [
        ["1", "2", "Milk", "10", "2.500%", "50.0%", "2.50", "8.000"],
        ["2", "3", "Bread [500 g]", "1", "0.250%", "5.0%", "4.00", "4.000"],
        ["3", "4", "Eggs", "2.667"],  # without evidence
    ]
    assert rows_of(show("product", 1, "-n", 1)) == [["1", "2", "Milk", "8.000"]]
    assert show("product", 6) == "Nothing is known to be bought together with 6 Tea\n"


def test_a_borrowed_list_is_told_to_be_its_categorys(show: Show, lists: Publisher):
    lists.borrow(1)
    assert "Bought together with 1 Bananas, as with its category" in show("product", 1)


def test_a_cart_combines_what_its_products_and_two_of_them_lead_to(show: Show, lists: Publisher):
    lists.evidence(1, PairCount(4, 10, 80), baskets=400, orders=20)
    lists.also(1, 2, Pairing(6, 5.0))
    printed = show("cart", 1, 2, 1, "--explain")
    assert "Bought together with 1 Bananas and 2 Milk" in printed
    lines = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]
    start = lines.index(["1", "4", "Eggs", "8.433", "Milk 8.000"])  # sqrt(8^2 + (8/3)^2)
    assert lines[start + 1 : start + 5] == [
        ["Bananas 2.667 (10 orders, lift 2.50)"],
        ["2", "6", "Tea", "5.000", "Bananas and Milk 5.000"],
        ["3", "3", "Bread [500 g]", "4.000", "Bananas 4.000"],
        ["4", "5", "Butter", "4.000", "Milk 4.000"],
    ]
    assert shown(show("cart", 1, 2, "-n", 2)) == [4, 6]
    nothing = show("cart", 6, 99)
    assert nothing == "Nothing is known to be bought together with 6 Tea and 99\n"


@pytest.mark.parametrize("key", [blocked_key(), unavailable_key()])
def test_what_the_api_leaves_out_is_not_shown(show: Show, api, lists: Publisher, key: str):
    lists.client.sadd(key, "4", "3")
    for arguments, endpoint, parameters, products in (
        (["user", 7], TOP_BUYS, {"user_id": 7}, [1, 2, 5]),
        (["guest"], TOP_BUYS, {}, [2, 1]),
        (["buy-again", 7], BUY_AGAIN, {"user_id": 7}, [2]),
        (["product", 1], f"{BOUGHT_TOGETHER}1/", {}, [2]),
        (["cart", 1, 2], BOUGHT_TOGETHER, {"product_id": [1, 2]}, [5]),
    ):
        assert shown(show(*arguments)) == products
        assert products_of(api.get(endpoint, params=parameters).json()) == products


def test_the_explained_tables_fit_into_a_hundred_columns(show: Show, lists: Publisher):
    lists.because(7, {1: BecauseSimilar([WeighedPurchase(n, 0.1) for n in NAMES])})
    lists.evidence(1, *(PairCount(n, 99_999, 99_999) for n in NAMES), baskets=10**6, orders=10**6)
    for arguments in (["user", 7], ["product", 1], ["cart", 1, 2]):
        lines = show(*arguments, "--explain", columns=100).splitlines()
        assert max(map(len, lines)) <= 100
        assert not any("…" in line for line in lines)


@pytest.mark.parametrize(
    "arguments", [["user", 7], ["guest"], ["buy-again", 7], ["product", 1], ["cart", 1, 2]]
)
def test_before_the_first_publication_it_says_what_to_do(run: Run, arguments: list[object]):
    result = run(*arguments)
    assert result.exit_code == 1
    assert "recsys materialize" in str(result.exception)


def test_a_cluster_is_asked_as_well(show: Show, tmp_path: Path):
    with redis_cluster(tmp_path / "redis") as url:
        with closing(connect(url)) as cluster:
            publisher = Publisher(cluster)
            publisher.record(Family.BOUGHT_TOGETHER)
            publisher.bought_together(1, 2, 3)
            publisher.bought_together(4, 3, 5)
        assert shown(show("cart", 1, 4, redis_url=url)) == [3, 2, 5]


def test_who_may_not_read_the_lists_is_told_so(run: Run, lists: Publisher, redis_url: str):
    lists.client.acl_setuser(
        "stranger", enabled=True, nopass=True, commands=["+ping", "+info"], keys=["*"]
    )
    try:
        result = run("guest", redis_url=redis_url.replace("://", "://stranger:any@"))
    finally:
        lists.client.acl_deluser("stranger")
    assert isinstance(result.exception, RedisUnavailableError)
    assert "Permit it to the user that RECSYS_REDIS_URL names" in str(result.exception)


def test_a_value_of_another_release_is_told(run: Run, lists: Publisher):
    lists.client.set("user:7:top_buys", '{"schema": 1}')
    assert "publish again" in str(run("user", 7).exception)
