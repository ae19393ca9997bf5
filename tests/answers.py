"""What the API answered: where it is asked, and what its bodies must be."""

from typing import Any

from serving.contract import Id

TOP_BUYS = "/api/recommendations/top-buys/"
BUY_AGAIN = "/api/recommendations/buy-again/"
BOUGHT_TOGETHER = "/api/recommendations/bought-together/"


def products_of(body: dict[str, Any]) -> list[Id]:
    return [product["product_id"] for product in body["products"]]


def assert_refused(response: Any, parameter: str) -> None:
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == 400
    assert body["title"] == "Bad Request"
    assert {error["parameter"] for error in body["errors"]} == {parameter}


def assert_publish_again(response: Any) -> None:
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    assert "publish again" in response.json()["detail"]


def metrics_of(api: Any) -> dict[str, float]:
    response = api.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in samples)}


def round_trips(before: dict[str, float], after: dict[str, float]) -> float:
    """The round trips to Redis between two scrapes, without that of the second scrape itself."""
    series = "recsys_redis_round_trip_seconds_count"
    return after[series] - before[series] - 1
