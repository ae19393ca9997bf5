"""Reading back what was published, in the shop's own ids."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest

from recsys_assets.learn.matrix import Ids
from recsys_assets.publish.redis_reader import (
    is_borrowed,
    listed_products,
    read_bought_together,
    read_buy_again,
    read_evidence,
    read_explanations,
    read_global_top_buys,
    read_publication,
    read_user_top_buys,
    withheld_products,
)
from recsys_assets.publish.redis_writer import BATCH, Client, Edition, connect, publish
from serving.contract import (
    BecausePinned,
    BecauseRepeat,
    ContractError,
    Family,
    Id,
    PairCount,
    Pairing,
    Repeat,
    ScoredProduct,
    TopBuys,
    blocked_key,
    encode_id,
    encode_pairings,
    encode_top_buys,
    list_key,
    unavailable_key,
)
from tests.published import Publisher

EDITION = Edition(
    "v1", datetime(2025, 3, 1, 3, 0, tzinfo=UTC), datetime(2025, 3, 1, 2, 59, tzinfo=UTC)
)


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with closing(connect(redis_url)) as client:
        yield client


def top_buys(source: str, *products: Id) -> TopBuys:
    return TopBuys(
        source=source,
        model_version=EDITION.model_version,
        generated_at=EDITION.generated_at,
        orders_through=EDITION.orders_through,
        products=[ScoredProduct(product, 0.5) for product in products],
    )


def publish_pairings(client: Client, ids: Ids, pairings: list[Pairing]) -> None:
    items = [(f"product:{i}:bought_together", encode_pairings(pairings)) for i in ids.tolist()]
    publish(client, Family.BOUGHT_TOGETHER, EDITION, items, ids)


def test_nothing_is_published_yet(client: Client) -> None:
    assert read_user_top_buys(client, 1) is None
    assert read_global_top_buys(client) is None
    assert read_bought_together(client, 1) == []
    assert [family for family in Family if read_publication(client, family)] == []
    assert listed_products(client, [1, "x"]) == [False, False]
    assert listed_products(client, []) == []


@pytest.mark.parametrize(("user", "product"), [(7, 5), ("u 7", "tea"), ("7", "5")])
def test_top_buys_come_back_as_they_were(client: Client, user: Id, product: Id) -> None:
    personal, guests = top_buys("personal", product, product), top_buys("global", product)
    ids = np.array([user], np.int64 if isinstance(user, int) else object)
    items = [(f"user:{user}:top_buys", encode_top_buys(personal))]
    publish(client, Family.USER_TOP_BUYS, EDITION, items, ids)
    items = [("global:top_buys", encode_top_buys(guests))]
    publish(client, Family.GLOBAL_TOP_BUYS, EDITION, items, ids)

    assert read_user_top_buys(client, user) == personal
    assert read_user_top_buys(client, f"{user}0") is None
    assert read_global_top_buys(client) == guests


@pytest.mark.parametrize("ids", [[3, 20], ["20", "3"], ["ale", "tea"]], ids=str)
def test_pairings_come_back_strongest_first(client: Client, ids: list[Id]) -> None:
    pairings = [Pairing(ids[0], 0.25), Pairing(ids[1], 1.5)]
    known = np.array(ids, np.int64 if isinstance(ids[0], int) else object)
    publish_pairings(client, known, pairings)
    assert read_bought_together(client, ids[0]) == pairings[::-1]
    assert read_bought_together(client, "unknown") == []


def test_the_record_of_a_publication(client: Client) -> None:
    before = datetime.now(UTC)
    publish_pairings(client, np.array([1, 2], np.int64), [Pairing(1, 1.0)])
    record = read_publication(client, Family.BOUGHT_TOGETHER)
    assert record is not None
    assert (record.model_version, record.generated_at) == ("v1", EDITION.generated_at)
    assert (record.keys, record.id_kind) == (2, "integer")
    assert before <= record.finished_at <= datetime.now(UTC)
    assert read_publication(client, Family.USER_TOP_BUYS) is None


def test_which_products_have_a_list(client: Client) -> None:
    publish_pairings(client, np.arange(0, 2 * BATCH, 2, dtype=np.int64), [Pairing(1, 1.0)])
    asked: list[Id] = list(range(BATCH + 5))
    assert listed_products(client, asked) == [product % 2 == 0 for product in asked]


@pytest.mark.parametrize("user", [7, "u 7", "a:b", "sku%2F1"])
def test_explanations_and_what_is_bought_again_come_back(
    client: Client, published: Publisher, user: Id
) -> None:
    assert read_explanations(client, user) is None
    assert read_buy_again(client, user) is None
    moment = EDITION.generated_at
    reasons = {5: BecauseRepeat(3, moment), "tea": BecausePinned()}
    published.because(user, reasons)
    repeat = Repeat(product_id=5, score=1.0, purchases=3, last_purchased_at=moment, due_at=None)
    published.buy_again(user, repeat)

    explanations, again = read_explanations(client, user), read_buy_again(client, user)
    assert explanations is not None
    assert {each.product_id: each.because for each in explanations.because} == reasons
    assert again is not None
    assert again.products == [repeat]
    assert read_buy_again(client, f"{user}0") is None


@pytest.mark.parametrize("product", [7, "u 7", "a:b", "sku%2F1"])
def test_evidence_comes_back_and_what_is_borrowed(
    client: Client, published: Publisher, product: Id
) -> None:
    assert read_evidence(client, product) is None
    assert not is_borrowed(client, product)
    published.evidence(product, PairCount(5, 3, 6), baskets=10, orders=4, borrowed=True)
    published.borrow(product)
    evidence = read_evidence(client, product)
    assert evidence is not None
    assert (evidence.baskets, evidence.orders, evidence.borrowed) == (10, 4, True)
    assert evidence.products == [PairCount(5, 3, 6)]
    assert is_borrowed(client, product)
    assert not is_borrowed(client, f"{product}0")


@pytest.mark.parametrize("ids", [[3, 20, 100, 7], ["a:b", "3 ", "käse", "7"]], ids=str)
def test_what_is_blocked_or_unavailable_is_withheld(client: Client, ids: list[Id]) -> None:
    assert withheld_products(client, []) == []
    assert withheld_products(client, ids) == [False] * 4
    client.sadd(blocked_key(), encode_id(ids[0]))
    client.sadd(unavailable_key(), encode_id(ids[0]), encode_id(ids[2]))
    assert withheld_products(client, ids) == [True, False, True, False]


def test_what_is_no_id_has_nothing(client: Client) -> None:
    for bad in ["", "a\nb"]:
        assert read_explanations(client, bad) is None
        assert read_buy_again(client, bad) is None
        assert read_evidence(client, bad) is None
        assert not is_borrowed(client, bad)
        assert withheld_products(client, [bad]) == [False]


def test_what_is_not_of_the_contract_is_told(client: Client) -> None:
    client.set("user:1:top_buys", '{"products": []}')
    with pytest.raises(ContractError, match="publish again"):
        read_user_top_buys(client, 1)
    for family, read in [
        (Family.USER_TOP_BUYS_BECAUSE, read_explanations),
        (Family.USER_BUY_AGAIN, read_buy_again),
        (Family.BOUGHT_TOGETHER_EVIDENCE, read_evidence),
    ]:
        client.set(list_key(family, 1), "[]")
        with pytest.raises(ContractError, match="publish again"):
            read(client, 1)
    client.set("publication:user_top_buys", "?")
    with pytest.raises(ContractError, match="publish again"):
        read_publication(client, Family.USER_TOP_BUYS)
