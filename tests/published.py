"""Lists in Redis as a publication leaves them, for tests of who reads them."""

from datetime import UTC, datetime

import redis
from msgspec import UNSET, UnsetType

from serving.contract import (
    Because,
    BuyAgain,
    Evidence,
    Explained,
    Explanations,
    Family,
    Id,
    IdKind,
    PairCount,
    Pairing,
    Publication,
    Repeat,
    ScoredProduct,
    Source,
    TopBuys,
    also_key_and_field,
    borrowed_key,
    bought_together_key,
    encode_also,
    encode_buy_again,
    encode_evidence,
    encode_explanations,
    encode_id,
    encode_pairings,
    encode_publication,
    encode_top_buys,
    global_top_buys_key,
    list_key,
    publication_key,
    user_top_buys_key,
)

GENERATED = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)
THROUGH = datetime(2025, 3, 1, 2, 59, tzinfo=UTC)


class Publisher:
    """Writes what publication would, through the contract."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def top_buys(
        self,
        user_id: Id | None,
        *products: Id,
        source: Source | None = None,
        pinned: list[Id] | UnsetType = UNSET,
    ) -> None:
        key = global_top_buys_key() if user_id is None else user_top_buys_key(user_id)
        value = TopBuys(
            source=source or ("global" if user_id is None else "personal"),
            model_version="als-7",
            generated_at=GENERATED,
            orders_through=THROUGH,
            products=[ScoredProduct(product, 1.0 / rank) for rank, product in _ranked(products)],
            pinned=pinned,
        )
        self.client.set(key, encode_top_buys(value))

    def bought_together(self, product_id: Id, *products: Id) -> None:
        pairings = [Pairing(product, 8.0 / rank) for rank, product in _ranked(products)]
        self.client.zadd(bought_together_key(product_id), encode_pairings(pairings))

    def because(self, user_id: Id, reasons: dict[Id, Because]) -> None:
        value = Explanations(
            model_version="als-7",
            generated_at=GENERATED,
            because=[Explained(product, because) for product, because in reasons.items()],
        )
        key = list_key(Family.USER_TOP_BUYS_BECAUSE, user_id)
        self.client.set(key, encode_explanations(value))

    def buy_again(self, user_id: Id, *repeats: Repeat) -> None:
        value = BuyAgain(
            model_version="als-7",
            generated_at=GENERATED,
            orders_through=THROUGH,
            products=list(repeats),
        )
        self.client.set(list_key(Family.USER_BUY_AGAIN, user_id), encode_buy_again(value))

    def evidence(
        self, product_id: Id, *counts: PairCount, baskets: int, orders: int, borrowed: bool = False
    ) -> None:
        value = Evidence(
            model_version="rules-3",
            baskets=baskets,
            orders=orders,
            products=list(counts),
            borrowed=borrowed,
        )
        key = list_key(Family.BOUGHT_TOGETHER_EVIDENCE, product_id)
        self.client.set(key, encode_evidence(value))

    def also(self, one: Id, other: Id, *pairings: Pairing) -> None:
        key, field = also_key_and_field(one, other)
        self.client.hset(key, field, encode_also(pairings))

    def borrow(self, *product_ids: Id) -> None:
        self.client.sadd(borrowed_key(), *map(encode_id, product_ids))

    def record(
        self,
        family: Family,
        id_kind: IdKind = "integer",
        *,
        keys: int = 1,
        model_version: str = "rules-3",
        orders_through: datetime | None = None,
    ) -> None:
        value = Publication(
            family=family,
            model_version=model_version,
            generated_at=GENERATED,
            orders_through=orders_through,
            finished_at=GENERATED,
            keys=keys,
            id_kind=id_kind,
        )
        self.client.set(publication_key(family), encode_publication(value))


def _ranked(products: tuple[Id, ...]) -> enumerate[Id]:
    return enumerate(products, start=1)
