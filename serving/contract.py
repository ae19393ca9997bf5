"""THE Redis contract between publication and API: key names, codecs, schema version.

No other file holds a Redis key literal or encodes or decodes a value. Standard library and
msgspec only.

===========================================  ==========  ===========================================
key                                          type        value
===========================================  ==========  ===========================================
``user:{id}:top_buys``                       string      JSON of :class:`TopBuys`, not "global"
``user:{id}:top_buys_because``               string      JSON of :class:`Explanations` of that list
``user:{id}:buy_again``                      string      JSON of :class:`BuyAgain`
``global:top_buys``                          string      JSON of :class:`TopBuys`, "global"
``product:{id}:bought_together``             sorted set  member: product id, score: strength
``product:{id}:bought_together_evidence``    string      JSON of :class:`Evidence` of that list
``product:{id}:bought_together_also``        hash        rules with two antecedents; field: the
                                                         other's id, value: [[product id, strength]]
``publication:{family}``                     string      JSON of :class:`Publication`, one for each
``borrowed:bought_together``                 set         products whose list is their category's
``unavailable:products``                     set         products that the shop does not sell now
``blocked:products``                         set         products that the shop blocks: its own set,
                                                         which publication never writes
===========================================  ==========  ===========================================

The members of the sets are ids as :func:`encode_id` writes them. Strength is the shrunk lift.
"""

import re
from collections.abc import Callable, Iterable
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
    USER_TOP_BUYS_BECAUSE = "user_top_buys_because"
    USER_BUY_AGAIN = "user_buy_again"
    GLOBAL_TOP_BUYS = "global_top_buys"
    BOUGHT_TOGETHER = "bought_together"
    BOUGHT_TOGETHER_EVIDENCE = "bought_together_evidence"
    BOUGHT_TOGETHER_ALSO = "bought_together_also"


class ContractError(ValueError):
    """A value or id that is not of this contract: what is wrong, and what to do."""


class ScoredProduct(msgspec.Struct, frozen=True):
    """One product of a Top Buys list; scores are comparable within their list only."""

    product_id: Id
    score: float


Source = Literal["personal", "own_purchases", "global"]
"""Where a Top Buys list comes from: the model; the user's own purchases, filled up by popularity,
where no model has been proven; or what is popular."""


class TopBuys(msgspec.Struct, frozen=True, kw_only=True):
    """A ready Top Buys list, best product first; in the guests', also what the shop has pinned."""

    schema: int = SCHEMA_VERSION
    source: Source
    model_version: str
    generated_at: Instant
    orders_through: Instant | None
    products: list[ScoredProduct]
    pinned: list[Id] | msgspec.UnsetType = msgspec.UNSET


class WeighedPurchase(msgspec.Struct, frozen=True):
    """A product that the user has bought, and its share of what speaks for another one by ALS."""

    product_id: Id
    weight: float


class BecauseSimilar(msgspec.Struct, frozen=True, tag_field="kind", tag="similar"):
    """The user's purchases that weigh most in the product's score by ALS, heaviest first."""

    purchases: list[WeighedPurchase]


class BecauseRepeat(msgspec.Struct, frozen=True, tag_field="kind", tag="repeat"):
    """The user buys this product again and again: in how many orders, and when last."""

    purchases: int
    last_purchased_at: Instant


class BecausePopular(msgspec.Struct, frozen=True, tag_field="kind", tag="popular"):
    """The product is popular now."""


class BecausePinned(msgspec.Struct, frozen=True, tag_field="kind", tag="pinned"):
    """The shop has pinned the product."""


Because = BecauseSimilar | BecauseRepeat | BecausePopular | BecausePinned


class Explained(msgspec.Struct, frozen=True):
    """Why a product is in a Top Buys list."""

    product_id: Id
    because: Because


class Explanations(msgspec.Struct, frozen=True, kw_only=True):
    """Why the products of a user's Top Buys are in it; in a key of its own, for few ask."""

    schema: int = SCHEMA_VERSION
    model_version: str
    generated_at: Instant
    because: list[Explained]


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """A product that a user has bought, in how many orders, and when it is due by their rhythm.

    ``due_at`` is None where they have bought it too rarely to have one.
    """

    product_id: Id
    score: float
    purchases: int
    last_purchased_at: Instant
    due_at: Instant | None


class BuyAgain(msgspec.Struct, frozen=True, kw_only=True):
    """What a user buys again, best first; whoever reads it puts first what is due by then."""

    schema: int = SCHEMA_VERSION
    model_version: str
    generated_at: Instant
    orders_through: Instant | None
    products: list[Repeat]


class PairCount(msgspec.Struct, frozen=True):
    """The ``orders`` with a product beside the list's own, of the ``product_orders`` with it."""

    product_id: Id
    orders: int
    product_orders: Annotated[int, msgspec.Meta(ge=1)]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The counts behind a Bought Together list: all ``baskets``, the ``orders`` with its product.

    Of a ``borrowed`` list, ``orders`` and those of its products are the orders with the category.
    """

    schema: int = SCHEMA_VERSION
    model_version: str
    baskets: Annotated[int, msgspec.Meta(ge=1)]
    orders: Annotated[int, msgspec.Meta(ge=1)]
    products: list[PairCount]
    borrowed: bool


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What was last published of a family, written after the last of its keys.

    ``id_kind`` is the form of the ids in the family's keys and in the members of its sorted sets:
    of user ids in the families of users, of product ids in the others.
    """

    schema: int = SCHEMA_VERSION
    family: Family
    model_version: str
    generated_at: Instant
    orders_through: Instant | None
    finished_at: Instant
    keys: int
    id_kind: IdKind


def known_through(made: TopBuys | BuyAgain, record: Publication | None) -> datetime | None:
    """The moment up to which a list knows its user's orders, or the guests' list everybody's.

    It is that of the family's record where this is of the same model: lists that have not been made
    anew since then are those to which no order has come.
    """
    if record is None or record.model_version != made.model_version:
        return made.orders_through
    return max(filter(None, (made.orders_through, record.orders_through)), default=None)


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


_KEY_PARTS = {
    Family.USER_TOP_BUYS: ("user:", ":top_buys"),
    Family.USER_TOP_BUYS_BECAUSE: ("user:", ":top_buys_because"),
    Family.USER_BUY_AGAIN: ("user:", ":buy_again"),
    Family.BOUGHT_TOGETHER: ("product:", ":bought_together"),
    Family.BOUGHT_TOGETHER_EVIDENCE: ("product:", ":bought_together_evidence"),
    Family.BOUGHT_TOGETHER_ALSO: ("product:", ":bought_together_also"),
}  # what follows the last colon is of one family only, so no pattern matches another's keys


def list_key(family: Family, id_: Id) -> str:
    """The key of one user or product in a family of theirs."""
    prefix, suffix = _KEY_PARTS[family]
    return f"{prefix}{encode_id(id_)}{suffix}"


def id_of_key(family: Family, key: str) -> str:
    """The text of the id in a key of ``family``; the inverse of :func:`list_key`."""
    prefix, suffix = _KEY_PARTS[family]
    return key[len(prefix) : -len(suffix)]


def family_pattern(family: Family) -> str:
    """The SCAN pattern that matches every list key of a family, and no other key."""
    if family is Family.GLOBAL_TOP_BUYS:
        return global_top_buys_key()
    prefix, suffix = _KEY_PARTS[family]
    return f"{prefix}*{suffix}"


def user_top_buys_key(user_id: Id) -> str:
    """The key of a user's Top Buys."""
    return list_key(Family.USER_TOP_BUYS, user_id)


def global_top_buys_key() -> str:
    """The key of the guests' Top Buys."""
    return "global:top_buys"


def bought_together_key(product_id: Id) -> str:
    """The key of a product's Bought Together."""
    return list_key(Family.BOUGHT_TOGETHER, product_id)


def also_key_and_field(one: Id, other: Id) -> tuple[str, str]:
    """The key of the hash and the field in it that hold the rules with two antecedents.

    They stand under the antecedent whose text is the smaller one, whatever the order given.
    """
    first, second = sorted((encode_id(one), encode_id(other)))
    return list_key(Family.BOUGHT_TOGETHER_ALSO, first), second


def publication_key(family: Family) -> str:
    """The key of a family's publication record."""
    return f"publication:{family.value}"


def borrowed_key() -> str:
    """The key of the set of products whose Bought Together is that of their category."""
    return "borrowed:bought_together"


def unavailable_key() -> str:
    """The key of the set of products that the shop does not sell now."""
    return "unavailable:products"


def blocked_key() -> str:
    """The key of the shop's own set of products that are never recommended."""
    return "blocked:products"


_Value = TypeVar("_Value", TopBuys, Explanations, BuyAgain, Evidence, Publication)
_Json = TypeVar("_Json")
_encode = msgspec.json.Encoder().encode
_also_decoder = msgspec.json.Decoder(list[tuple[Id, float]])


def _decoder(kind: type[_Value]) -> Callable[[bytes], _Value]:
    decoder = msgspec.json.Decoder(kind)

    def decode(data: bytes) -> _Value:
        value = _decode(decoder, data)
        if value.schema != SCHEMA_VERSION:
            raise ContractError(
                f"Redis holds a value of schema {value.schema}, this service reads "
                f"{SCHEMA_VERSION}: run publication and API at the same release"
            )
        return value

    return decode


# JSON of each kind of value, and the value from its JSON: ContractError when not of this schema.

encode_top_buys: Callable[[TopBuys], bytes] = _encode
decode_top_buys = _decoder(TopBuys)

encode_explanations: Callable[[Explanations], bytes] = _encode
decode_explanations = _decoder(Explanations)

encode_buy_again: Callable[[BuyAgain], bytes] = _encode
decode_buy_again = _decoder(BuyAgain)

encode_evidence: Callable[[Evidence], bytes] = _encode
decode_evidence = _decoder(Evidence)

encode_publication: Callable[[Publication], bytes] = _encode
decode_publication = _decoder(Publication)


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


def encode_also(pairings: Iterable[Pairing]) -> bytes:
    """JSON of the products that two antecedents lead to, strongest first."""
    return _encode([(p.product_id, p.strength) for p in pairings])


def decode_also(data: bytes) -> list[Pairing]:
    """The products from their JSON; :class:`ContractError` when it is not of this schema."""
    return [Pairing(product_id, strength) for product_id, strength in _decode(_also_decoder, data)]


def _decode(decoder: msgspec.json.Decoder[_Json], data: bytes) -> _Json:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ContractError(
            f"Redis holds a value that is not of schema {SCHEMA_VERSION}: {error}; publish again"
        ) from error
