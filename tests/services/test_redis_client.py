"""Connecting to Redis, and what is told when that fails."""

from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from recsys_assets.local.redis import RedisServer
from recsys_assets.publish.redis_client import RedisUnavailableError, connect
from tests.clusters import redis_cluster


def test_the_right_client_is_made(redis_url: str, tmp_path: Path) -> None:
    with closing(connect(redis_url)) as single:
        assert isinstance(single, redis.Redis)
    with redis_cluster(tmp_path / "redis") as url, closing(connect(url)) as cluster:
        assert isinstance(cluster, redis.RedisCluster)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@127.0.0.1:1",
        "unix:///nowhere/redis.sock?password=secret",
        "127.0.0.1:6379",
        "redis://:secret@127.0.0.1:port",
    ],
)
def test_a_server_that_is_not_there_is_told(url: str) -> None:
    with pytest.raises(RedisUnavailableError, match=r"cannot be reached: .* RECSYS_REDIS_URL") as e:
        connect(url)
    assert "secret" not in str(e.value)


def test_a_server_that_refuses_us_is_told(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", options={"maxclients": "20"})
    with server.in_use():
        with redis.Redis.from_url(server.url) as admin:
            admin.acl_setuser("shop", enabled=True, passwords=["+secret"], commands=["+get"])
        socket_path = quote(str(server.socket_folder / "redis.sock"))
        for login in ("username=shop&password=secret", "username=shop&password=wrong-secret"):
            with pytest.raises(RedisUnavailableError, match="RECSYS_REDIS_URL") as raised:
                connect(f"unix://{socket_path}?{login}")
            assert "secret" not in str(raised.value)


def test_a_cluster_without_slots_is_told(tmp_path: Path) -> None:
    with (
        redis_cluster(tmp_path / "redis", slots=False) as url,
        pytest.raises(RedisUnavailableError, match=r"slots .* RECSYS_REDIS_URL"),
    ):
        connect(url)
