"""Why a product is in a list: ``?explain=true``."""

import pytest

from serving.contract import (
    BecausePinned,
    BecauseRepeat,
    BecauseSimilar,
    Family,
    PairCount,
    Pairing,
    WeighedPurchase,
    list_key,
)
from tests.answers import BOUGHT_TOGETHER, TOP_BUYS, assert_publish_again, assert_refused
from tests.published import THROUGH

EXPLAIN = {"explain": "true"}

# Of 200 orders 20 have product 5 and 40 have product 7; 10 have both.
COUNTS = {"baskets": 200, "orders": 20}
BOTH = PairCount(7, 10, 40)
MEASURES = {"orders": 10, "support": 0.05, "confidence": 0.5, "lift": 2.5}


# Top Buys


def test_top_buys_say_why(api, published):
    published.top_buys(123, 7, 8, 9, 10)
    published.because(
        123,
        {
            8: BecauseRepeat(3, THROUGH),
            7: BecauseSimilar([WeighedPurchase(5, 0.75), WeighedPurchase(6, 0.25)]),
            9: BecausePinned(),
            11: BecausePinned(),  # of another moment
        },
    )
    body = api.get(TOP_BUYS, params={"user_id": 123} | EXPLAIN).json()
    assert body["source"] == "personal"
    assert body["products"] == [
        {
            "product_id": 7,
            "score": 1.0,
            "because": {
                "kind": "similar",
                "purchases": [
                    {"product_id": 5, "weight": 0.75},
                    {"product_id": 6, "weight": 0.25},
                ],
            },
        },
        {
            "product_id": 8,
            "score": 0.5,
            "because": {
                "kind": "repeat",
                "purchases": 3,
                "last_purchased_at": "2025-03-01T02:59:00Z",
            },
        },
        {"product_id": 9, "score": 1 / 3, "because": {"kind": "pinned"}},
        {"product_id": 10, "score": 0.25, "because": None},
    ]


def test_without_explanations_nothing_is_known(api, published):
    published.top_buys(123, 7)
    body = api.get(TOP_BUYS, params={"user_id": 123} | EXPLAIN).json()
    assert body["products"] == [{"product_id": 7, "score": 1.0, "because": None}]


@pytest.mark.parametrize("params", [{}, {"user_id": 999}])
def test_what_guests_get_is_popular(api, published, params):
    published.top_buys(None, 1)
    published.because(999, {1: BecauseRepeat(3, THROUGH)})  # of a list that is gone
    body = api.get(TOP_BUYS, params=params | EXPLAIN).json()
    assert body["products"] == [
        {"product_id": 1, "score": 1.0, "because": {"kind": "popular"}},
    ]


@pytest.mark.parametrize("params", [{}, {"user_id": 999}])
def test_what_is_pinned_for_guests_says_so(api, published, params):
    published.top_buys(None, 1, 2, 3, pinned=[1, 2])
    body = api.get(TOP_BUYS, params=params | EXPLAIN | {"exclude": 1}).json()
    assert [(p["product_id"], p["because"]["kind"]) for p in body["products"]] == [
        (2, "pinned"),
        (3, "popular"),
    ]
    assert "pinned" not in body


def test_top_buys_by_own_purchases_say_so(api, published):
    published.top_buys(123, 7, source="own_purchases")
    published.because(123, {7: BecauseRepeat(3, THROUGH)})
    body = api.get(TOP_BUYS, params={"user_id": 123} | EXPLAIN).json()
    assert body["source"] == "own_purchases"
    assert body["products"][0]["because"]["kind"] == "repeat"


# Bought Together


def test_bought_together_gives_its_evidence(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    published.bought_together(5, 7, 8)
    published.evidence(5, BOTH, **COUNTS)
    body = api.get(f"{BOUGHT_TOGETHER}5/", params=EXPLAIN).json()
    assert body["source"] == "product"
    assert body["products"] == [
        {"product_id": 7, "strength": 8.0, "evidence": MEASURES},
        {"product_id": 8, "strength": 4.0, "evidence": None},
    ]


def test_evidence_of_another_model_is_none(api, published):
    published.record(Family.BOUGHT_TOGETHER, model_version="rules-4")
    published.bought_together(5, 7)
    published.evidence(5, BOTH, **COUNTS)  # of rules-3: the list is newer
    body = api.get(f"{BOUGHT_TOGETHER}5/", params=EXPLAIN).json()
    assert body["products"] == [{"product_id": 7, "strength": 8.0, "evidence": None}]
    (product,) = api.get(BOUGHT_TOGETHER, params={"product_id": 5} | EXPLAIN).json()["products"]
    assert product["with"] == [{"product_ids": [5], "strength": 8.0, "evidence": None}]


@pytest.mark.parametrize("params", [{}, EXPLAIN])
def test_a_list_borrowed_from_the_category_is_marked(api, published, params):
    published.record(Family.BOUGHT_TOGETHER, "text")
    published.bought_together("a:b", "7")
    published.bought_together("a", "7")
    published.borrow("a:b")
    assert api.get(f"{BOUGHT_TOGETHER}a:b/", params=params).json()["source"] == "category"
    assert api.get(f"{BOUGHT_TOGETHER}a/", params=params).json()["source"] == "product"


def test_a_cart_says_what_each_strength_is_made_of(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    published.record(Family.BOUGHT_TOGETHER_ALSO)
    published.bought_together(5, 7, 8)
    published.bought_together(10, 9, 7)
    published.also(5, 10, Pairing(7, 1.0))
    published.evidence(5, BOTH, **COUNTS)
    params = {"product_id": [5, 10], "limit": 2} | EXPLAIN
    assert api.get(BOUGHT_TOGETHER, params=params).json()["products"] == [
        {
            "product_id": 7,
            "strength": 9.0,
            "source": "product",
            "with": [
                {"product_ids": [5], "strength": 8.0, "evidence": MEASURES},
                {"product_ids": [10], "strength": 4.0, "evidence": None},
                {"product_ids": [10, 5], "strength": 1.0, "evidence": None},
            ],
        },
        {
            "product_id": 9,
            "strength": 8.0,
            "source": "product",
            "with": [{"product_ids": [10], "strength": 8.0, "evidence": None}],
        },
    ]


# Without, and refused


def test_nobody_is_told_why_who_does_not_ask(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    published.top_buys(123, 7)
    published.because(123, {7: BecausePinned()})
    published.bought_together(5, 7)
    published.evidence(5, BOTH, **COUNTS)
    for path, fields in {
        f"{TOP_BUYS}?user_id=123": {"product_id", "score"},
        f"{TOP_BUYS}?user_id=123&explain=false": {"product_id", "score"},
        f"{BOUGHT_TOGETHER}5/": {"product_id", "strength"},
        f"{BOUGHT_TOGETHER}?product_id=5": {"product_id", "strength", "source"},
    }.items():
        assert [set(product) for product in api.get(path).json()["products"]] == [fields]


@pytest.mark.parametrize(
    "path", [TOP_BUYS, f"{BOUGHT_TOGETHER}5/", f"{BOUGHT_TOGETHER}?product_id=5"]
)
def test_explain_is_true_or_false(api, path):
    assert_refused(api.get(path, params={"product_id": 5, "explain": "why"}), "explain")


def test_foreign_explanations_and_evidence_are_told(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    published.top_buys(1, 7)
    published.bought_together(5, 7)
    published.client.set(list_key(Family.USER_TOP_BUYS_BECAUSE, 1), "hello")
    published.client.set(list_key(Family.BOUGHT_TOGETHER_EVIDENCE, 5), "hello")
    for path in [
        f"{TOP_BUYS}?user_id=1",
        f"{BOUGHT_TOGETHER}5/",
        f"{BOUGHT_TOGETHER}?product_id=5",
    ]:
        assert api.get(path).status_code == 200
        assert_publish_again(api.get(path, params={"product_id": 5, "user_id": 1} | EXPLAIN))


@pytest.mark.parametrize("counts", [{"baskets": 0, "orders": 1}, {"baskets": 1, "orders": 0}])
def test_counts_that_cannot_be_are_told(api, published, counts):
    published.record(Family.BOUGHT_TOGETHER)
    published.evidence(5, BOTH, **counts)
    assert_publish_again(api.get(f"{BOUGHT_TOGETHER}5/", params=EXPLAIN))
