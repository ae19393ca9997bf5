"""Whether a publication fits into Redis' memory, told before anything is written.

The memory of a key is added up from Redis' own structures, each rounded up as its allocator,
jemalloc, does: within a per cent of Redis 8.2; earlier versions hold a key's name apart and take
some 30 bytes more a key. A publication needs, until its last list is written and the keys of others
are removed, ``keys x mean of (a new list - the list that it replaces)`` of a sample of its lists.

Sources, of Redis 8.2: ``sds.h`` (headers of strings), ``object.c`` (``kvobjCreate``: a key's name
is part of its object), ``listpack.c`` (encodings of entries), ``t_zset.c`` (``zslCreateNode``,
``zslRandomLevel``), ``t_hash.c`` (fields and values are strings), ``dict.h`` (24 bytes an entry, a
power of two of buckets), and jemalloc's size classes with Redis' ``--with-lg-quantum=3``.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis import RedisCluster, ResponseError

from recsys_assets.publish.redis_client import Client, told
from serving import contract
from serving.contract import Family

List = bytes | Mapping[str, float]
"""JSON of a string, or the members and scores of a sorted set."""

Value = List | Mapping[str, bytes]
"""A list, or the fields of a hash and the JSON of each."""

_BUCKET = 16  # a pointer in a table that is at least half full
_OBJECT = 16
_DICT_ENTRY = 24
_DICT = 56
_LEAST_BUCKETS = 4
_SORTED_SET = 16 + 32 + 640 + 64  # zset, zskiplist, its header node of 32 levels, dict
_LISTPACK = 6 + 1  # header and end
# (least, beyond the greatest, bytes) of integers in a listpack
_INTEGERS = (
    (0, 2**7, 1),
    (-(2**12), 2**12, 2),
    *((-(2**bits), 2**bits, bits // 8 + 2) for bits in (15, 23, 31, 63)),
)


@dataclass(frozen=True)
class Limits:
    """Up to which entries, and bytes of one, sorted sets and hashes are listpacks: the defaults."""

    entries: int = 128
    member_bytes: int = 64
    fields: int = 512
    field_bytes: int = 64


@dataclass(frozen=True)
class Room:
    """The memory, in bytes, that a publication needs beyond what it replaces, and what is free.

    ``keys_that_fit`` and ``length_that_fits`` say how many lists of the full ``length`` would fit,
    and how long all lists could be: a list with all that is published beside it.
    ``maxmemory_policy`` is None where Redis has no maxmemory, and the machine's memory is the
    limit.
    """

    family: Family
    keys: int
    length: int
    bytes_per_key: int
    needed: int
    free: int
    keys_that_fit: int
    length_that_fits: int
    maxmemory_policy: str | None

    @property
    def fits(self) -> bool:
        """Whether the whole publication fits."""
        return self.needed <= self.free

    def __str__(self) -> str:
        """For people: what is needed and free, what would fit, and what to do."""
        lists = "products" if self.family is Family.BOUGHT_TOGETHER else "users"
        owner = "the machine of Redis" if self.maxmemory_policy is None else "Redis"
        more = f"needs {_megabytes(max(0, self.needed))} more, {owner} has {_megabytes(self.free)}"
        if self.fits:
            return f"{more}: all {self.keys:,} {lists} fit"
        shorter = f", or lists of {self.length_that_fits} products instead of {self.length}"
        return (
            f"{more}: {self.keys_that_fit:,} of {self.keys:,} {lists} fit"
            f"{shorter if self.length_that_fits else ''}; {self._remedy()}"
        )

    def _remedy(self) -> str:
        if self.maxmemory_policy is None:
            return "give the machine more memory or lower the length"
        remedy = "raise maxmemory or lower the length"
        if self.maxmemory_policy == "noeviction":
            return remedy
        return f"{remedy}: Redis would evict keys, by its maxmemory-policy {self.maxmemory_policy}"


def room_for(
    client: Client,
    family: Family,
    sample: Sequence[tuple[str, List]],
    keys: int,
    length: int,
    *,
    beside: Sequence[tuple[str, Value]] = (),
) -> Room:
    """The room for a publication of ``keys`` lists of up to ``length`` products; writes nothing.

    ``sample`` has (key, value) of some of the lists, spread evenly over them, ``beside`` those of
    other families that are published with these lists. In a cluster, whose keys spread evenly, the
    primary with the least free memory counts for each. Raises :class:`RedisUnavailableError`.
    """
    with told("does not tell what memory it has"):
        limits = _limits(client)
        free, policy = _free(client)
        replaced = [client.memory_usage(key, samples=0) for key, _ in (*sample, *beside)]
    sampled = max(1, len(sample))
    held = round(keys * sum(usage + _BUCKET for usage in replaced if usage) / sampled)
    with_it = sum(bytes_of(key, value, limits) for key, value in beside) / sampled

    def needed(length: int) -> int:
        shorter = [(key, shortened(value, length)) for key, value in sample]
        return math.ceil(keys * (bytes_per_key(shorter, limits) + with_it)) - held

    per_key = math.ceil(bytes_per_key(sample, limits) + with_it)
    fits = keys * per_key - held <= free
    return Room(
        family=family,
        keys=keys,
        length=length,
        bytes_per_key=per_key,
        needed=keys * per_key - held,
        free=free,
        keys_that_fit=keys if fits else (free + held) // per_key,
        length_that_fits=length if fits else bisect_right(range(1, length), free, key=needed),
        maxmemory_policy=policy,
    )


def bytes_per_key(sample: Sequence[tuple[str, Value]], limits: Limits = Limits()) -> float:
    """The mean memory of the sample's keys in Redis, in bytes; 0 of an empty sample."""
    return sum(bytes_of(key, value, limits) for key, value in sample) / max(1, len(sample))


def bytes_of(key: str, value: Value, limits: Limits = Limits()) -> int:
    """The memory of one key in Redis: its name, its object, its value, its share of the table."""
    name = len(key.encode())
    named_object = allocated(_OBJECT + 1 + _header(name) + name + 1)
    if isinstance(value, bytes):
        return _BUCKET + named_object + allocated(max(3, _header(len(value))) + len(value) + 1)
    fields = {name.encode(): text for name, text in value.items() if isinstance(text, bytes)}
    if fields:
        return _BUCKET + named_object + _hash(fields, limits)
    scores = {name.encode(): s for name, s in value.items() if not isinstance(s, bytes)}
    return _BUCKET + named_object + _sorted_set(scores, limits)


def allocated(size: int) -> int:
    """What jemalloc sets aside for ``size`` bytes: four sizes a doubling, 8 apart at least."""
    spacing = max(8, 1 << max(0, (size - 1).bit_length() - 3))
    return -(-size // spacing) * spacing


def shortened(value: List, length: int) -> List:
    """The best ``length`` products of a list."""
    if isinstance(value, bytes):
        top_buys = contract.decode_top_buys(value)
        products = top_buys.products[:length]
        return contract.encode_top_buys(msgspec.structs.replace(top_buys, products=products))
    return dict(sorted(value.items(), key=lambda item: -item[1])[:length])


def _header(length: int) -> int:
    """Bytes before a string of Redis, which hold its length."""
    return 1 if length < 32 else 3 if length < 2**8 else 5 if length < 2**16 else 9


def _sorted_set(members: Mapping[bytes, float], limits: Limits) -> int:
    if len(members) > limits.entries or any(len(m) > limits.member_bytes for m in members):
        return _skiplist(members)
    scores = (repr(int(s) if s.is_integer() else s).encode() for s in map(float, members.values()))
    return _listpack([*members, *scores])


def _hash(fields: Mapping[bytes, bytes], limits: Limits) -> int:
    texts = [*fields, *fields.values()]
    if len(fields) <= limits.fields and all(len(text) <= limits.field_bytes for text in texts):
        return _listpack(texts)
    held = sum(allocated(_header(len(text)) + len(text) + 1) for text in texts)
    return _DICT + _buckets(len(fields)) + held + len(fields) * _DICT_ENTRY


def _listpack(texts: Iterable[bytes]) -> int:
    return allocated(_LISTPACK + sum(map(_listpack_entry, texts)))


def _listpack_entry(text: bytes) -> int:
    """An entry's encoding, integer or text, with the length that leads back over it."""
    if text.removeprefix(b"-").isdigit() and text == b"%d" % int(text):
        for least, beyond, size in _INTEGERS:
            if least <= int(text) < beyond:
                return size + 1
    size = len(text) + (1 if len(text) < 64 else 2)
    return size + (1 if size < 128 else 2)


def _skiplist(members: Mapping[bytes, float]) -> int:
    """A skip list whose nodes have one more level with probability 1/4, and a table of members."""
    node = sum(0.75 * 0.25**level * allocated(40 + 16 * level) for level in range(32))
    names = sum(allocated(_header(len(member)) + len(member) + 1) for member in members)
    entries = len(members) * (node + _DICT_ENTRY)
    return round(_SORTED_SET + _buckets(len(members)) + names + entries)


def _buckets(entries: int) -> int:
    """A table of pointers: as many as there are entries, up to the next power of two."""
    return 8 * max(_LEAST_BUCKETS, 1 << (entries - 1).bit_length())


def _limits(client: Client) -> Limits:
    """The server's own limits; the defaults where its administrator hides them."""
    try:
        config: Any = client.config_get("*-max-listpack-*")
    except ResponseError:
        return Limits()
    default = Limits()
    return Limits(
        int(config.get("zset-max-listpack-entries", default.entries)),
        int(config.get("zset-max-listpack-value", default.member_bytes)),
        int(config.get("hash-max-listpack-entries", default.fields)),
        int(config.get("hash-max-listpack-value", default.field_bytes)),
    )


def _free(client: Client) -> tuple[int, str | None]:
    """Bytes that may still be used, of all primaries, and the maxmemory-policy, if in force."""
    if not isinstance(client, RedisCluster):
        infos: list[Any] = [client.info("memory")]
    else:
        nodes: Any = client
        infos = [nodes.info("memory", target_nodes=node) for node in nodes.get_primaries()]
    free = len(infos) * min(map(_free_on_node, infos))
    limited = [info["maxmemory_policy"] for info in infos if info["maxmemory"]]
    return free, limited[0] if limited else None


def _free_on_node(memory: Mapping[str, Any]) -> int:
    used = int(memory["used_memory"])
    if not memory["maxmemory"]:
        return max(0, int(memory["total_system_memory"]) - used)
    uncounted = int(memory.get("mem_not_counted_for_evict", 0))
    return max(0, int(memory["maxmemory"]) - (used - uncounted))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.{0 if size >= 10e6 else 1}f} MB"
