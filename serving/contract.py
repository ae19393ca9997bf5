"""THE Redis contract between publication and API: key names, codecs, schema version.

No other file holds a Redis key literal or encodes or decodes a value. Standard library and
msgspec only.

=================================  ==========  =====================================================
key                                type        value
=================================  ==========  =====================================================
``user:{id}:top_buys``             string      JSON of :class:`TopBuys`, ``source`` "personal"
``global:top_buys``                string      JSON of :class:`TopBuys`, ``source`` "global"
``product:{id}:bought_together``   sorted set  member: product id, score: strength (shrunk lift)
``publication:{family}``           string      JSON of :class:`Publication`, one for each family
=================================  ==========  =====================================================
"""

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

import msgspec

SCHEMA_VERSION = 1
MAX_ID_LENGTH = 200

Id = int | str
"""A shop's id of a user or product: integer keys stay integers, uuid and text are strings."""

IdKind = Literal["integer", "text"]
"""Which form the ids of a family have in the shop, where Redis holds only their text."""

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment with its time zone; decoding refuses one without."""


_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")  # as str() writes a bigint


class Family(StrEnum):
    """The families of published keys; each is published as a whole and has one record."""

    USER_TOP_BUYS = "user_top_buys"
    GLOBAL_TOP_BUYS = "global_top_buys"
    BOUGHT_TOGETHER = "bought_together"


class ContractError(ValueError):
    """A value or id that is not of this contract: what is wrong, and what to do."""


class ScoredProduct(msgspec.Struct, frozen=True):
    """One product of a Top Buys list; scores are comparable within their list only."""

    product_id: Id
    score: float


class TopBuys(msgspec.Struct, frozen=True, kw_only=True):
    """A ready Top Buys list, best product first."""

    schema: int = SCHEMA_VERSION
    source: Literal["personal", "global"]
    model_version: str
    generated_at: Instant
    orders_through: Instant | None
    products: list[ScoredProduct]


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What was last published of a family, written after the last of its keys.

    ``id_kind`` is the form of the ids in the family's keys and in the members of its sorted sets:
    of user ids for USER_TOP_BUYS, of product ids for the others.
    """

    schema: int = SCHEMA_VERSION
    family: Family
    model_version: str
    generated_at: Instant
    orders_through: Instant | None
    finished_at: Instant
    keys: int
    id_kind: IdKind


def known_through(top_buys: TopBuys, record: Publication | None) -> datetime | None:
    """The moment up to which a list knows its user's orders, or the guests' list everybody's.

    It is that of the family's record where this is of the same model: lists that have not been made
    anew since then are those to which no order has come.
    """
    if record is None or record.model_version != top_buys.model_version:
        return top_buys.orders_through
    return max(filter(None, (top_buys.orders_through, record.orders_through)), default=None)


class Pairing(msgspec.Struct, frozen=True):
    """One product of a Bought Together list; strength is the shrunk lift of the rule."""

    product_id: Id
    strength: float


def is_id(value: Id) -> bool:
    """Whether an id can stand in keys: 1 to 200 characters, all printable."""
    text = str(value)
    return 0 < len(text) <= MAX_ID_LENGTH and text.isprintable()


def encode_id(value: Id) -> str:
    """The text of an id as it stands in keys.

    Raises :class:`ContractError` for what :func:`is_id` says is none.
    """
    text = str(value)
    if not 0 < len(text) <= MAX_ID_LENGTH:
        raise ContractError(f"an id has 1 to {MAX_ID_LENGTH} characters, not {len(text)}")
    if not text.isprintable():
        raise ContractError(f"an id has no control characters: {text!r}")
    return text


def decode_id(text: str, id_kind: IdKind) -> Id:
    """The id that a text stands for; the inverse of :func:`encode_id`.

    Text that no integer is written as stays text, whatever ``id_kind`` says.
    """
    if id_kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    return text


def user_top_buys_key(user_id: Id) -> str:
    """The key of a user's Top Buys."""
    return f"user:{encode_id(user_id)}:top_buys"


def global_top_buys_key() -> str:
    """The key of the guests' Top Buys."""
    return "global:top_buys"


def bought_together_key(product_id: Id) -> str:
    """The key of a product's Bought Together."""
    return f"product:{encode_id(product_id)}:bought_together"


def publication_key(family: Family) -> str:
    """The key of a family's publication record."""
    return f"publication:{family.value}"


_KEY_PARTS = {
    Family.USER_TOP_BUYS: ("user:", ":top_buys"),
    Family.BOUGHT_TOGETHER: ("product:", ":bought_together"),
}


def family_pattern(family: Family) -> str:
    """The SCAN pattern that matches every list key of a family."""
    if family is Family.GLOBAL_TOP_BUYS:
        return global_top_buys_key()
    prefix, suffix = _KEY_PARTS[family]
    return f"{prefix}*{suffix}"


def id_of_key(family: Family, key: str) -> str:
    """The text of the id in a list key of ``family``; the inverse of the key functions."""
    prefix, suffix = _KEY_PARTS[family]
    return key[len(prefix) : -len(suffix)]


_Value = TypeVar("_Value", TopBuys, Publication)
_encoder = msgspec.json.Encoder()
_top_buys_decoder = msgspec.json.Decoder(TopBuys)
_publication_decoder = msgspec.json.Decoder(Publication)


def encode_top_buys(value: TopBuys) -> bytes:
    """JSON of a Top Buys list."""
    return _encoder.encode(value)


def decode_top_buys(data: bytes) -> TopBuys:
    """A Top Buys list from its JSON; :class:`ContractError` when it is not of this schema."""
    return _decode(_top_buys_decoder, data)


def encode_publication(value: Publication) -> bytes:
    """JSON of a publication record."""
    return _encoder.encode(value)


def decode_publication(data: bytes) -> Publication:
    """A publication record from its JSON; :class:`ContractError` when not of this schema."""
    return _decode(_publication_decoder, data)


def encode_pairings(pairings: Iterable[Pairing]) -> dict[str, float]:
    """Members and scores of a Bought Together sorted set, as ZADD takes them."""
    return {encode_id(p.product_id): p.strength for p in pairings}


def decode_pairings(members: Iterable[tuple[bytes, float]], id_kind: IdKind) -> list[Pairing]:
    """A Bought Together list from the members and scores that ZRANGE ... WITHSCORES returned.

    Raises :class:`ContractError` when a member is not an id of ``id_kind``.
    """
    try:
        return [
            Pairing(int(member) if id_kind == "integer" else member.decode(), score)
            for member, score in members
        ]
    except ValueError as error:
        raise ContractError(
            f"Redis holds a sorted set with a member that is no {id_kind} id: {error}; "
            "publish again"
        ) from error


def _decode(decoder: msgspec.json.Decoder[_Value], data: bytes) -> _Value:
    try:
        value = decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ContractError(
            f"Redis holds a value that is not of schema {SCHEMA_VERSION}: {error}; publish again"
        ) from error
    if value.schema != SCHEMA_VERSION:
        raise ContractError(
            f"Redis holds a value of schema {value.schema}, this service reads {SCHEMA_VERSION}: "
            "run publication and API at the same release"
        )
    return value
