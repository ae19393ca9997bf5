"""What the explorer page asks for: names, a search by name, example users."""

import pytest

from recsys_assets.publish.names import hold_names
from serving.contract import (
    ExampleUsers,
    Family,
    encode_example_users,
    example_users_key,
    names_key,
    search_key,
)
from tests.answers import assert_publish_again, assert_refused

PRODUCTS = "/api/explorer/products"
NAMES = "/api/explorer/names"
USERS = "/api/explorer/users"


def test_nothing_published_is_nothing_found(api):
    assert api.get(PRODUCTS, params={"search": "milk"}).json() == {"products": []}
    assert api.get(NAMES, params={"product_id": 1}).json() == {"names": {}}
    assert api.get(USERS).json() == {"user_ids": []}


def test_products_are_found_by_part_of_their_name(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    hold_names(published.client, {"1": "Oat milk", "2": "Milk", "3": "Milky tea", "4": "Tea"})
    found = api.get(PRODUCTS, params={"search": "MILK"}).json()["products"]
    assert found == [
        {"product_id": 1, "name": "Oat milk"},
        {"product_id": 2, "name": "Milk"},
        {"product_id": 3, "name": "Milky tea"},
    ]
    found = api.get(PRODUCTS, params={"search": "mïlk", "limit": 1}).json()["products"]
    assert found == [{"product_id": 1, "name": "Oat milk"}]
    assert api.get(PRODUCTS, params={"search": "ilk"}).json() == {"products": []}


def test_a_product_whose_name_repeats_a_word_is_found_once(api, published):
    hold_names(published.client, {"a": "Tea for tea", "b": "Tea for two"})
    found = api.get(PRODUCTS, params={"search": "tea", "limit": 2}).json()["products"]
    assert [product["product_id"] for product in found] == ["a", "b"]


def test_what_has_lost_its_name_is_not_found(api, published):
    hold_names(published.client, {"1": "Oat milk", "2": "Milk"})
    published.client.hdel(names_key(), "2")
    found = api.get(PRODUCTS, params={"search": "milk"}).json()["products"]
    assert found == [{"product_id": "1", "name": "Oat milk"}]


def test_names_are_told_of_those_that_have_one(api, published):
    hold_names(published.client, {"1": "Oat milk", "a:b": "<b>&"})
    answer = api.get(NAMES, params={"product_id": ["a:b", "7", "1", "1"]}).json()
    assert answer == {"names": {"a:b": "<b>&", "1": "Oat milk"}}


def test_example_users_keep_their_form(api, published):
    published.client.set(
        example_users_key(), encode_example_users(ExampleUsers(user_ids=[2**62 + 1, "a"]))
    )
    assert api.get(USERS).json() == {"user_ids": [2**62 + 1, "a"]}


@pytest.mark.parametrize("search", ["", "?!", "x" * 101])
def test_a_search_without_letters_or_too_long_is_refused(api, search):
    assert_refused(api.get(PRODUCTS, params={"search": search}), "search")


@pytest.mark.parametrize("ids", [[], [""], ["a\x00"], ["x" * 201], list(range(201))])
def test_bad_ids_are_refused(api, ids):
    assert_refused(api.get(NAMES, params={"product_id": ids}), "product_id")


@pytest.mark.parametrize("limit", ["0", "51", "x"])
def test_a_bad_limit_is_refused(api, limit):
    assert_refused(api.get(PRODUCTS, params={"search": "a", "limit": limit}), "limit")


@pytest.mark.parametrize(
    ("key", "call"),
    [
        (names_key(), f"{NAMES}?product_id=1"),
        (search_key(), f"{PRODUCTS}?search=milk"),
        (example_users_key(), USERS),
    ],
)
def test_foreign_values_are_told(api, published, key, call):
    published.client.set(key, "hello")
    assert_publish_again(api.get(call))
