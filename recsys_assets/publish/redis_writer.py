"""Publication to Redis: whole families of keys, replaced one key at a time, each atomically.

A reader never sees half a list or a moment without one: a string is SET, a sorted set replaced in
MULTI/EXEC. Keys of the family that a publication no longer contains are removed after the new ones
are written, and the record of the publication is written last. Works on a single server and on
Redis Cluster; commands are pipelined in batches of bounded size.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from redis import Redis, RedisCluster, RedisError
from redis.exceptions import RedisClusterException

from recsys_assets.learn.matrix import Ids, positions
from serving import contract
from serving.contract import Family, Publication

Client = Redis | RedisCluster
Progress = Callable[[int], object]

BATCH = 500

_TIMEOUTS: Any = {"socket_connect_timeout": 5, "socket_timeout": 60}  # in seconds

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Edition:
    """What all lists of one publication have in common."""

    model_version: str
    generated_at: datetime
    orders_through: datetime | None


@dataclass(frozen=True)
class Published:
    """Numbers of keys that a publication wrote and removed."""

    keys: int
    removed: int


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


def publish(
    client: Client,
    family: Family,
    edition: Edition,
    items: Iterable[tuple[str, Any]],
    ids: Ids,
    progress: Progress = lambda _: None,
) -> Published:
    """Publish a whole family: write its keys, remove those of ids not in ``ids``, record it.

    ``items`` are (key, JSON) or, for Bought Together, (key, {member: score}); ``ids`` are the
    users or products, ascending. ``progress`` is told the number of keys written.
    """
    write = write_sorted_sets if family is Family.BOUGHT_TOGETHER else write_strings
    keys = write(client, items, progress)
    removed = remove_others(client, family, ids)
    record = Publication(
        family=family,
        model_version=edition.model_version,
        generated_at=edition.generated_at,
        orders_through=edition.orders_through,
        finished_at=datetime.now(UTC),
        keys=keys,
        id_kind="integer" if ids.dtype == np.int64 else "text",
    )
    client.set(contract.publication_key(family), contract.encode_publication(record))
    return Published(keys, removed)


def write_strings(
    client: Client, items: Iterable[tuple[str, bytes]], progress: Progress = lambda _: None
) -> int:
    """SET every (key, value); returns how many. ``progress`` is told the number written."""
    written = 0
    for batch in batched(items, BATCH):
        with client.pipeline(transaction=False) as pipeline:
            for key, value in batch:
                pipeline.set(key, value)
            pipeline.execute()
        written += len(batch)
        progress(written)
    return written


def write_sorted_sets(
    client: Client,
    items: Iterable[tuple[str, Mapping[str, float]]],
    progress: Progress = lambda _: None,
) -> int:
    """Replace every sorted set by its members and scores; returns how many.

    Each key's DEL and ZADD are in one transaction; on a single server a batch of keys is.
    """
    written = 0
    for batch in batched(items, BATCH):
        for group in _one_transaction_each(client, batch):
            with client.pipeline(transaction=True) as pipeline:
                for key, members in group:
                    pipeline.delete(key)
                    pipeline.zadd(key, dict(members))
                pipeline.execute()
        written += len(batch)
        progress(written)
    return written


def remove_others(client: Client, family: Family, ids: Ids) -> int:
    """Delete the family's keys of ids that are not among ``ids``; returns how many there were."""
    removed = 0
    if family is Family.GLOBAL_TOP_BUYS:
        return removed
    keys = client.scan_iter(match=contract.family_pattern(family), count=10_000)
    for batch in batched(keys, BATCH):
        texts = [contract.id_of_key(family, key.decode(errors="replace")) for key in batch]
        gone = [key for key, kept in zip(batch, _among(texts, ids), strict=True) if not kept]
        with client.pipeline(transaction=False) as pipeline:
            for key in gone:
                pipeline.unlink(key)
            removed += sum(pipeline.execute())
    return removed


def _among(texts: list[str], ids: Ids) -> list[bool]:
    """For each text whether it is the text of one of the ascending ``ids``."""
    if ids.dtype != np.int64:
        return (positions(ids, np.array(texts, object)) >= 0).tolist()  # type: ignore[no-any-return]
    values = [contract.decode_id(text, "integer") for text in texts]
    numbers = [v if isinstance(v, int) and -(2**63) <= v < 2**63 else None for v in values]
    found = positions(ids, np.array([number or 0 for number in numbers], np.int64)) >= 0
    return [number is not None and bool(f) for number, f in zip(numbers, found, strict=True)]


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of up to ``size`` items, in order (``itertools.batched`` comes with Python 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _one_transaction_each(
    client: Client, batch: list[tuple[str, Mapping[str, float]]]
) -> Iterable[list[tuple[str, Mapping[str, float]]]]:
    if not isinstance(client, RedisCluster):
        return [batch]
    slots = defaultdict(list)
    for item in batch:
        slot = client.keyslot(item[0])  # type: ignore[no-untyped-call]
        slots[slot].append(item)
    return slots.values()
