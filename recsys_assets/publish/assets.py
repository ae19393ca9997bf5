"""The assets of the stage publish: three families of keys in Redis."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from recsys_assets import tables
from recsys_assets.ingest.assets import user_product_interactions
from recsys_assets.learn.assets import ALS_MODEL, BASKET_RULES, als_model, basket_rules
from recsys_assets.progress import Progress
from recsys_assets.resources import ArtifactStore, RedisPublisher, ShopDatabase
from serving.contract import Family, Id

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_assets.publish.redis_writer import Client


class TopBuysConfig(dg.Config):
    """Length of the published lists."""

    length: int = Field(100, ge=1, le=1000, description="products in a list, at most")


class UserTopBuysConfig(TopBuysConfig):
    """How ALS and a user's own purchases are blended."""

    own_weight: float = Field(
        2.0, ge=0, description="score of the user's most bought product, added to that of ALS"
    )


class BoughtTogetherConfig(dg.Config):
    """Which rules make a list."""

    length: int = Field(50, ge=1, le=1000, description="products in a list, at most")
    min_orders: int = Field(5, ge=1, description="orders that a rule rests on, at least")


@dg.asset(
    deps=[als_model, user_product_interactions],
    group_name="publish",
    kinds={"python", "redis"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
    pool=Family.USER_TOP_BUYS.value,
)
def user_top_buys(
    context: dg.AssetExecutionContext,
    config: UserTopBuysConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
    redis: RedisPublisher,
) -> dg.MaterializeResult[None]:
    """`user:{id}:top_buys` for every user with purchases: ALS blended with their own purchases.

    The exact best products of all, computed in blocks of users so that memory stays bounded.
    """
    import numpy as np

    from recsys_assets.learn.als import AlsModel
    from recsys_assets.learn.artifacts import from_arrays
    from recsys_assets.learn.matrix import interactions_from_arrow
    from recsys_assets.publish.redis_writer import Edition, publish
    from recsys_assets.publish.top_buys import blended_top_n, factors_of, personal_lists

    started = time.monotonic()
    watermark = shop.watermark()
    header, arrays = artifacts.load(ALS_MODEL)
    model = from_arrays(AlsModel, arrays)
    weights = shop.read(lambda s: tables.weights(s, watermark, shop.half_life))
    interactions = interactions_from_arrow(weights)
    user_ids, product_ids = interactions.user_ids, interactions.product_ids
    read = time.monotonic()
    lists = blended_top_n(
        factors_of(user_ids, model.user_ids, model.user_factors),
        factors_of(product_ids, model.product_ids, model.product_factors),
        interactions.matrix,
        popularity=np.asarray(interactions.matrix.sum(axis=0), np.float32).ravel(),
        own_weight=config.own_weight,
        n=config.length,
    )
    edition = Edition(header.version, datetime.now(UTC), watermark)
    progress = Progress(context.log.info, "users published", len(user_ids))
    with redis.client() as client:
        published = publish(
            client,
            Family.USER_TOP_BUYS,
            edition,
            personal_lists(lists, user_ids, product_ids, edition),
            user_ids,
            progress,
        )
        examples = _top_buys_of(client, user_ids[:: max(1, len(user_ids) // 3)][:3].tolist())
    return dg.MaterializeResult(
        metadata={
            "users": published.keys,
            "users_left_out": len(user_ids) - published.keys,
            "users_unknown_to_model": int((~np.isin(user_ids, model.user_ids)).sum()),
            "keys_removed": published.removed,
            "model_version": header.version,
            "orders_through": dg.MetadataValue.timestamp(watermark),
            "seconds_reading": read - started,
            "seconds": time.monotonic() - started,
            "examples": dg.MetadataValue.md(shop.side_by_side(examples)),
        }
    )


@dg.asset(
    deps=[user_product_interactions],
    group_name="publish",
    kinds={"postgres", "redis"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
    pool=Family.GLOBAL_TOP_BUYS.value,
)
def global_top_buys(
    context: dg.AssetExecutionContext,
    config: TopBuysConfig,
    shop: ShopDatabase,
    redis: RedisPublisher,
) -> dg.MaterializeResult[None]:
    """`global:top_buys`, for guests and unknown users: products by decayed number of purchases.

    From the popularity that is kept up beside the interactions, orders of guests included.
    """
    import numpy as np

    from recsys_assets.figures import ranking
    from recsys_assets.publish.popularity import popular_list
    from recsys_assets.publish.redis_writer import Edition, publish

    started = time.monotonic()
    watermark = shop.watermark()
    popularity = shop.read(lambda s: tables.popularity(s, watermark, shop.half_life))
    generated_at = datetime.now(UTC)
    edition = Edition(f"{generated_at:%Y%m%dT%H%M%S.%fZ}", generated_at, watermark)
    with redis.client() as client:
        publish(
            client,
            Family.GLOBAL_TOP_BUYS,
            edition,
            [popular_list(popularity, config.length, edition)],
            popularity["product_id"].to_numpy(),
        )
    context.log.info(f"{len(popularity):,} products sold; the first {config.length} published")
    return dg.MaterializeResult(
        metadata={
            "products_sold": len(popularity),
            "products_published": min(config.length, len(popularity)),
            "model_version": edition.model_version,
            "orders_through": dg.MetadataValue.timestamp(watermark),
            "seconds": time.monotonic() - started,
            "most_popular": dg.MetadataValue.md(_most_popular(shop, popularity)),
            "popularity": dg.MetadataValue.md(
                ranking(
                    np.asarray(popularity["orders"]),
                    title="Popularity",
                    x="rank of the product",
                    y="orders",
                )
            ),
        }
    )


@dg.asset(
    deps=[basket_rules],
    group_name="publish",
    kinds={"python", "redis"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
    pool=Family.BOUGHT_TOGETHER.value,
)
def bought_together(
    context: dg.AssetExecutionContext,
    config: BoughtTogetherConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
    redis: RedisPublisher,
) -> dg.MaterializeResult[None]:
    """`product:{id}:bought_together`: for every product the strongest rules it is antecedent of.

    Ordered by strength, the lift shrunk by the orders expected by chance, so that coincidences of
    rare products do not come first.
    """
    import numpy as np

    from recsys_assets.learn.artifacts import from_arrays
    from recsys_assets.learn.rules import BasketRules, top_consequents
    from recsys_assets.publish.bought_together import pairing_lists
    from recsys_assets.publish.redis_reader import read_bought_together
    from recsys_assets.publish.redis_writer import Edition, publish

    started = time.monotonic()
    header, arrays = artifacts.load(BASKET_RULES)
    rules = from_arrays(BasketRules, arrays)
    top = top_consequents(rules, config.length, config.min_orders)
    listed = np.flatnonzero(np.diff(top.indptr))
    edition = Edition(header.version, datetime.now(UTC), header.orders_through)
    progress = Progress(context.log.info, "products published", len(listed))
    with redis.client() as client:
        published = publish(
            client,
            Family.BOUGHT_TOGETHER,
            edition,
            pairing_lists(rules, top),
            rules.product_ids[listed],
            progress,
        )
        best = listed[np.argsort(-rules.product_orders[listed], kind="stable")[:3]]
        examples = {
            str(product_id): [p.product_id for p in read_bought_together(client, product_id)]
            for product_id in rules.product_ids[best].tolist()
        }
    names = shop.product_names(list(examples))
    examples = {f"with {names.get(product, product)}": lists for product, lists in examples.items()}
    return dg.MaterializeResult(
        metadata={
            "products": published.keys,
            "products_sold": len(rules.product_ids),
            "pairings": len(top.consequents),
            "keys_removed": published.removed,
            "model_version": header.version,
            "orders_through": dg.MetadataValue.timestamp(header.orders_through),
            "seconds": time.monotonic() - started,
            "examples": dg.MetadataValue.md(shop.side_by_side(examples)),
        }
    )


def _most_popular(shop: ShopDatabase, popularity: "pa.Table", most: int = 10) -> str:
    """A table of the most popular products, by name."""
    from recsys_assets.figures import markdown_table

    best = popularity.slice(0, most).to_pylist()
    names = shop.product_names([row["product_id"] for row in best])
    return markdown_table(
        [
            {
                "product": names.get(str(row["product_id"]), row["product_id"]),
                "orders": row["orders"],
                "decayed": row["weight"],
            }
            for row in best
        ]
    )


def _top_buys_of(client: "Client", user_ids: list[Id]) -> dict[str, list[Id]]:
    """The published lists of a few users, by a title."""
    from recsys_assets.publish.redis_reader import read_user_top_buys

    return {
        f"user {user_id}": [product.product_id for product in top_buys.products]
        for user_id in user_ids
        if (top_buys := read_user_top_buys(client, user_id))
    }
