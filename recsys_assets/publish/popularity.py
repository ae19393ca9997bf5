"""The guests' Top Buys: products by decayed number of purchases, guests' orders included."""

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from msgspec import UNSET

from recsys_assets import tables
from recsys_assets.ingest.watermark import required_watermark
from recsys_assets.learn.matrix import as_ids
from recsys_assets.publish.changed_users import publishing
from recsys_assets.publish.merchandising import Scope
from recsys_assets.publish.redis_client import Client
from recsys_assets.publish.redis_writer import Edition, publish
from recsys_assets.publish.selection import Assortment, selection
from recsys_assets.shop_session import ShopSession
from serving import contract
from serving.contract import Family, ScoredProduct, TopBuys


def publish_popular(
    session: ShopSession,
    client: Client,
    length: int,
    assortment: Assortment,
    *,
    whole: bool = True,
) -> tuple[Edition, pa.Table]:
    """Publish the ``length`` most popular products from the popularity kept up in PostgreSQL.

    Returns what the list knows, and the popularity: (product_id, weight, orders) of all products,
    best first, or where it is not asked for as a ``whole``, of those that the list may be of. It is
    the same list. Raises ShopError before the first refresh.
    """
    most = None if whole else rows_needed(assortment, length)
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
            [popular_list(popularity, length, edition, assortment)],
            popularity["product_id"].to_numpy(),
        )
    return edition, popularity


def rows_needed(assortment: Assortment, length: int) -> int | None:
    """How many of the most popular products a list of ``length`` may be of; None: of all.

    Each of those left out lets one more come in. Pins are in the list wherever they stand.
    """
    wishes = assortment.rules.of(Scope.TOP_BUYS)
    if assortment.most_per_category or wishes.boosts:
        return None
    return length + len(assortment.unavailable) + len(wishes.blocked)


def popular_list(
    popularity: pa.Table, length: int, edition: Edition, assortment: Assortment
) -> tuple[str, bytes]:
    """The Redis key and value of the guests' list.

    ``popularity`` has the columns (product_id, weight), best first; the score is the weight, in the
    places that ``assortment`` leaves.
    """
    ids = as_ids(popularity["product_id"].combine_chunks())
    weights = popularity["weight"].to_numpy().astype(np.float32)[np.newaxis, :]
    select, adjusted = selection(assortment, Scope.TOP_BUYS, ids)
    n = min(length, len(ids))
    places, scores = select(weights, n, np.arange(len(ids))) if n else (np.empty((1, 0), int),) * 2
    products = [
        ScoredProduct(product_id, round(score, 6))
        for product_id, score in zip(
            adjusted.product_ids[places[0]].tolist(), scores[0].tolist(), strict=True
        )
        if math.isfinite(score)
    ]
    pinned = set(adjusted.product_ids[adjusted.pinned].tolist())
    value = TopBuys(
        source="global",
        model_version=edition.model_version,
        generated_at=edition.generated_at,
        orders_through=edition.orders_through,
        products=products,
        pinned=[p.product_id for p in products if p.product_id in pinned] or UNSET,
    )
    return contract.global_top_buys_key(), contract.encode_top_buys(value)
