"""API and publication under the least-privilege users that README.md gives them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from litestar.testing import TestClient

from recsys_assets.settings import Settings
from serving.app import create_app
from serving.contract import (
    Family,
    blocked_key,
    global_top_buys_key,
    publication_key,
    user_top_buys_key,
)
from serving.settings import ServingSettings
from tests.acl import denials, documented, login_of, set_users, url_for
from tests.clusters import redis_cluster
from tests.graphs import Graph, failed_checks
from tests.shops import Order, add_orders, create_shop, day

ORDERS = [Order(n, n % 4, [10 + n % 3, 10 + n % 5, 16], day(1 + n)) for n in range(1, 25)]
GONE = "SELECT id FROM products WHERE name = 'gone'"
ROUTES = [
    "/api/recommendations/top-buys",
    "/api/recommendations/top-buys?user_id=1",
    "/api/recommendations/top-buys?user_id=1&explain=true",
    "/api/recommendations/buy-again?user_id=1",
    "/api/recommendations/bought-together/16",
    "/api/recommendations/bought-together/16?explain=true",
    "/api/recommendations/bought-together?product_id=16&product_id=10&explain=true",
    "/api/explorer/users",
    "/api/explorer/names?product_id=10",
    "/api/explorer/products?search=ten",
    "/health/ready",
    "/metrics",
]


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """The administrator of an empty Redis with the documented users."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        set_users(client, "api", "publisher")
        client.acl_log_reset()
        yield client
        client.acl_deluser(login_of("api")[0], login_of("publisher")[0])


@pytest.fixture
def graph(
    server: redis.Redis, database_url: str, redis_url: str, tmp_path: Path
) -> Iterator[Graph]:
    """The graph of a small shop, which publishes as the documented user."""
    with dg.DagsterInstance.ephemeral() as instance:
        url = url_for("publisher", redis_url)
        settings = Settings(unavailable_products_query=GONE)
        graph = Graph(database_url, url, tmp_path / "artifacts", instance, settings)
        with graph.database() as connection:
            create_shop(connection, ORDERS, names={10: "ten", 16: "sixteen"})
        server.sadd(blocked_key(), 11)
        yield graph


def settings_of(redis_url: str, **more: Any) -> ServingSettings:
    return ServingSettings(redis_url=url_for("api", redis_url), redis_timeout_ms=2000, **more)


def client_of(settings: ServingSettings) -> TestClient[Any]:
    app: Any = create_app(settings)
    return TestClient(app, raise_server_exceptions=False)


def rights(name: str) -> set[str]:
    """The commands that a documented user may give."""
    words = [word for line in documented(name) for word in line]
    return {word.removeprefix("+") for word in words if word.startswith("+")}


def used(server: redis.Redis) -> set[str]:
    """The commands that were given since this was reset."""
    return {name.removeprefix("cmdstat_") for name in server.info("commandstats")}


def assert_answers(settings: ServingSettings) -> None:
    with client_of(settings) as api:
        for route in ROUTES:
            assert api.get(route).status_code == 200, route
        guests = api.get("/api/recommendations/top-buys").json()["products"]
        assert guests
        assert 11 not in [product["product_id"] for product in guests]
        assert api.get("/api/explorer/products?search=ten").json()["products"]


def test_every_right_is_needed_and_no_other(graph: Graph, server: redis.Redis, redis_url: str):
    server.config_resetstat()
    every_pair = {"basket_rules": {"min_orders": 1}, "bought_together": {"min_orders": 1}}
    assert failed_checks(graph.run(config=every_pair)) == {}
    for change in (
        "UPDATE products SET name = 'gone' WHERE id = 10",
        "UPDATE products SET name = 'ten' WHERE id = 10",
        "DELETE FROM products WHERE id = 16",
    ):
        with graph.database() as connection:
            connection.execute(change)
            add_orders(connection, [Order(100 + len(change), 1, [10, 14], day(40))])
        assert graph.refresh().success
        assert graph.run(config=every_pair).success
    assert denials(server) == []
    written_with = used(server)
    server.config_resetstat()
    assert_answers(settings_of(redis_url))
    assert denials(server) == []
    assert rights("api") - used(server) == {"select"}  # of another database than 0
    assert rights("publisher") - written_with - rights("api") == {"command"}  # in clusters
    assert rights("publisher") >= rights("api")  # for recsys show


def test_counters_of_the_rate_limit_are_a_right_of_their_own(
    graph: Graph, server: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
):
    limited = settings_of(redis_url, rate_limit="2/day")
    with client_of(limited) as api:
        assert [api.get(ROUTES[0]).status_code for _ in range(4)] == [200] * 4
        assert caplog.text.count("Redis refuses to count") == 1
        server.acl_log_reset()
        set_users(server, "rate limit")
        assert [api.get(ROUTES[0]).status_code for _ in range(3)] == [200, 200, 429]
    assert denials(server) == []


LISTS = [user_top_buys_key(1), global_top_buys_key(), publication_key(Family.BOUGHT_TOGETHER)]
WRITES: list[Callable[[redis.Redis, str], object]] = [
    lambda client, key: client.set(key, 1),
    lambda client, key: client.delete(key),
    lambda client, key: client.unlink(key),
    lambda client, key: client.expire(key, 1),
    lambda client, key: client.incrby(key, 1),
    lambda client, key: client.rename(key, f"{key}:new"),
    lambda client, key: client.eval("return redis.call('del', KEYS[1])", 1, key),
]


@pytest.mark.parametrize("write", WRITES)
def test_the_api_may_write_no_list(
    server: redis.Redis, redis_url: str, write: Callable[[redis.Redis, str], object]
):
    set_users(server, "rate limit")
    with closing(redis.Redis.from_url(url_for("api", redis_url))) as client:
        for key in LISTS:
            server.set(key, "as it was")
            assert client.get(key) == b"as it was"
            with pytest.raises(redis.exceptions.NoPermissionError):
                write(client, key)
            assert server.get(key) == b"as it was"


@pytest.mark.parametrize("user", ["api", "publisher"])
@pytest.mark.parametrize(
    "command",
    [
        ("GET", "session:1"),
        ("SET", "session:1", "x"),
        ("SADD", "blocked:products", "1"),
        ("DEL", "blocked:products"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("ACL", "LIST"),
        ("EVAL", "return 1", "0"),
        ("SHUTDOWN", "NOSAVE"),
        ("PUBLISH", "channel", "x"),
    ],
)
def test_neither_may_do_what_is_not_theirs(
    server: redis.Redis, redis_url: str, user: str, command: tuple[str, ...]
):
    with (
        closing(redis.Redis.from_url(url_for(user, redis_url))) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*command)


def test_a_wrong_password_is_not_let_in(server: redis.Redis, redis_url: str):
    wrong = url_for("api", redis_url).replace("API-PASSWORD", "other")
    with client_of(ServingSettings(redis_url=wrong)) as api:
        assert api.get(ROUTES[0]).status_code == 503


def test_both_work_in_a_cluster(graph: Graph, tmp_path: Path):
    with redis_cluster(tmp_path / "cluster") as url, closing(redis.Redis.from_url(url)) as node:
        set_users(node, "api", "publisher", "rate limit")
        node.sadd(blocked_key(), 11)
        node.acl_log_reset()
        there = replace(graph, redis_url=url_for("publisher", url))
        assert failed_checks(there.run()) == {}
        assert there.refresh().success
        assert_answers(settings_of(url, rate_limit="1000/day"))
        assert denials(node) == []
