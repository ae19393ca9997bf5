"""The guests' Top Buys: products by decayed number of purchases, guests' orders included."""

import pyarrow as pa

from recsys_assets.publish.redis_writer import Edition
from serving import contract
from serving.contract import ScoredProduct, TopBuys


def popular_list(popularity: pa.Table, length: int, edition: Edition) -> tuple[str, bytes]:
    """The Redis key and value of the guests' list.

    ``popularity`` has the columns (product_id, weight), best first; the score is the weight.
    """
    best = popularity.slice(0, length)
    products = [
        ScoredProduct(product_id, round(weight, 6))
        for product_id, weight in zip(
            best["product_id"].to_pylist(), best["weight"].to_pylist(), strict=True
        )
    ]
    value = TopBuys(
        source="global",
        model_version=edition.model_version,
        generated_at=edition.generated_at,
        orders_through=edition.orders_through,
        products=products,
    )
    return contract.global_top_buys_key(), contract.encode_top_buys(value)
