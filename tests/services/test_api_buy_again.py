"""What a user buys again."""

from datetime import timedelta

import pytest

from serving.contract import Family, Repeat, list_key
from tests.answers import BUY_AGAIN, assert_publish_again, assert_refused, products_of
from tests.published import GENERATED, THROUGH

LATER = THROUGH + timedelta(hours=1)


def repeat(product_id, purchases=2, due_at=None):
    return Repeat(
        product_id=product_id,
        score=purchases / 2,
        purchases=purchases,
        last_purchased_at=THROUGH,
        due_at=due_at,
    )


def test_a_user_gets_what_they_buy_again_with_its_counts(api, published):
    published.buy_again(123, repeat(7, 3, GENERATED), repeat(8))
    published.record(Family.USER_BUY_AGAIN)
    response = api.get(BUY_AGAIN, params={"user_id": 123})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "user_id": 123,
        "model_version": "als-7",
        "generated_at": "2025-03-01T03:00:00Z",
        "orders_through": "2025-03-01T02:59:00Z",
        "products": [
            {
                "product_id": 7,
                "score": 1.5,
                "purchases": 3,
                "last_purchased_at": "2025-03-01T02:59:00Z",
                "due_at": "2025-03-01T03:00:00Z",
            },
            {
                "product_id": 8,
                "score": 1.0,
                "purchases": 2,
                "last_purchased_at": "2025-03-01T02:59:00Z",
                "due_at": None,
            },
        ],
    }


@pytest.mark.parametrize(("user_id", "shown"), [("999", 999), ("nobody", "nobody")])
def test_an_unknown_user_has_an_empty_list(api, published, user_id, shown):
    published.record(Family.USER_BUY_AGAIN)
    response = api.get(BUY_AGAIN, params={"user_id": user_id})
    assert response.status_code == 200
    assert response.json() == {
        "user_id": shown,
        "model_version": None,
        "generated_at": None,
        "orders_through": None,
        "products": [],
    }


def test_a_list_left_as_it_is_knows_the_orders_that_the_record_knows(api, published):
    published.buy_again(1, repeat(7))
    published.record(Family.USER_BUY_AGAIN, model_version="als-7", orders_through=LATER)
    body = api.get(BUY_AGAIN, params={"user_id": 1}).json()
    assert body["orders_through"] == "2025-03-01T03:59:00Z"


@pytest.mark.parametrize("user_id", ["kunde-ä/7", "007", "a b:c*{d}", "a%2Fb", "1:buy_again"])
def test_text_ids_come_back_as_text(api, published, user_id):
    published.buy_again(user_id, repeat("sku:1"), repeat("42"))
    published.record(Family.USER_BUY_AGAIN, "text")
    body = api.get(BUY_AGAIN, params={"user_id": user_id}).json()
    assert (body["user_id"], products_of(body)) == (user_id, ["sku:1", "42"])


def test_the_list_is_cut_to_the_limit_after_the_exclusions(api, published):
    published.buy_again(1, *map(repeat, range(100, 120)))
    params = {"user_id": 1, "limit": 3, "exclude": ["100", "102", "9999"]}
    assert products_of(api.get(BUY_AGAIN, params=params).json()) == [101, 103, 104]
    assert products_of(api.get(BUY_AGAIN, params={"user_id": 1}).json()) == [*range(100, 110)]


def test_the_user_is_required(api):
    assert_refused(api.get(BUY_AGAIN), "user_id")
    assert_refused(api.get(BUY_AGAIN, params={"user_id": ""}), "user_id")
    assert_refused(api.get(BUY_AGAIN, params={"user_id": 1, "limit": 0}), "limit")
    assert_refused(api.get(BUY_AGAIN, params={"user_id": 1, "exclude": ""}), "exclude")


@pytest.mark.parametrize("value", [b"", b"hello", b'{"schema":1}', b'{"products":[]}'])
def test_a_foreign_list_is_told(api, published, value):
    published.client.set(list_key(Family.USER_BUY_AGAIN, 1), value)
    assert_publish_again(api.get(BUY_AGAIN, params={"user_id": 1}))


def test_a_list_of_a_newer_schema_is_told(api, published):
    published.buy_again(1, repeat(7))
    key = list_key(Family.USER_BUY_AGAIN, 1)
    published.client.set(key, published.client.get(key).replace(b'"schema":1', b'"schema":2'))
    response = api.get(BUY_AGAIN, params={"user_id": 1})
    assert response.status_code == 503
    assert "schema 2" in response.json()["detail"]
