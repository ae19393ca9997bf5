"""RECSYS_API_STALE_GUESTS: what is served, and told, of the guests' list while Redis is away."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from litestar import Litestar
from litestar.testing import TestClient

from serving import stale
from serving.app import create_app
from serving.contract import Family, global_top_buys_key
from serving.settings import ServingSettings
from tests.answers import TOP_BUYS, products_of
from tests.clusters import Server, until
from tests.published import Publisher
from tests.serving_processes import free_port

READY = "/health/ready"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis of this test's own, which forgets all when it is killed."""
    server = Server(tmp_path / "redis", free_port(), "--save", "")
    server.start()
    yield server
    server.kill()


def publish(server: Server) -> None:
    with closing(redis.Redis.from_url(server.url)) as client:
        publisher = Publisher(client)
        publisher.top_buys(None, 1, 2)
        publisher.record(Family.USER_TOP_BUYS)
        publisher.record(Family.GLOBAL_TOP_BUYS)


def api_over(server: Server, *, stale_guests: bool = True) -> TestClient[Litestar]:
    app = create_app(
        ServingSettings(redis_url=server.url, redis_timeout_ms=500, stale_guests=stale_guests)
    )
    return TestClient(app)


def test_a_user_is_told_as_before(server: Server):
    publish(server)
    with api_over(server) as api:
        fresh = api.get(f"{TOP_BUYS}?user_id=5").json()
        server.kill()
        answer = api.get(f"{TOP_BUYS}?user_id=5").json()
    assert answer["user_id"] == 5
    assert answer == fresh | {"stale": True}


def test_who_can_serve_what_was_known_is_ready_and_says_so(server: Server):
    publish(server)
    with api_over(server) as api:
        fresh = api.get(READY).json()
        assert "stale" not in fresh
        server.kill()
        answer = api.get(READY)
        assert answer.status_code == 200
        assert answer.json()["status"] == "ready"
        assert answer.json()["stale"] is True
        families = answer.json()["families"]
        for family, record in fresh["families"].items():
            told = families[family]
            assert (told and told["finished_at"]) == (record and record["finished_at"])
        server.start()
        until(lambda: "stale" not in api.get(READY).json())


@pytest.mark.parametrize(("stale_guests", "published"), [(True, False), (False, True)])
def test_who_can_serve_nothing_is_not_ready(server: Server, stale_guests: bool, published: bool):
    if published:
        publish(server)
    with api_over(server, stale_guests=stale_guests) as api:
        assert api.get(READY).status_code == 200
        server.kill()
        for path in (READY, TOP_BUYS):
            assert api.get(path).status_code == 503


def test_the_document_tells_of_it(server: Server):
    with api_over(server) as api:
        document = api.get("/schema/openapi.json").json()
    assert "stale" in document["components"]["schemas"]["Readiness"]["properties"]
    assert "stale" not in document["components"]["schemas"]["Readiness"]["required"]


def test_a_list_that_cannot_be_read_is_remembered_once_it_can(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stale, "REFRESH_SECONDS", 0.01)
    publish(server)
    with closing(redis.Redis.from_url(server.url)) as client, api_over(server) as api:

        def gets() -> int:
            calls: int = client.info("commandstats")["cmdstat_get"]["calls"]
            return calls

        def store(value: bytes) -> None:
            """Change the guests' list, and wait until it has been read some times."""
            client.set(global_top_buys_key(), value)
            before = gets()
            until(lambda: gets() > before + 50)

        good = client.get(global_top_buys_key())
        store(good.replace(b"als-7", b"\xff"))
        store(good.replace(b'"product_id":1,', b'"product_id":99,'))
        server.kill()
        assert products_of(api.get(TOP_BUYS).json()) == [99, 2]


def test_what_is_stale_is_kept_nowhere(server: Server):
    publish(server)
    with api_over(server) as api:
        assert "max-age" in api.get(TOP_BUYS).headers["cache-control"]
        server.kill()
        for query in ("", "?user_id=5", "?explain=true"):
            assert api.get(TOP_BUYS + query).headers["cache-control"] == "no-store"
