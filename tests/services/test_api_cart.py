"""Bought Together with a cart."""

import pytest

from serving.contract import (
    Family,
    Pairing,
    bought_together_key,
    encode_pairings,
    list_key,
    publication_key,
)
from tests.answers import (
    BOUGHT_TOGETHER,
    assert_publish_again,
    assert_refused,
    metrics_of,
    products_of,
    round_trips,
)


@pytest.fixture
def rules(published):
    """Lists of products 1, 2 and 3, and a rule that 1 and 2 lead to 9 and 30."""
    published.record(Family.BOUGHT_TOGETHER)
    published.record(Family.BOUGHT_TOGETHER_ALSO)
    for product_id, pairings in {
        1: [Pairing(7, 4.0), Pairing(8, 3.0), Pairing(2, 2.0)],
        2: [Pairing(8, 4.0), Pairing(1, 2.0), Pairing(9, 2.5)],
        3: [Pairing(7, 3.0)],
    }.items():
        published.client.zadd(bought_together_key(product_id), encode_pairings(pairings))
    published.also(2, 1, Pairing(9, 6.0), Pairing(30, 0.5))
    return published


def test_what_is_bought_with_several_of_a_cart_comes_first(api, rules):
    response = api.get(BOUGHT_TOGETHER, params={"product_id": [1, 3]})
    assert response.status_code == 200
    assert response.json() == {
        "product_ids": [1, 3],
        "model_version": "rules-3",
        "generated_at": "2025-03-01T03:00:00Z",
        "orders_through": None,
        "products": [
            {"product_id": 7, "strength": 5.0, "source": "product"},
            {"product_id": 8, "strength": 3.0, "source": "product"},
            {"product_id": 2, "strength": 2.0, "source": "product"},
        ],
    }


@pytest.mark.parametrize("cart", [[1, 2], [2, 1], [1, 2, 1]])
def test_rules_with_two_antecedents_count_and_nothing_of_the_cart_is_recommended(api, rules, cart):
    body = api.get(BOUGHT_TOGETHER, params={"product_id": cart}).json()
    assert body["product_ids"] == cart[:2]
    assert [(p["product_id"], p["strength"]) for p in body["products"]] == [
        (9, 6.5),
        (8, 5.0),
        (7, 4.0),
        (30, 0.5),
    ]


@pytest.mark.parametrize("keys", [None, 0])
def test_rules_with_two_antecedents_count_once_they_are_published(api, rules, keys):
    rules.client.delete(publication_key(Family.BOUGHT_TOGETHER_ALSO))
    if keys is not None:
        rules.record(Family.BOUGHT_TOGETHER_ALSO, keys=keys)
    body = api.get(BOUGHT_TOGETHER, params={"product_id": [1, 2]}).json()
    assert products_of(body) == [8, 7, 9]


def test_a_cart_of_one_has_the_products_list(api, rules):
    body = api.get(BOUGHT_TOGETHER, params={"product_id": 1}).json()
    assert (body["product_ids"], products_of(body)) == ([1], [7, 8, 2])
    assert products_of(api.get(f"{BOUGHT_TOGETHER}1/").json()) == [7, 8, 2]


def test_a_carts_list_is_cut_to_the_limit_after_the_exclusions(api, rules):
    params = {"product_id": [1, 2], "limit": 2, "exclude": [8, 9]}
    assert products_of(api.get(BOUGHT_TOGETHER, params=params).json()) == [7, 30]


def test_whole_lists_count_however_long(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    for product_id in (1, 2):
        own = [*range(100 * product_id, 100 * product_id + 90), 999]
        published.bought_together(product_id, *own)  # 999 is the weakest of each
    params = {"product_id": [1, 2], "limit": 100, "exclude": [*range(100, 190)]}
    body = api.get(BOUGHT_TOGETHER, params=params).json()
    (shared,) = (p["strength"] for p in body["products"] if p["product_id"] == 999)
    assert shared == pytest.approx(2**0.5 * 8 / 91)


def test_a_cart_of_which_nothing_is_known_has_an_empty_list(api, rules):
    body = api.get(BOUGHT_TOGETHER, params={"product_id": [41, "x"]}).json()
    assert (body["product_ids"], body["model_version"]) == ([41, "x"], "rules-3")
    assert body["products"] == []


def test_before_the_first_publication_a_cart_has_an_empty_list(api):
    response = api.get(BOUGHT_TOGETHER, params={"product_id": [1, 2], "explain": True})
    assert response.status_code == 200
    assert response.json() == {
        "product_ids": ["1", "2"],
        "model_version": None,
        "generated_at": None,
        "orders_through": None,
        "products": [],
    }


@pytest.mark.parametrize(
    ("one", "other", "third"),
    [
        ("a:b", "a", "b:c"),
        ("sku%2F1", "sku/1", "%"),
        ("10", "9", "007"),
        ("x:bought_together", ":", "*"),
    ],
)
def test_text_ids_of_a_cart_come_back_as_text(api, published, one, other, third):
    published.record(Family.BOUGHT_TOGETHER, "text")
    published.record(Family.BOUGHT_TOGETHER_ALSO, "text")
    published.bought_together(one, third)
    published.also(one, other, Pairing(third, 6.0))
    body = api.get(BOUGHT_TOGETHER, params={"product_id": [other, one]}).json()
    assert body["product_ids"] == [other, one]
    assert body["products"] == [{"product_id": third, "strength": 10.0, "source": "product"}]


def test_a_product_is_marked_that_only_categories_lead_to(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    published.record(Family.BOUGHT_TOGETHER_ALSO)
    published.bought_together(1, 7, 8, 9)
    published.bought_together(2, 7)
    published.borrow(1)
    published.also(1, 2, Pairing(8, 1.0))
    body = api.get(BOUGHT_TOGETHER, params={"product_id": [1, 2]}).json()
    sources = {p["product_id"]: p["source"] for p in body["products"]}
    assert sources == {7: "product", 8: "product", 9: "category"}


# Refused


def test_a_cart_has_one_to_fifty_products(api):
    assert_refused(api.get(BOUGHT_TOGETHER), "product_id")
    assert_refused(api.get(BOUGHT_TOGETHER, params={"product_id": [*range(51)]}), "product_id")
    assert api.get(BOUGHT_TOGETHER, params={"product_id": [*range(50)]}).status_code == 200


@pytest.mark.parametrize("bad", ["", "x" * 201, "a%0Ab"])
def test_a_bad_id_in_a_cart_is_refused(api, bad):
    assert_refused(api.get(f"{BOUGHT_TOGETHER}?product_id=1&product_id={bad}"), "product_id")
    assert_refused(api.get(f"{BOUGHT_TOGETHER}?product_id=1&exclude={bad}"), "exclude")


@pytest.mark.parametrize("value", [b"hello", b'{"7": 1.0}', b'[["a", "b"]]'])
def test_a_foreign_rule_with_two_antecedents_is_told(api, rules, value):
    rules.client.hset(list_key(Family.BOUGHT_TOGETHER_ALSO, 1), "2", value)
    assert_publish_again(api.get(BOUGHT_TOGETHER, params={"product_id": [1, 2]}))


def test_a_hash_of_another_type_is_told(api, rules):
    rules.client.set(list_key(Family.BOUGHT_TOGETHER_ALSO, 1), "a string")
    assert_publish_again(api.get(BOUGHT_TOGETHER, params={"product_id": [1, 2]}))


# Cost


def test_a_cart_of_fifty_is_one_round_trip(api, rules):
    before = metrics_of(api)
    api.get(BOUGHT_TOGETHER, params={"product_id": [1, *range(51, 100)], "explain": True})
    after = metrics_of(api)
    assert round_trips(before, after) == 1
    served = 'recsys_recommendations_total{list="bought_together_cart",source="global"}'
    assert after[served] - before.get(served, 0.0) == 1
