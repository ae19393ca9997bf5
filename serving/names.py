"""Reads for people who explore the lists: names of products, a search by name, example users."""

from collections.abc import Sequence
from typing import Any, Protocol

from serving.contract import (
    Family,
    Id,
    IdKind,
    decode_example_users,
    decode_id,
    decode_publication,
    example_users_key,
    found_id,
    names_key,
    publication_key,
    search_key,
)

Command = tuple[str | int, ...]


class Reads(Protocol):
    """What sends commands to Redis and brings their replies, and raises when Redis is away."""

    async def read(self, commands: Sequence[Command], /) -> list[Any]:
        """The reply to each command, in their order."""


class ProductDirectory:
    """The published names of products, each read in bounded time and one or two round trips."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def names(self, product_ids: Sequence[str]) -> dict[str, str]:
        """The names of those products that have one, by the text of their ids."""
        (values,) = await self._reads.read([("HMGET", names_key(), *product_ids)])
        return {
            product_id: value.decode(errors="replace")
            for product_id, value in zip(product_ids, values, strict=True)
            if value is not None
        }

    async def search(self, bounds: tuple[str, str], most: int) -> dict[Id, str]:
        """Names by product of up to ``most`` products, in order of the search.

        ``bounds`` are what :func:`~serving.contract.search_range` makes of a text.
        """
        # A product whose name has a word twice is found twice.
        window = ("BYLEX", "LIMIT", 0, 2 * most)
        members, record = await self._reads.read(
            [
                ("ZRANGE", search_key(), *bounds, *window),
                ("GET", publication_key(Family.BOUGHT_TOGETHER)),
            ]
        )
        ids = list(dict.fromkeys(map(found_id, members)))[:most]
        kind: IdKind = decode_publication(record).id_kind if record else "text"
        names = await self.names(ids) if ids else {}
        return {decode_id(product_id, kind): name for product_id, name in names.items()}

    async def example_users(self) -> list[Id]:
        """The ids of a few users who have lists; empty when none are published."""
        (data,) = await self._reads.read([("GET", example_users_key())])
        return decode_example_users(data).user_ids if data is not None else []
