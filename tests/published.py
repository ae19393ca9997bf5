"""Lists in Redis as a publication leaves them, for tests of who reads them."""

from datetime import UTC, datetime

import redis

from serving.contract import (
    Family,
    Id,
    IdKind,
    Pairing,
    Publication,
    ScoredProduct,
    TopBuys,
    bought_together_key,
    encode_pairings,
    encode_publication,
    encode_top_buys,
    global_top_buys_key,
    publication_key,
    user_top_buys_key,
)

GENERATED = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)
THROUGH = datetime(2025, 3, 1, 2, 59, tzinfo=UTC)


class Publisher:
    """Writes what publication would, through the contract."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def top_buys(self, user_id: Id | None, *products: Id) -> None:
        key = global_top_buys_key() if user_id is None else user_top_buys_key(user_id)
        value = TopBuys(
            source="global" if user_id is None else "personal",
            model_version="als-7",
            generated_at=GENERATED,
            orders_through=THROUGH,
            products=[ScoredProduct(product, 1.0 / rank) for rank, product in _ranked(products)],
        )
        self.client.set(key, encode_top_buys(value))

    def bought_together(self, product_id: Id, *products: Id) -> None:
        pairings = [Pairing(product, 8.0 / rank) for rank, product in _ranked(products)]
        self.client.zadd(bought_together_key(product_id), encode_pairings(pairings))

    def record(
        self,
        family: Family,
        id_kind: IdKind = "integer",
        *,
        model_version: str = "rules-3",
        orders_through: datetime | None = None,
    ) -> None:
        value = Publication(
            family=family,
            model_version=model_version,
            generated_at=GENERATED,
            orders_through=orders_through,
            finished_at=GENERATED,
            keys=1,
            id_kind=id_kind,
        )
        self.client.set(publication_key(family), encode_publication(value))


def _ranked(products: tuple[Id, ...]) -> enumerate[Id]:
    return enumerate(products, start=1)
