"""The ids of users and products, and how they stand in keys."""

import re
from typing import Literal

MAX_ID_LENGTH = 200

Id = int | str
"""A shop's id of a user or product: integer keys stay integers, uuid and text are strings."""

IdKind = Literal["integer", "text"]
"""Which form the ids of a family have in the shop, where Redis holds only their text."""

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")  # as str() writes a bigint


class ContractError(ValueError):
    """A value or id that is not of this contract: what is wrong, and what to do."""


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
