"""Mass writes to Redis, about as fast as ``redis-cli --pipe`` makes them.

Commands are packed here, for a client library's work on each costs more than Redis' own, and sent
in batches of bounded size, in a cluster to all its nodes at once. Every reply is read. What a slot
that moves or a connection that breaks left undone is sent again: each write replaces a whole key,
so that it may well happen twice. Whatever else Redis answers ends the work.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import islice
from time import sleep
from typing import Any, NamedTuple, TypeVar

from redis import Redis, RedisCluster
from redis.cluster import ClusterNode
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    MovedError,
    RedisClusterException,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from recsys_assets.publish.redis_client import Client, unavailable

Progress = Callable[[int], object]

BATCH = 500
BATCH_BYTES = 2**20
SCANNED = 1_000
"""Keys or fields that Redis looks through at once: it answers nobody else for the half millisecond
that this takes."""

_PAUSES = (0, 0.5, 2)  # seconds before each attempt after the first; connecting has its own
_PASSING = (
    ConnectionError,
    TimeoutError,
    MovedError,
    AskError,
    TryAgainError,
    ClusterDownError,
    MasterDownError,
    RedisClusterException,
)
_ASKING = b"*1\r\n$6\r\nASKING\r\n"

_Item = TypeVar("_Item")


class Write(NamedTuple):
    """The commands that replace one key, as they are sent, and how many replies they bring.

    ``asked`` are host and port of the node to ask while the key's slot moves there.
    """

    key: str
    packed: bytes
    replies: int
    asked: tuple[str, int] | None = None


class Failure(NamedTuple):
    """A write that Redis did not confirm, and why."""

    write: Write
    error: Exception


def string_write(key: str, value: bytes) -> Write:
    """SET ``key``."""
    name = key.encode()
    packed = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
    return Write(key, packed % (len(name), name, len(value), value), replies=1)


def sorted_set_write(key: str, members: Mapping[str, float]) -> Write:
    """Replace a sorted set by ``members`` and their scores, in a transaction of DEL and ZADD."""
    words: list[str] = []
    for member, score in members.items():
        number = repr(score)
        size = len(member) if member.isascii() else len(member.encode())
        words += (_length(len(number)), number, _length(size), member)
    return _replacement("ZADD", key, 2 * len(members), "".join(words).encode())


def hash_write(key: str, fields: Mapping[str, bytes]) -> Write:
    """Replace a hash by ``fields`` and their values, in a transaction of DEL and HSET."""
    words: list[bytes] = []
    for field, value in fields.items():
        name = field.encode()
        words += (_length(len(name)).encode(), name, _length(len(value)).encode(), value)
    return _replacement("HSET", key, 2 * len(fields), b"".join(words))


def set_write(key: str, members: Collection[str]) -> Write:
    """Replace a set by ``members``, in a transaction of DEL and SADD; no members: DEL alone."""
    if not members:
        name = f"{_length(len(key.encode()))}{key}"
        return Write(key, f"*2\r\n$3\r\nDEL{name}\r\n".encode(), replies=1)
    words = [f"{_length(len(member.encode()))}{member}" for member in members]
    return _replacement("SADD", key, len(members), "".join(words).encode())


def _replacement(command: str, key: str, arguments: int, packed: bytes) -> Write:
    """DEL of a key, and a command that fills it anew, in one transaction."""
    name = f"{_length(len(key.encode()))}{key}"
    before = (
        f"*1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nDEL{name}\r\n*{2 + arguments}\r\n$4\r\n{command}{name}"
    )
    return Write(key, before.encode() + packed + b"\r\n*1\r\n$4\r\nEXEC\r\n", replies=4)


@cache
def _length(size: int) -> str:
    """What stands between a word and the next one, of ``size`` bytes."""
    return f"\r\n${size}\r\n"


def write_all(client: Client, writes: Iterable[Write], progress: Progress = lambda _: None) -> int:
    """Carry out all writes; returns how many. ``progress`` is told the number carried out.

    Raises :class:`RedisUnavailableError` when Redis refuses one, with Redis' own words.
    """
    written = 0
    for batch in in_batches(writes):
        write_batch(client, batch)
        written += len(batch)
        progress(written)
    return written


def in_batches(writes: Iterable[Write]) -> Iterator[list[Write]]:
    """Batches of up to ``BATCH`` writes, each complete once it has ``BATCH_BYTES``."""
    batch: list[Write] = []
    size = 0
    for write in writes:
        batch.append(write)
        size += len(write.packed)
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write_batch(client: Client, batch: list[Write]) -> None:
    """Carry out every write, some of them twice if need be; errors as :func:`write_all`."""
    failures = _attempt(client, batch)
    for pause in _PAUSES:
        if not failures or not all(isinstance(error, _PASSING) for _, error in failures):
            break
        sleep(pause)
        failures = _attempt(client, [_redirected(*failure) for failure in failures], again=True)
    if not failures:
        return
    write, error = min(failures, key=lambda failure: isinstance(failure.error, _PASSING))
    raise unavailable(f"did not write {write.key}", error) from error


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of up to ``size`` items, in order (``itertools.batched`` comes with Python 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _redirected(write: Write, error: Exception) -> Write:
    return write._replace(asked=error.node_addr if isinstance(error, AskError) else None)


def _attempt(client: Client, writes: list[Write], *, again: bool = False) -> list[Failure]:
    """Send all, then read all replies; returns what was not confirmed."""
    try:
        if again and isinstance(client, RedisCluster):
            client.nodes_manager.initialize()
        shares = _shares(client, writes)
        with ExitStack() as stack:
            connections = [stack.enter_context(_borrowed(node)) for node in shares]
            for connection, share in zip(connections, shares.values(), strict=True):
                parts = [_ASKING + w.packed if w.asked else w.packed for w in share]
                connection.send_packed_command([b"".join(parts)])
            return [
                Failure(write, error)
                for connection, share in zip(connections, shares.values(), strict=True)
                for write in share
                if (error := _first_error(connection, write.replies + bool(write.asked)))
            ]
    except _PASSING as error:
        return [Failure(write, error) for write in writes]


def _shares(client: Client, writes: list[Write]) -> dict[Redis, list[Write]]:
    """The writes by the node that holds their keys."""
    if not isinstance(client, RedisCluster):
        return {client: writes}
    cluster: Any = client  # whose methods have no types
    shares: dict[ClusterNode, list[Write]] = defaultdict(list)
    for write in writes:
        if write.asked:  # maybe a node that has no slot yet, which the client does not know
            node = cluster.get_node(*write.asked)
            node = node or ClusterNode(*write.asked)  # type: ignore[no-untyped-call]
        else:
            node = cluster.get_node_from_key(write.key)
        shares[node].append(write)
    return {cluster.get_redis_connection(node): share for node, share in shares.items()}


@contextmanager
def _borrowed(node: Redis) -> Iterator[Any]:
    """A connection of the node's pool; closed when the block fails, for replies may be unread."""
    connection: Any = node.connection_pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        node.connection_pool.release(connection)


def _first_error(connection: Any, replies: int) -> ResponseError | None:
    """Read so many replies; the first error in them is the cause of those that follow."""
    errors: list[ResponseError] = []
    for _ in range(replies):
        try:
            reply = connection.read_response(disable_decoding=True)
        except ResponseError as error:
            errors.append(error)
        else:
            if isinstance(reply, list):  # what EXEC brings
                errors += [each for each in reply if isinstance(each, ResponseError)]
    return errors[0] if errors else None
