"""The bodies of the API, and how what was read becomes one.

Pure: no Redis, no HTTP.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import hypot
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from serving.contract import (
    Because,
    BecausePinned,
    BecausePopular,
    Evidence,
    Explanations,
    Family,
    Id,
    Pairing,
    Publication,
    Repeat,
    ScoredProduct,
    Source,
    decode_id,
    encode_id,
    known_through,
)
from serving.readings import BoughtTogetherRead, BuyAgainRead, ProductRead, TopBuysRead, without

FAMILIES: dict[Source, Family] = {
    "personal": Family.USER_TOP_BUYS,
    "own_purchases": Family.USER_TOP_BUYS,
    "global": Family.GLOBAL_TOP_BUYS,
}
"""Which family a Top Buys list belongs to."""

ModelVersion = Annotated[str | None, Meta(description="The model that made the list.")]
GeneratedAt = Annotated[datetime | None, Meta(description="When the list was made.")]
OrdersThrough = Annotated[
    datetime | None, Meta(description="The list knows the orders up to this moment.")
]
RuleSource = Annotated[
    Literal["product", "category"],
    Meta(description="Whose orders this is from: the product's own, or all of its category's."),
]


class TopBuysProduct(Struct, frozen=True, kw_only=True):
    """One product of a Top Buys list; scores are comparable within their list only."""

    product_id: Id
    score: float
    because: Annotated[
        Because | UnsetType | None,
        Meta(description="With explain, why this product: null where that is not known."),
    ] = UNSET


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
    products: list[TopBuysProduct]
    stale: Annotated[
        bool | UnsetType,
        Meta(description="True while Redis is away: this is the guests' list as last known."),
    ] = UNSET


class BuyAgainAnswer(Struct, frozen=True, kw_only=True):
    """The products that a user buys again and again, those that are due first."""

    user_id: Annotated[Id, Meta(description="The user asked for.")]
    model_version: ModelVersion
    generated_at: GeneratedAt
    orders_through: OrdersThrough
    products: list[Repeat]


class Measures(Struct, frozen=True, kw_only=True):
    """How often two products share orders; of a category's list, how often it does with one."""

    orders: Annotated[int, Meta(description="Orders with both.")]
    support: Annotated[float, Meta(description="The share of all orders that have both.")]
    confidence: Annotated[
        float,
        Meta(description="The share of the orders with the product asked for that have both."),
    ]
    lift: Annotated[
        float, Meta(description="Orders with both, in relation to what chance would bring about.")
    ]


class BoughtTogetherProduct(Struct, frozen=True, kw_only=True):
    """One product of a Bought Together list; strength is the shrunk lift."""

    product_id: Id
    strength: float
    evidence: Annotated[
        Measures | UnsetType | None,
        Meta(description="With explain, the evidence: null where there is none."),
    ] = UNSET


class BoughtTogetherAnswer(Struct, frozen=True, kw_only=True):
    """The products bought together with one, strongest first."""

    product_id: Annotated[Id, Meta(description="The product asked for.")]
    source: RuleSource
    model_version: ModelVersion
    generated_at: GeneratedAt
    orders_through: OrdersThrough
    products: list[BoughtTogetherProduct]


class Contribution(Struct, frozen=True, kw_only=True):
    """The strength of a product beside one of the cart, or beside two of them together."""

    product_ids: Annotated[list[Id], Meta(description="One product of the cart, or two.")]
    strength: float
    evidence: Annotated[
        Measures | None, Meta(description="Null where there is none, as for two products.")
    ]


class CartProduct(Struct, frozen=True, kw_only=True):
    """One product to go with a cart; strength is the Euclidean norm of its contributions."""

    product_id: Id
    strength: float
    source: RuleSource
    contributions: Annotated[
        list[Contribution] | UnsetType,
        Meta(description="With explain, what the strength is made of, strongest first."),
    ] = field(name="with", default=UNSET)


class CartAnswer(Struct, frozen=True, kw_only=True):
    """The products bought together with those of a cart, strongest first."""

    product_ids: Annotated[list[Id], Meta(description="The products asked for.")]
    model_version: ModelVersion
    generated_at: GeneratedAt
    orders_through: OrdersThrough
    products: list[CartProduct]


def top_buys_answer(
    user_id: str | None,
    read: TopBuysRead,
    *,
    limit: int,
    exclude: frozenset[str],
    explain: bool = False,
) -> TopBuysAnswer:
    """The first ``limit`` products of the list read that are not in ``exclude``.

    Without a list the answer is an empty one for guests.
    """
    stored, records = read.stored, read.records
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
    products = without(stored.products, exclude)[:limit]
    if explain and stored.source == "global":
        pinned = dict.fromkeys(stored.pinned or (), BecausePinned())
        explained = _explained(products, pinned, BecausePopular())
    elif explain:
        explained = _explained(products, _reasons(read.explanations), None)
    else:
        explained = [TopBuysProduct(product_id=p.product_id, score=p.score) for p in products]
    return TopBuysAnswer(
        user_id=shown,
        source=stored.source,
        model_version=stored.model_version,
        generated_at=stored.generated_at,
        orders_through=known_through(stored, records.get(FAMILIES[stored.source])),
        products=explained,
        stale=read.stale or UNSET,
    )


def buy_again_answer(
    user_id: str, read: BuyAgainRead, *, limit: int, exclude: frozenset[str], now: datetime
) -> BuyAgainAnswer:
    """The first ``limit`` products of the list read that are not in ``exclude``, due ones first."""
    stored, record = read
    remaining = without(stored.products, exclude) if stored else []
    return BuyAgainAnswer(
        user_id=_shown(user_id, record),
        model_version=stored.model_version if stored else None,
        generated_at=stored.generated_at if stored else None,
        orders_through=known_through(stored, record) if stored else None,
        products=due_first(remaining, now)[:limit],
    )


def due_first(products: list[Repeat], now: datetime) -> list[Repeat]:
    """Products that are due by the user's own interval, then the others, both in their order.

    What is due changes as time passes, so it is decided when the list is read.
    """
    return sorted(products, key=lambda product: product.due_at is None or product.due_at > now)


def bought_together_answer(
    product_id: str,
    read: BoughtTogetherRead,
    *,
    limit: int,
    exclude: frozenset[str],
    explain: bool = False,
) -> BoughtTogetherAnswer:
    """The first ``limit`` products of the list read that are not in ``exclude``."""
    record = read.record
    member = read.members.get(product_id, ProductRead([]))
    measures = _measures(member.evidence, record)
    return BoughtTogetherAnswer(
        product_id=_shown(product_id, record),
        source="category" if member.borrowed else "product",
        model_version=record.model_version if record else None,
        generated_at=record.generated_at if record else None,
        orders_through=record.orders_through if record else None,
        products=[
            BoughtTogetherProduct(
                product_id=p.product_id,
                strength=p.strength,
                evidence=measures.get(p.product_id) if explain else UNSET,
            )
            for p in without(member.pairings, exclude)[:limit]
        ],
    )


def cart_answer(
    product_ids: Sequence[str],
    read: BoughtTogetherRead,
    *,
    limit: int,
    exclude: frozenset[str],
    explain: bool = False,
) -> CartAnswer:
    """The ``limit`` products that go best with a cart, none of it and none of ``exclude``."""
    record = read.record
    lists = [*(member.pairings for member in read.members.values()), *read.also.values()]
    products = without(combine(lists), exclude.union(product_ids))[:limit]
    own = {
        pairing.product_id
        for member in read.members.values()
        if not member.borrowed
        for pairing in member.pairings
    }
    own |= {pairing.product_id for pairings in read.also.values() for pairing in pairings}
    contributions = _contributions(read) if explain else None
    return CartAnswer(
        product_ids=[_shown(product_id, record) for product_id in product_ids],
        model_version=record.model_version if record else None,
        generated_at=record.generated_at if record else None,
        orders_through=record.orders_through if record else None,
        products=[
            CartProduct(
                product_id=p.product_id,
                strength=p.strength,
                source="product" if p.product_id in own else "category",
                contributions=contributions[p.product_id] if contributions else UNSET,
            )
            for p in products
        ],
    )


def combine(lists: Iterable[Sequence[Pairing]]) -> list[Pairing]:
    """All products of some Bought Together lists, each with the Euclidean norm of its strengths.

    The norm lies between the sum, by which many weak rules outdo a strong one, and the maximum, by
    which it does not matter that several agree; ``docs/evaluation.md`` has what it is worth.
    Strongest first; among equals the one whose id's text is smaller. The order of the lists makes
    no difference.
    """
    strengths: dict[Id, list[float]] = {}
    for pairings in lists:
        for pairing in pairings:
            strengths.setdefault(pairing.product_id, []).append(pairing.strength)
    combined = [Pairing(id_, hypot(*sorted(each))) for id_, each in strengths.items()]
    return sorted(combined, key=lambda p: (-p.strength, encode_id(p.product_id)))


def _contributions(read: BoughtTogetherRead) -> dict[Id, list[Contribution]]:
    """What each product of the lists gets from each member and each two of them."""
    contributions: dict[Id, list[Contribution]] = {}
    for product_id, member in read.members.items():
        shown, measures = [_shown(product_id, read.record)], _measures(member.evidence, read.record)
        for p in member.pairings:
            contributions.setdefault(p.product_id, []).append(
                Contribution(
                    product_ids=shown, strength=p.strength, evidence=measures.get(p.product_id)
                )
            )
    for pair, pairings in read.also.items():
        shown = [_shown(product_id, read.record) for product_id in pair]
        for p in pairings:
            contributions.setdefault(p.product_id, []).append(
                Contribution(product_ids=shown, strength=p.strength, evidence=None)
            )
    for each in contributions.values():
        each.sort(key=lambda contribution: -contribution.strength)
    return contributions


def _measures(evidence: Evidence | None, record: Publication | None) -> dict[Id, Measures]:
    """Support, confidence and lift of each product, from the counts of the record's model.

    Counts of another model are from before or after the list: they are passed over.
    """
    if evidence is None or record is None or evidence.model_version != record.model_version:
        return {}
    return {
        pair.product_id: Measures(
            orders=pair.orders,
            support=pair.orders / evidence.baskets,
            confidence=pair.orders / evidence.orders,
            lift=pair.orders * evidence.baskets / (evidence.orders * pair.product_orders),
        )
        for pair in evidence.products
    }


def _reasons(explanations: Explanations | None) -> dict[Id, Because]:
    if explanations is None:
        return {}
    return {explained.product_id: explained.because for explained in explanations.because}


def _explained(
    products: Iterable[ScoredProduct], reasons: Mapping[Id, Because], otherwise: Because | None
) -> list[TopBuysProduct]:
    return [
        TopBuysProduct(
            product_id=p.product_id, score=p.score, because=reasons.get(p.product_id, otherwise)
        )
        for p in products
    ]


def _shown(text: str, record: Publication | None) -> Id:
    return decode_id(text, record.id_kind) if record else text
