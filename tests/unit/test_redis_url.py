"""What the URLs of a Redis mean."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.redis.url import RedisUrl, server_url


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:1/2?protocol=3",
        "rediss://user:p%40ss@h:1/0?ssl_cert_reqs=none",
        "redis://[::1]:6379",
        "unix:///run/redis.sock?db=1&password=x",
        "unix://user:x@/run/redis.sock",
    ],
)
def test_one_server_is_what_redis_py_takes(url: str):
    assert RedisUrl.parse(url) == ("server", url, (), "", {})
    assert RedisUrl.parse(url).servers == (url,)


def test_a_cluster_names_some_of_its_nodes():
    url = RedisUrl.parse("rediss+cluster://u:p@one:7000,[::1]:7001,three?ssl_ca_certs=/ca.pem")
    assert url.kind == "cluster"
    assert url.addresses == (("one", 7000), ("::1", 7001), ("three", 6379))
    assert url.servers == (
        "rediss://u:p@one:7000/?ssl_ca_certs=%2Fca.pem",
        "rediss://u:p@[::1]:7001/?ssl_ca_certs=%2Fca.pem",
        "rediss://u:p@three:6379/?ssl_ca_certs=%2Fca.pem",
    )


def test_sentinels_know_a_primary_by_its_service():
    url = RedisUrl.parse("redis+sentinel://u:p@s1,s2:5000/shop/3?sentinel_password=x&protocol=2")
    assert (url.kind, url.service) == ("sentinel", "shop")
    assert url.addresses == (("s1", 26379), ("s2", 5000))
    assert url.at("10.0.0.7", 6380) == "redis://u:p@10.0.0.7:6380/3?protocol=2"
    assert url.sentinel_options == {"password": "x"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:6379",
        "http://h",
        "redis+other://h",
        "redis://h:port",
        "redis://h:0",
        "redis://a,b",
        "redis://[::1",
        "redis+cluster://",
        "redis+cluster://a,,b",
        "redis+cluster://a:port",
        "redis+cluster://a:99999",
        "redis+cluster://a:0",
        "redis+cluster://a/service",
        "redis+sentinel://s1,s2",
        "redis+sentinel://s1/service/first",
        "redis+sentinel://[::1/service",
    ],
)
def test_what_is_no_url_of_a_redis_is_told_with_examples(url: str):
    with pytest.raises(ValueError, match=r"such are redis://"):
        RedisUrl.parse(url)


def test_a_secret_is_not_told():
    with pytest.raises(ValueError, match="such are") as raised:
        RedisUrl.parse("redis+sentinel://user:secret@h")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("like", "url"),
    [
        ("redis://u:p@old:1/0", "redis://u:p@new:2/0"),
        ("redis://old", "redis://new:2"),
        ("unix://u:p@/run/redis.sock?db=0", "redis://u:p@new:2?db=0"),
        ("unix:///run/redis.sock?password=x", "redis://new:2?password=x"),
    ],
)
def test_another_server_is_reached_likewise(like: str, url: str):
    assert server_url(like, "new", 2) == url


hosts = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)
addresses = st.lists(st.tuples(hosts, st.integers(1, 65_535)), min_size=1, max_size=5)


@given(addresses, st.sampled_from(["cluster", "sentinel"]))
def test_addresses_come_back_as_they_were_written(addresses: list[tuple[str, int]], kind: str):
    servers = ",".join(f"{host}:{port}" for host, port in addresses)
    service = "/service" if kind == "sentinel" else ""
    assert RedisUrl.parse(f"redis+{kind}://{servers}{service}").addresses == tuple(addresses)


@given(st.text() | st.text("redis+clusterntl://[]:@,?#/0é", max_size=40))
def test_any_text_is_a_url_or_told(text: str):
    with suppress(ValueError):
        assert RedisUrl.parse(text).servers
