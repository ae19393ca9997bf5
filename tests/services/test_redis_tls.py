"""API and publication over TLS, with the users of README.md."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import redis
from litestar.testing import TestClient

from recsys_assets.publish.redis_client import RedisUnavailableError, connect
from serving.app import create_app
from serving.contract import Family
from serving.settings import ServingSettings
from tests.acl import login_of, set_users, url_for
from tests.published import Publisher
from tests.tls import Certificate, make_certificate, tls_in_front_of

TOP_BUYS = "/api/recommendations/top-buys?user_id=1"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Certificate]:
    """That of the server, and one of somebody else."""
    folder = tmp_path_factory.mktemp("certificates")
    return make_certificate(folder, "redis"), make_certificate(folder, "stranger")


@pytest.fixture
def port(redis_url: str, certificates: tuple[Certificate, Certificate]) -> Iterator[int]:
    """The port of an empty Redis that speaks TLS and has the documented users."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        set_users(client, "api", "publisher")
        with tls_in_front_of(path_of(redis_url), certificates[0]) as port:
            yield port
        client.acl_deluser(login_of("api")[0], login_of("publisher")[0])


def path_of(redis_url: str) -> str:
    return unquote(urlsplit(redis_url).path)


def url(user: str, port: int, trusted: Path, host: str = "localhost") -> str:
    return url_for(user, f"rediss://{host}:{port}/0?ssl_ca_certs={trusted}")


def api_at(url: str) -> TestClient[Any]:
    app: Any = create_app(ServingSettings(redis_url=url, redis_timeout_ms=2000))
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_lists_are_written_and_read_over_tls(
    port: int, certificates: tuple[Certificate, Certificate], host: str
):
    trusted = certificates[0].file
    with closing(connect(url("publisher", port, trusted, host))) as client:
        assert isinstance(client, redis.Redis)
        published = Publisher(client)
        published.top_buys(1, 7, 8)
        published.record(Family.USER_TOP_BUYS)
    with api_at(url("api", port, trusted, host)) as api:
        products = api.get(TOP_BUYS).json()["products"]
        assert [product["product_id"] for product in products] == [7, 8]


def test_a_certificate_of_an_unknown_authority_is_refused(
    port: int, certificates: tuple[Certificate, Certificate]
):
    stranger = certificates[1].file
    with pytest.raises(RedisUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(url("publisher", port, stranger))
    with api_at(url("api", port, stranger)) as api:
        assert api.get(TOP_BUYS).status_code == 503


def test_a_certificate_of_another_host_is_refused(redis_url: str, tmp_path: Path):
    elsewhere = make_certificate(tmp_path, "elsewhere", "IP:127.0.0.2")
    with tls_in_front_of(path_of(redis_url), elsewhere) as port:
        asked = url("api", port, elsewhere.file, "127.0.0.1")
        with pytest.raises(RedisUnavailableError, match="IP address mismatch"):
            connect(asked)
        with api_at(asked) as api:
            assert api.get(TOP_BUYS).status_code == 503


def test_plain_redis_is_not_taken_for_tls(port: int, certificates: tuple[Certificate, Certificate]):
    plain = url("api", port, certificates[0].file).replace("rediss://", "redis://")
    with api_at(plain.partition("?")[0]) as api:
        assert api.get(TOP_BUYS).status_code == 503
