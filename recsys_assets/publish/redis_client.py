"""The connection to Redis, and what to do when it cannot be reached or refuses us."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis, RedisCluster, RedisError
from redis.cluster import ClusterNode
from redis.connection import SSLConnection, parse_url
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
)
from redis.sentinel import Sentinel

from serving.redis.url import RedisUrl

Client = Redis | RedisCluster

# These have no types.
_ClusterNode: Any = ClusterNode
_Sentinel: Any = Sentinel
_parse_url: Any = parse_url

_TIMEOUTS: Any = {"socket_connect_timeout": 5, "socket_timeout": 60}  # in seconds

_ADVICE: dict[type[Exception], str] = {
    OutOfMemoryError: "Raise its maxmemory, or publish shorter lists",
    ReadOnlyError: "RECSYS_REDIS_URL must lead to the primary, not to a replica",
    NoPermissionError: "Permit it to the user that RECSYS_REDIS_URL names",
}
_OTHERWISE = "Check that it runs, what its log says, and that RECSYS_REDIS_URL is right"


class RedisUnavailableError(RuntimeError):
    """Redis cannot be reached or refuses us: what it said, and what to do."""


def connect(url: str) -> Client:
    """A client of the server at ``url``, of the cluster that it is a node of, or of the primary.

    The last is that of the sentinels in ``url``, whichever server that is at the time.

    Raises :class:`RedisUnavailableError`.
    """
    try:
        return _connected(RedisUrl.parse(url))
    except (RedisError, RedisClusterException, ValueError) as error:  # the last: a malformed URL
        raise RedisUnavailableError(
            f"Redis cannot be reached: {error}. Check that it runs and that RECSYS_REDIS_URL is"
            " right."
        ) from error


def _connected(url: RedisUrl) -> Client:
    if url.kind == "cluster":
        return _cluster(url)
    client = _primary(url) if url.kind == "sentinel" else Redis.from_url(url.plain, **_TIMEOUTS)
    client.ping()
    if not client.info("cluster").get("cluster_enabled"):
        return client
    client.close()
    return RedisCluster.from_url(url.plain, **_TIMEOUTS)


def _cluster(url: RedisUrl) -> RedisCluster:
    """The cluster that those of the nodes in ``url`` tell of that are there."""
    nodes = [_ClusterNode(host, port) for host, port in url.addresses]
    return RedisCluster(startup_nodes=nodes, **_options(url))


def _primary(url: RedisUrl) -> Redis:
    """The server that the sentinels in ``url`` say is the primary, asked at every connection."""
    sentinels = _Sentinel(url.addresses, sentinel_kwargs={**_TIMEOUTS, **url.sentinel_options})
    client: Redis = sentinels.master_for(url.service, **_options(url))
    return client


def _options(url: RedisUrl) -> dict[str, Any]:
    """Redis-py's options for every server, from those of the URL."""
    options = dict(_parse_url(url.plain))
    secure = options.pop("connection_class", None) is SSLConnection
    for part in ("host", "port"):
        options.pop(part, None)
    return {**_TIMEOUTS, **options, "ssl": secure}


def unavailable(what: str, error: Exception) -> RedisUnavailableError:
    """The error for people: ``what`` was not done, what Redis said of it, and what to do."""
    advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), _OTHERWISE)
    return RedisUnavailableError(f"Redis {what}: {str(error).rstrip('.')}. {advice}.")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise what redis-py raises in the block as :class:`RedisUnavailableError`."""
    try:
        yield
    except (RedisError, RedisClusterException) as error:
        raise unavailable(what, error) from error
