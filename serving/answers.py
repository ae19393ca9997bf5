"""The bodies of the API, and how a stored list becomes one.

Pure: no Redis, no HTTP.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct

from serving.contract import (
    Family,
    Id,
    Pairing,
    Publication,
    ScoredProduct,
    Source,
    TopBuys,
    decode_id,
    encode_id,
    known_through,
)

_Product = TypeVar("_Product", ScoredProduct, Pairing)

_FAMILIES: dict[Source, Family] = {
    "personal": Family.USER_TOP_BUYS,
    "own_purchases": Family.USER_TOP_BUYS,
    "global": Family.GLOBAL_TOP_BUYS,
}

ModelVersion = Annotated[str | None, Meta(description="The model that made the list.")]
GeneratedAt = Annotated[datetime | None, Meta(description="When the list was made.")]
OrdersThrough = Annotated[
    datetime | None, Meta(description="The list knows the orders up to this moment.")
]


class TopBuysAnswer(Struct, frozen=True, kw_only=True):
    """A user's or the guests' products, best first."""

    user_id: Annotated[Id | None, Meta(description="The user asked for; null for a guest.")]
    source: Annotated[
        Source,
        Meta(
            description="Whether this is the user's own list, by the model (personal) or by what "
            "they have bought where no model has been proven (own_purchases), or that for guests."
        ),
    ]
    model_version: ModelVersion
    generated_at: GeneratedAt
    orders_through: OrdersThrough
    products: list[ScoredProduct]


class BoughtTogetherAnswer(Struct, frozen=True, kw_only=True):
    """The products bought together with one, strongest first."""

    product_id: Annotated[Id, Meta(description="The product asked for.")]
    model_version: ModelVersion
    generated_at: GeneratedAt
    orders_through: OrdersThrough
    products: list[Pairing]


class Liveness(Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(Struct, frozen=True, kw_only=True):
    """What there is to serve."""

    families: Annotated[
        dict[Family, Publication | None],
        Meta(description="The last publication of each family of lists; null: never published."),
    ]


def top_buys_answer(
    user_id: str | None,
    stored: TopBuys | None,
    records: Mapping[Family, Publication | None],
    *,
    limit: int,
    exclude: frozenset[str],
) -> TopBuysAnswer:
    """The first ``limit`` products of a stored list that are not in ``exclude``.

    Without a stored list the answer is an empty one for guests. ``records`` are those of users' and
    guests' lists, as far as they were read.
    """
    shown = None if user_id is None else _shown(user_id, records.get(Family.USER_TOP_BUYS))
    if stored is None:
        return TopBuysAnswer(
            user_id=shown,
            source="global",
            model_version=None,
            generated_at=None,
            orders_through=None,
            products=[],
        )
    return TopBuysAnswer(
        user_id=shown,
        source=stored.source,
        model_version=stored.model_version,
        generated_at=stored.generated_at,
        orders_through=known_through(stored, records.get(_FAMILIES[stored.source])),
        products=_remaining(stored.products, exclude)[:limit],
    )


def bought_together_answer(
    product_id: str,
    pairings: list[Pairing],
    record: Publication | None,
    *,
    limit: int,
    exclude: frozenset[str],
) -> BoughtTogetherAnswer:
    """The first ``limit`` of ``pairings`` that are not in ``exclude``."""
    return BoughtTogetherAnswer(
        product_id=_shown(product_id, record),
        model_version=record.model_version if record else None,
        generated_at=record.generated_at if record else None,
        orders_through=record.orders_through if record else None,
        products=_remaining(pairings, exclude)[:limit],
    )


def _shown(text: str, record: Publication | None) -> Id:
    return decode_id(text, record.id_kind) if record else text


def _remaining(products: list[_Product], exclude: frozenset[str]) -> list[_Product]:
    if not exclude:
        return products
    return [product for product in products if encode_id(product.product_id) not in exclude]
