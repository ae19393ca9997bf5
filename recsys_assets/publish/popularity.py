"""The guests' Top Buys: products by decayed number of purchases, guests' orders included."""

from datetime import UTC, datetime

import pyarrow as pa

from recsys_assets import tables
from recsys_assets.ingest.watermark import required_watermark
from recsys_assets.publish.changed_users import publishing
from recsys_assets.publish.redis_client import Client
from recsys_assets.publish.redis_writer import Edition, publish
from recsys_assets.shop_session import ShopSession
from serving import contract
from serving.contract import Family, ScoredProduct, TopBuys


def publish_popular(
    session: ShopSession, client: Client, length: int, most: int | None = None
) -> tuple[Edition, pa.Table]:
    """Publish the ``length`` most popular products from the popularity kept up in PostgreSQL.

    Returns what the list knows, and the popularity: (product_id, weight, orders) of the ``most``
    popular products, or of all. Raises ShopError before the first refresh.
    """
    with publishing(session.connection, session.shop, Family.GLOBAL_TOP_BUYS):
        watermark = required_watermark(session.connection, session.shop)
        popularity = session.read(
            tables.popularity(session.shop, watermark, session.half_life, most)
        )
        now = datetime.now(UTC)
        edition = Edition(f"{now:%Y%m%dT%H%M%S.%fZ}", now, watermark)
        publish(
            client,
            Family.GLOBAL_TOP_BUYS,
            edition,
            [popular_list(popularity, length, edition)],
            popularity["product_id"].to_numpy(),
        )
    return edition, popularity


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
