"""What the lists and records in Redis say: their values, before they are encoded."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from serving.contract.ids import Id, IdKind

SCHEMA_VERSION = 1

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment with its time zone; decoding refuses one without."""


class Family(StrEnum):
    """The families of published keys; each is published as a whole and has one record."""

    USER_TOP_BUYS = "user_top_buys"
    USER_TOP_BUYS_BECAUSE = "user_top_buys_because"
    USER_BUY_AGAIN = "user_buy_again"
    GLOBAL_TOP_BUYS = "global_top_buys"
    BOUGHT_TOGETHER = "bought_together"
    BOUGHT_TOGETHER_EVIDENCE = "bought_together_evidence"
    BOUGHT_TOGETHER_ALSO = "bought_together_also"


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


class ExampleUsers(msgspec.Struct, frozen=True, kw_only=True):
    """A few users who have lists, for people to begin with."""

    schema: int = SCHEMA_VERSION
    user_ids: list[Id]


class Pairing(msgspec.Struct, frozen=True):
    """One product of a Bought Together list; strength is the shrunk lift of the rule."""

    product_id: Id
    strength: float


def known_through(made: TopBuys | BuyAgain, record: Publication | None) -> datetime | None:
    """The moment up to which a list knows its user's orders, or the guests' list everybody's.

    It is that of the family's record where this is of the same model: lists that have not been made
    anew since then are those to which no order has come.
    """
    if record is None or record.model_version != made.model_version:
        return made.orders_through
    return max(filter(None, (made.orders_through, record.orders_through)), default=None)
