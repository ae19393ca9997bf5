"""Publication to Redis: whole families of keys, replaced one key at a time, each atomically.

A reader never sees half a list or a moment without one: a string is SET, a sorted set replaced in
MULTI/EXEC. Keys of the family that a publication no longer contains are removed after the new ones
are written, and the record of the publication is written last: it is never ahead of the lists.
Works on a single server and on Redis Cluster.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from recsys_assets.learn.matrix import Ids, positions
from recsys_assets.publish.redis_client import Client, RedisUnavailableError, connect, told
from recsys_assets.publish.redis_pipe import (
    BATCH,
    SCANNED,
    Progress,
    Write,
    batched,
    hash_write,
    sorted_set_write,
    string_write,
    write_all,
)
from recsys_assets.publish.redis_reader import read_publication
from serving import contract
from serving.contract import Family, Id, IdKind, Publication

__all__ = [
    "BATCH",
    "Client",
    "Edition",
    "NotPublishedError",
    "Progress",
    "Published",
    "RedisUnavailableError",
    "batched",
    "connect",
    "finish",
    "publish",
    "publish_some",
    "remove_others",
    "write",
]


_WRITES: Mapping[Family, Callable[[str, Any], Write]] = {
    Family.BOUGHT_TOGETHER: sorted_set_write,
    Family.BOUGHT_TOGETHER_ALSO: hash_write,
}


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


class NotPublishedError(RuntimeError):
    """Some lists of a family were to be renewed that was never published as a whole."""


def publish(
    client: Client,
    family: Family,
    edition: Edition,
    items: Iterable[tuple[str, Any]],
    ids: Ids,
    progress: Progress = lambda _: None,
) -> Published:
    """Publish a whole family: :func:`write` its keys, then :func:`finish`.

    Raises :class:`RedisUnavailableError`.
    """
    keys = write(client, family, items, progress)
    return finish(client, family, edition, ids, keys)


def write(
    client: Client,
    family: Family,
    items: Iterable[tuple[str, Any]],
    progress: Progress = lambda _: None,
) -> int:
    """Write the lists of a family, or some of them, each atomically; returns how many.

    ``items`` are (key, JSON); of Bought Together (key, {member: score}), and of its rules with two
    antecedents (key, {field: JSON}). ``progress`` is told the number of keys written. Raises
    :class:`RedisUnavailableError` when Redis refuses one.
    """
    packed = _WRITES.get(family, string_write)
    return write_all(client, (packed(key, value) for key, value in items), progress)


def finish(client: Client, family: Family, edition: Edition, ids: Ids, keys: int) -> Published:
    """Finish a publication whose lists are all written: remove the others, then record it.

    ``ids`` are the users or products of the whole family, ascending; ``keys`` is the number of
    their lists. Raises :class:`RedisUnavailableError`.
    """
    removed = remove_others(client, family, ids)
    id_kind: IdKind = "integer" if ids.dtype == np.int64 else "text"
    _record(client, family, edition, keys, id_kind)
    return Published(keys, removed)


def publish_some(
    client: Client,
    family: Family,
    edition: Edition,
    items: Iterable[tuple[str, Any]],
    gone_ids: Iterable[Id] = (),
) -> Published:
    """Renew some lists of users or products, remove those of ``gone_ids``, then record it.

    ``items`` are as for :func:`write`, no key twice. Other keys are left alone, and the record
    counts all: one that an earlier, interrupted call has created is not counted until the next
    :func:`publish`. Raises :class:`NotPublishedError` when there was no publication of the family,
    and :class:`RedisUnavailableError`.
    """
    with told("does not tell what is published"):
        before = read_publication(client, family)
    if before is None:
        raise NotPublishedError(
            f"Redis has no publication of {family.value} of which to renew a part:"
            f" materialize {family.value} as a whole first."
        )
    written = replaced = 0
    for batch in batched(items, BATCH):
        replaced += _each(client, "exists", [key for key, _ in batch])
        written += write(client, family, batch)
    gone = (contract.list_key(family, gone_id) for gone_id in gone_ids if contract.is_id(gone_id))
    removed = sum(_each(client, "unlink", batch) for batch in batched(gone, BATCH))
    _record(client, family, edition, before.keys + written - replaced - removed, before.id_kind)
    return Published(written, removed)


def remove_others(client: Client, family: Family, ids: Ids) -> int:
    """Delete the family's keys of ids that are not among ``ids``; returns how many there were."""
    removed = 0
    if family is Family.GLOBAL_TOP_BUYS:
        return removed
    with told("does not list its keys"):
        keys = client.scan_iter(match=contract.family_pattern(family), count=SCANNED)
        for batch in batched(keys, BATCH):
            texts = [contract.id_of_key(family, key.decode(errors="replace")) for key in batch]
            gone = [key for key, kept in zip(batch, _among(texts, ids), strict=True) if not kept]
            removed += _each(client, "unlink", gone)
    return removed


def _record(client: Client, family: Family, edition: Edition, keys: int, id_kind: IdKind) -> None:
    record = Publication(
        family=family,
        model_version=edition.model_version,
        generated_at=edition.generated_at,
        orders_through=edition.orders_through,
        finished_at=datetime.now(UTC),
        keys=keys,
        id_kind=id_kind,
    )
    with told("did not record the publication"):
        client.set(contract.publication_key(family), contract.encode_publication(record))


def _each(client: Client, command: str, keys: list[Any]) -> int:
    """The sum of what a command that counts keys says of each; one for each, as clusters need."""
    with told(f"refuses {command.upper()}"), client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.execute_command(command.upper(), key)
        return sum(pipeline.execute())


def _among(texts: list[str], ids: Ids) -> list[bool]:
    """For each text whether it is the text of one of the ascending ``ids``."""
    if ids.dtype != np.int64:
        return (positions(ids, np.array(texts, object)) >= 0).tolist()  # type: ignore[no-any-return]
    values = [contract.decode_id(text, "integer") for text in texts]
    numbers = [v if isinstance(v, int) and -(2**63) <= v < 2**63 else None for v in values]
    found = positions(ids, np.array([number or 0 for number in numbers], np.int64)) >= 0
    return [number is not None and bool(f) for number, f in zip(numbers, found, strict=True)]
