"""The API in this process, over a real Redis."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from serving.contract import (
    Family,
    bought_together_key,
    global_top_buys_key,
    publication_key,
)
from tests.answers import (
    BOUGHT_TOGETHER,
    BUY_AGAIN,
    TOP_BUYS,
    assert_publish_again,
    assert_refused,
    metrics_of,
    products_of,
    round_trips,
)
from tests.published import THROUGH

EARLIER, LATER, LATEST = (THROUGH + timedelta(hours=n) for n in (-1, 1, 2))
UUID = "0b5f3c1e-7c3e-4a52-9d7b-0d2f0c3a9e11"


# Top Buys


def test_a_known_user_gets_the_personal_list(api, published):
    published.top_buys(123, 7, 8)
    published.top_buys(None, 1, 2)
    published.record(Family.USER_TOP_BUYS)
    response = api.get(TOP_BUYS, params={"user_id": 123})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "user_id": 123,
        "source": "personal",
        "model_version": "als-7",
        "generated_at": "2025-03-01T03:00:00Z",
        "orders_through": "2025-03-01T02:59:00Z",
        "products": [{"product_id": 7, "score": 1.0}, {"product_id": 8, "score": 0.5}],
    }


@pytest.mark.parametrize(("user_id", "shown"), [("999", 999), ("nobody", "nobody")])
def test_an_unknown_user_gets_the_global_list(api, published, user_id, shown):
    published.top_buys(123, 7, 8)
    published.top_buys(None, 1, 2)
    published.record(Family.USER_TOP_BUYS)
    body = api.get(TOP_BUYS, params={"user_id": user_id}).json()
    assert (body["user_id"], body["source"], products_of(body)) == (shown, "global", [1, 2])


def test_a_guest_gets_the_global_list(api, published):
    published.top_buys(None, 1, 2)
    body = api.get(TOP_BUYS).json()
    assert (body["user_id"], body["source"], products_of(body)) == (None, "global", [1, 2])


@pytest.mark.parametrize(
    ("params", "family"),
    [
        ({"user_id": 123}, Family.USER_TOP_BUYS),
        ({"user_id": 999}, Family.GLOBAL_TOP_BUYS),  # who has no list
        ({}, Family.GLOBAL_TOP_BUYS),
    ],
)
@pytest.mark.parametrize(
    ("model_version", "orders_through", "told"),
    [
        ("als-7", LATER, LATER),  # no order has come to this list since it was made
        ("als-7", THROUGH, THROUGH),
        ("als-7", EARLIER, THROUGH),  # the list is written, the record not yet
        ("als-7", None, THROUGH),
        ("als-6", LATER, THROUGH),  # the list is of a publication that has not finished
    ],
)
def test_a_list_left_as_it_is_knows_the_orders_that_the_record_knows(
    api, published, params, family, model_version, orders_through, told
):
    published.top_buys(123, 7, 8)
    published.top_buys(None, 1, 2)
    for each in (Family.USER_TOP_BUYS, Family.GLOBAL_TOP_BUYS):
        same = each is family
        published.record(
            each,
            model_version=model_version if same else "als-7",
            orders_through=orders_through if same else LATEST,
        )
    body = api.get(TOP_BUYS, params=params).json()
    assert datetime.fromisoformat(body["orders_through"]) == told


@pytest.mark.parametrize("params", [{}, {"user_id": "5"}])
def test_before_any_publication_the_list_is_empty(api, params):
    response = api.get(TOP_BUYS, params=params)
    assert response.status_code == 200
    assert response.json() == {
        "user_id": params.get("user_id"),
        "source": "global",
        "model_version": None,
        "generated_at": None,
        "orders_through": None,
        "products": [],
    }


@pytest.mark.parametrize("user_id", [UUID, "kunde-ä/7", "007", "a b:c*{d}"])
def test_text_ids_come_back_as_text(api, published, user_id):
    published.top_buys(user_id, UUID, "sku-1", "42")
    published.record(Family.USER_TOP_BUYS, "text")
    body = api.get(TOP_BUYS, params={"user_id": user_id}).json()
    assert (body["user_id"], body["source"]) == (user_id, "personal")
    assert products_of(body) == [UUID, "sku-1", "42"]


def test_the_list_is_cut_to_the_limit_after_the_exclusions(api, published):
    published.top_buys(1, *range(100, 200))
    assert products_of(api.get(TOP_BUYS, params={"user_id": 1}).json()) == [*range(100, 110)]
    params = {"user_id": 1, "limit": 3, "exclude": ["100", "102", "9999"]}
    assert products_of(api.get(TOP_BUYS, params=params).json()) == [101, 103, 104]
    assert len(products_of(api.get(TOP_BUYS, params={"user_id": 1, "limit": 100}).json())) == 100


# Bought Together


def test_products_come_strongest_first(api, published):
    published.bought_together(5, 7, 8, 9)
    published.record(Family.BOUGHT_TOGETHER)
    response = api.get(f"{BOUGHT_TOGETHER}5/")
    assert response.status_code == 200
    assert response.json() == {
        "product_id": 5,
        "source": "product",
        "model_version": "rules-3",
        "generated_at": "2025-03-01T03:00:00Z",
        "orders_through": None,
        "products": [
            {"product_id": 7, "strength": 8.0},
            {"product_id": 8, "strength": 4.0},
            {"product_id": 9, "strength": 8.0 / 3},
        ],
    }


def test_an_unknown_product_has_an_empty_list(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    response = api.get(f"{BOUGHT_TOGETHER}5/")
    assert response.status_code == 200
    body = response.json()
    assert (body["product_id"], body["model_version"], body["products"]) == (5, "rules-3", [])


def test_before_the_first_publication_has_finished_there_is_nothing(api, published):
    published.bought_together(5, 7)
    response = api.get(f"{BOUGHT_TOGETHER}5/")
    assert response.status_code == 200
    assert (response.json()["model_version"], response.json()["products"]) == (None, [])


def test_exclusions_are_made_up_for(api, published):
    published.bought_together(5, *range(100, 150))
    published.record(Family.BOUGHT_TOGETHER)
    params = {"limit": 3, "exclude": ["100", "101", "149"]}
    body = api.get(f"{BOUGHT_TOGETHER}5/", params=params).json()
    assert products_of(body) == [102, 103, 104]


@pytest.mark.parametrize("path", ["sku%2F1", "sku%2F1/", "sku/1"])
def test_a_product_id_may_have_a_slash(api, published, path):
    published.bought_together("sku/1", UUID, "42")
    published.record(Family.BOUGHT_TOGETHER, "text")
    body = api.get(BOUGHT_TOGETHER + path).json()
    assert (body["product_id"], products_of(body)) == ("sku/1", [UUID, "42"])


@pytest.mark.parametrize("path", [TOP_BUYS, f"{BOUGHT_TOGETHER}5/", "/health/live/", "/schema/"])
def test_a_final_slash_makes_no_difference(api, path):
    assert api.get(path).status_code == 200
    assert api.get(path.rstrip("/")).status_code == 200


# Refused


@pytest.mark.parametrize("limit", ["0", "-1", "101", "10.5", "ten", "", "9" * 40])
@pytest.mark.parametrize("path", [TOP_BUYS, f"{BOUGHT_TOGETHER}5/"])
def test_a_bad_limit_is_refused(api, path, limit):
    assert_refused(api.get(path, params={"limit": limit}), "limit")


@pytest.mark.parametrize("limit", [1, 100])
@pytest.mark.parametrize("path", [TOP_BUYS, f"{BOUGHT_TOGETHER}5/"])
def test_the_bounds_of_the_limit_are_allowed(api, path, limit):
    assert api.get(path, params={"limit": limit}).status_code == 200


@pytest.mark.parametrize("bad", ["", "x" * 201, "a%0D%0Ab", "a%00", "%E2%80%AE"])
def test_a_bad_id_is_refused_by_the_name_of_its_parameter(api, bad):
    assert_refused(api.get(f"{TOP_BUYS}?user_id={bad}"), "user_id")
    assert_refused(api.get(f"{TOP_BUYS}?exclude=1&exclude={bad}"), "exclude")
    assert_refused(api.get(f"{BOUGHT_TOGETHER}5/?exclude={bad}"), "exclude")
    if bad:
        assert_refused(api.get(f"{BOUGHT_TOGETHER}{bad}/"), "product_id")


@pytest.mark.parametrize("odd", ["%ff", "%", "%zz", "%2e%2e", "&&=", "1;2", "[]", "%F0%9F%9B%92"])
def test_odd_input_is_never_a_failure_of_the_server(api, odd):
    for path in [f"{TOP_BUYS}?user_id={odd}", f"{TOP_BUYS}?{odd}", f"{BOUGHT_TOGETHER}{odd}/"]:
        assert api.get(path).status_code in {200, 400, 404}


def test_an_unknown_path_is_a_problem(api):
    for path in ["/nothing", "/api/recommendations/", f"{TOP_BUYS}1/"]:
        response = api.get(path)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["title"] == "Not Found"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_another_method_is_a_problem_that_names_those_allowed(api, method):
    response = api.request(method, TOP_BUYS)
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert "GET" in response.headers["allow"]


# Foreign values


@pytest.mark.parametrize("value", [b"", b"hello", b'{"schema":1}', b"\xff"])
def test_a_foreign_list_is_told_and_logged(api, published, value, caplog):
    published.client.set(global_top_buys_key(), value)
    assert_publish_again(api.get(TOP_BUYS))
    assert "publish again" in caplog.text


def test_a_list_of_a_newer_schema_is_told(api, published):
    published.top_buys(None, 1)
    newer = published.client.get(global_top_buys_key()).replace(b'"schema":1', b'"schema":2')
    published.client.set(global_top_buys_key(), newer)
    response = api.get(TOP_BUYS)
    assert response.status_code == 503
    assert "schema 2" in response.json()["detail"]


def test_a_value_of_another_type_is_told(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    published.client.set(bought_together_key(5), "a string")
    assert_publish_again(api.get(f"{BOUGHT_TOGETHER}5/"))
    published.client.lpush(global_top_buys_key(), "a list")
    assert_publish_again(api.get(TOP_BUYS))


def test_a_member_of_another_kind_is_told(api, published):
    published.bought_together(5, "sku-7")
    published.record(Family.BOUGHT_TOGETHER, "integer")
    assert_publish_again(api.get(f"{BOUGHT_TOGETHER}5/"))


def test_a_foreign_publication_record_makes_the_service_not_ready(api, published):
    published.client.set(publication_key(Family.USER_TOP_BUYS), "hello")
    assert_publish_again(api.get("/health/ready"))


# Health, metrics


def test_readiness_tells_what_is_published(api, published):
    published.record(Family.BOUGHT_TOGETHER)
    families = api.get("/health/ready").json()["families"]
    assert families["bought_together"]["model_version"] == "rules-3"
    assert families["user_top_buys"] is None
    assert families["global_top_buys"] is None


def test_metrics_count_what_was_served(api, published):
    published.top_buys(None, 1)
    published.record(Family.BOUGHT_TOGETHER)
    api.get(TOP_BUYS)
    before = metrics_of(api)
    for path in [TOP_BUYS, TOP_BUYS, f"{TOP_BUYS}?limit=0", f"{BOUGHT_TOGETHER}5/", "/a", "/b"]:
        api.get(path)
    after = metrics_of(api)

    def grown(series: str) -> float:
        return after[series] - before.get(series, 0.0)

    top_buys = 'method="GET",route="/api/recommendations/top-buys"'
    assert grown(f'recsys_http_requests_total{{{top_buys},status="200"}}') == 2
    assert grown(f'recsys_http_requests_total{{{top_buys},status="400"}}') == 1
    unrouted = 'recsys_http_requests_total{method="GET",route="unrouted",status="404"}'
    assert grown(unrouted) == 2
    latency = 'recsys_http_request_seconds_count{route="/api/recommendations/top-buys"}'
    assert grown(latency) == 3
    assert grown('recsys_recommendations_total{list="top_buys",source="global"}') == 2
    assert grown('recsys_recommendations_total{list="bought_together",source="empty"}') == 1
    assert round_trips(before, after) == 3


# OpenAPI and the pages


@pytest.fixture
def document(api) -> dict[str, Any]:
    response = api.get("/schema/openapi.json")
    assert response.status_code == 200
    return response.json()


def test_the_document_describes_every_parameter_and_answer(document):
    assert document["openapi"].startswith("3.1")
    operations = {
        path: item["get"] for path, item in document["paths"].items() if path.startswith("/api/")
    }
    assert set(operations) == {
        TOP_BUYS.rstrip("/"),
        BUY_AGAIN.rstrip("/"),
        BOUGHT_TOGETHER.rstrip("/"),
        f"{BOUGHT_TOGETHER}{{product_id}}",
        *(f"/api/explorer/{name}" for name in ("names", "products", "users")),
    }
    for operation in operations.values():
        assert operation["description"]
        assert {"200", "400", "401", "429", "503"} == set(operation["responses"])
        for parameter in operation.get("parameters", []):
            assert parameter["description"]
        for status, response in operation["responses"].items():
            ((media, content),) = response["content"].items()
            assert media == ("application/json" if status == "200" else "application/problem+json")
            assert content["examples"]


def test_every_reference_in_the_document_is_resolved(document):
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        node = document
        for name in reference.split("/"):
            node = node[name]
        assert node["type"]


@pytest.mark.parametrize("path", ["/", "/schema", "/static/style.css", "/static/reference.js"])
def test_the_pages_fetch_nothing_from_elsewhere(api, path):
    response = api.get(path)
    assert response.status_code == 200
    assert "://" not in response.text
    assert not re.findall(r"""(?:src|href|url\()\s*=?\s*["']?//""", response.text)
    for link in re.findall(r'(?:href|src)="(/[^"]*)"', response.text):
        assert api.get(link.replace("&amp;", "&")).status_code == 200, link


def test_the_start_page_leads_to_everything(api):
    response = api.get("/")
    assert response.headers["content-type"].startswith("text/html")
    for link in ["/schema", "/health/ready", "/health/live", "/metrics", TOP_BUYS]:
        assert f'href="{link}"' in response.text
