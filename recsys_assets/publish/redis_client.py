"""The connection to Redis, and what to do when it cannot be reached or refuses us."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis, RedisCluster, RedisError
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
)

Client = Redis | RedisCluster

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
    """A client of the server at ``url``, or of the cluster that it is a node of.

    Raises :class:`RedisUnavailableError`.
    """
    try:
        client = Redis.from_url(url, **_TIMEOUTS)
        client.ping()
        if not client.info("cluster").get("cluster_enabled"):
            return client
        client.close()
        return RedisCluster.from_url(url, **_TIMEOUTS)
    except (RedisError, RedisClusterException, ValueError) as error:  # the last: a malformed URL
        raise RedisUnavailableError(
            f"Redis cannot be reached: {error}. Check that it runs and that RECSYS_REDIS_URL is"
            " right."
        ) from error


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
