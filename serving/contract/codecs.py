"""How values become the bytes that Redis holds, and again values."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from serving.contract.ids import ContractError, Id, IdKind, encode_id
from serving.contract.values import (
    SCHEMA_VERSION,
    BuyAgain,
    Evidence,
    ExampleUsers,
    Explanations,
    Pairing,
    Publication,
    TopBuys,
)

_Value = TypeVar("_Value", TopBuys, Explanations, BuyAgain, Evidence, Publication, ExampleUsers)
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

encode_example_users: Callable[[ExampleUsers], bytes] = _encode
decode_example_users = _decoder(ExampleUsers)


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
    # A ValueError is JSON of something else, or no UTF-8; a TypeError, not even bytes.
    except (ValueError, TypeError, RecursionError) as error:
        raise ContractError(
            f"Redis holds a value that is not of schema {SCHEMA_VERSION}: {error}; publish again"
        ) from error
