"""What the store has read of Redis for one request, for the answers to be made of."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from serving.contract import (
    BuyAgain,
    Evidence,
    Explanations,
    Family,
    Pairing,
    Publication,
    Repeat,
    ScoredProduct,
    TopBuys,
    encode_id,
)

Records: TypeAlias = dict[Family, Publication | None]
"""The publication record of each family; None for one that was never published."""

Product = TypeVar("Product", ScoredProduct, Repeat, Pairing)
"""One product of a list, of any kind."""


class TopBuysRead(NamedTuple):
    """A Top Buys list, None where there is none, and the records of users' and guests' lists.

    ``explanations`` are those of the user's own list, where they were asked for and exist. What is
    ``stale`` was read earlier, for Redis is away.
    """

    stored: TopBuys | None
    records: Records
    explanations: Explanations | None = None
    stale: bool = False


class BuyAgainRead(NamedTuple):
    """What a user buys again, None where nothing is known of them, and the family's record."""

    stored: BuyAgain | None
    record: Publication | None


class ProductRead(NamedTuple):
    """A product's Bought Together, strongest first, and whether it is that of its category.

    ``evidence`` are the counts behind the list, where they were asked for and exist.
    """

    pairings: list[Pairing]
    borrowed: bool = False
    evidence: Evidence | None = None


class BoughtTogetherRead(NamedTuple):
    """Bought Together of some products, what two of them lead to ``also``, and the record.

    Before the first publication has finished there is no record and nothing else.
    """

    members: dict[str, ProductRead]
    also: dict[tuple[str, str], list[Pairing]]
    record: Publication | None

    def without(self, left_out: Collection[str]) -> "BoughtTogetherRead":
        """The same with the products left out of every list whose ids have these texts."""
        return BoughtTogetherRead(
            {
                product_id: member._replace(pairings=without(member.pairings, left_out))
                for product_id, member in self.members.items()
            },
            {pair: without(pairings, left_out) for pair, pairings in self.also.items()},
            self.record,
        )


def without(products: Sequence[Product], left_out: Collection[str]) -> list[Product]:
    """The products, in their order, whose ids are not among the texts ``left_out``."""
    if not left_out:
        return list(products)
    return [product for product in products if encode_id(product.product_id) not in left_out]
