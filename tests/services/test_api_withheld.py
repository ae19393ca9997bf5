"""Products that are blocked or unavailable: no list has them, and lists stay full."""

from random import Random

import pytest

from serving.contract import BecausePinned, Family, Pairing, Repeat, blocked_key, unavailable_key
from serving.store import SPARE
from tests.answers import (
    BOUGHT_TOGETHER,
    BUY_AGAIN,
    TOP_BUYS,
    assert_publish_again,
    metrics_of,
    products_of,
    round_trips,
)
from tests.published import THROUGH

LISTS = [
    TOP_BUYS,
    f"{TOP_BUYS}?user_id=1",
    f"{BUY_AGAIN}?user_id=1",
    f"{BOUGHT_TOGETHER}5/",
    f"{BOUGHT_TOGETHER}?product_id=5",
]


def repeat(product_id):
    return Repeat(
        product_id=product_id, score=1.0, purchases=2, last_purchased_at=THROUGH, due_at=None
    )


def publish_everywhere(published, *products):
    published.top_buys(None, *products)
    published.top_buys(1, *products)
    published.buy_again(1, *map(repeat, products))
    published.bought_together(5, *products)
    published.record(Family.BOUGHT_TOGETHER, "integer" if isinstance(products[0], int) else "text")


@pytest.mark.parametrize("key", [blocked_key(), unavailable_key()])
@pytest.mark.parametrize("path", LISTS)
def test_a_product_is_gone_at_the_next_read_and_the_list_still_full(api, published, path, key):
    publish_everywhere(published, *range(100, 200))
    params = {"limit": 3, "exclude": [101]}
    assert products_of(_get(api, path, params)) == [100, 102, 103]
    published.client.sadd(key, 102)
    assert products_of(_get(api, path, params)) == [100, 103, 104]
    published.client.sadd(key, 100, 104, 9999)
    assert products_of(_get(api, path, params)) == [103, 105, 106]
    published.client.srem(key, 102)
    assert products_of(_get(api, path, params)) == [102, 103, 105]


@pytest.mark.parametrize("path", LISTS)
def test_both_sets_count(api, published, path):
    publish_everywhere(published, *range(100, 110))
    published.client.sadd(blocked_key(), 100, 102)
    published.client.sadd(unavailable_key(), 100, 103)
    assert products_of(_get(api, path, {})) == [101, *range(104, 110)]


@pytest.mark.parametrize("path", LISTS)
def test_lists_stay_full_however_many_are_blocked(api, published, path):
    products = [*range(1000, 1300)]
    publish_everywhere(published, *products)
    published.client.sadd(blocked_key(), *products[: SPARE + 60])
    assert products_of(_get(api, path, {"limit": 5})) == products[SPARE + 60 : SPARE + 65]
    published.client.sadd(blocked_key(), *products)
    assert products_of(_get(api, path, {"limit": 5})) == []


@pytest.mark.parametrize("path", LISTS)
def test_limit_exclusions_and_both_sets_together(api, published, path):
    random = Random(1)
    for _ in range(30):
        products = random.sample(range(1000, 2000), random.randint(1, 150))
        blocked, unavailable, excluded = (
            random.sample(products, random.randint(0, len(products)) // random.randint(1, 20))
            for _ in range(3)
        )
        limit = random.randint(1, 100)
        published.client.flushall()
        publish_everywhere(published, *products)
        for key, ids in [(blocked_key(), blocked), (unavailable_key(), unavailable)]:
            if ids:
                published.client.sadd(key, *ids)
        gone = {*blocked, *unavailable, *excluded}
        expected = [product for product in products if product not in gone][:limit]
        params = {"limit": limit, "exclude": excluded}
        assert products_of(_get(api, path, params)) == expected


@pytest.mark.parametrize("path", LISTS)
def test_ids_may_be_text(api, published, path):
    publish_everywhere(published, "a:b", "sku%2F1", "käse", "42", "042")
    published.client.sadd(blocked_key(), "a:b", "käse", "042")
    assert products_of(_get(api, path, {})) == ["sku%2F1", "42"]


@pytest.mark.parametrize("own", [[], [100, 101]])
def test_who_has_nothing_left_is_shown_what_guests_are(api, published, own):
    published.record(Family.USER_TOP_BUYS)
    published.top_buys(1, *own)
    published.because(1, dict.fromkeys(own, BecausePinned()))
    path, params = f"{TOP_BUYS}?user_id=1", {"explain": "true"}
    published.client.sadd(blocked_key(), 100, 101, 200)
    body = _get(api, path, params)
    assert (body["source"], body["products"]) == ("personal", [])
    published.top_buys(None, 200, 100, 201)
    body = _get(api, path, params)
    assert (body["user_id"], body["source"]) == (1, "global")
    assert [(p["product_id"], p["because"]["kind"]) for p in body["products"]] == [(201, "popular")]
    published.client.delete(blocked_key())
    assert products_of(_get(api, path, params)) == (own or [200, 100, 201])


def test_what_two_antecedents_lead_to_may_be_blocked(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    published.record(Family.BOUGHT_TOGETHER_ALSO)
    published.also(5, 6, Pairing(7, 2.0), Pairing(8, 1.0))
    published.client.sadd(blocked_key(), 7)
    assert products_of(_get(api, BOUGHT_TOGETHER, {"product_id": [5, 6]})) == [8]


@pytest.mark.parametrize("path", LISTS)
def test_the_second_round_trip_is_made_only_while_a_product_is_withheld(api, published, path):
    def trips() -> float:
        before = metrics_of(api)
        _get(api, path, {"limit": 3})
        return round_trips(before, metrics_of(api))

    publish_everywhere(published, *range(100, 200))
    assert trips() == 1
    published.client.sadd(blocked_key(), 100)
    assert trips() <= 3  # the first one that finds the list without products to spare
    assert trips() == 2
    published.client.delete(blocked_key())
    assert trips() == 1


@pytest.mark.parametrize("path", LISTS)
def test_a_set_of_another_type_is_told(api, published, path):
    publish_everywhere(published, 7)
    published.client.set(blocked_key(), "7,8")
    response = api.get(path)
    assert_publish_again(response)
    assert blocked_key() in response.json()["detail"]


def _get(api, path, params):
    response = api.get(api.base_url.join(path).copy_merge_params(params))
    assert response.status_code == 200
    return response.json()
