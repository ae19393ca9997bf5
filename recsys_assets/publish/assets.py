"""The assets of the stage publish: three families of keys in Redis, and the products' names."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from recsys_assets.evaluate.assets import bought_together_backtest, top_buys_backtest
from recsys_assets.ingest.assets import user_product_interactions
from recsys_assets.learn.assets import BASKET_RULES
from recsys_assets.progress import Progress
from recsys_assets.resources import ArtifactStore, RedisPublisher, ShopDatabase
from serving.contract import Family, Id

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_assets.publish.changed_users import Lengths
    from recsys_assets.publish.personal import PublishedUsers
    from recsys_assets.publish.redis_client import Client
    from recsys_assets.publish.redis_room import Room


LENGTH = 120  # 100 to show, and some to spare for what must not be shown
ROOM_FOR_USERS, ROOM_FOR_PRODUCTS = (
    dg.AssetCheckSpec(
        "room_in_redis",
        asset=asset,
        blocking=True,
        description="Redis has memory for the lists; otherwise none is written.",
    )
    for asset in ("user_top_buys", "bought_together")
)


class TopBuysConfig(dg.Config):
    """Length of the published lists."""

    length: int = Field(LENGTH, ge=1, le=1000, description="products in a list, at most")


class UserTopBuysConfig(TopBuysConfig):
    """How ALS and a user's own purchases are blended, and whose lists are published."""

    only_changed: bool = Field(
        False,
        description="only users whose orders have changed, by model and config of the last"
        " publication of all",
    )
    explained: int = Field(
        20, ge=0, le=1000, description="products of a list that are explained, from the first"
    )
    buy_again: int = Field(
        60, ge=1, le=1000, description="products in a list of Buy Again, at most"
    )

    @property
    def lengths(self) -> "Lengths":
        """The config as the stage takes it."""
        from recsys_assets.publish.changed_users import Lengths

        return Lengths(self.length, self.explained, self.buy_again)


class ProductNamesConfig(dg.Config):
    """Whose names are published."""

    most: int = Field(
        100_000, ge=1, description="products whose names are published, the most popular first"
    )


class BoughtTogetherConfig(dg.Config):
    """Which rules make a list."""

    length: int = Field(60, ge=1, le=1000, description="products in a list, at most")
    min_orders: int = Field(2, ge=1, description="orders that a rule rests on, at least")


@dg.asset(
    deps=[top_buys_backtest, user_product_interactions],
    check_specs=[ROOM_FOR_USERS],
    group_name="publish",
    kinds={"python", "redis"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="2",
)
def user_top_buys(
    context: dg.AssetExecutionContext,
    config: UserTopBuysConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
    redis: RedisPublisher,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """`user:{id}:top_buys` and `user:{id}:buy_again` for every user with purchases.

    Top Buys are ALS blended with their own purchases, the exact best products of all, computed in
    blocks of users so that memory stays bounded; beside them is published why the first are in it.
    Buy Again are the user's own products. With `only_changed`, the same lists for the users alone
    whose orders have changed.
    """
    from recsys_assets.publish.list_making import ListMakers
    from recsys_assets.publish.names import publish_example_users
    from recsys_assets.publish.personal import NoRoomError, publish_users

    started = time.monotonic()
    with shop.session() as session, redis.client() as client:
        try:
            published = publish_users(
                session,
                client,
                ListMakers(artifacts.als_model),
                lengths=config.lengths,
                only_changed=config.only_changed,
                progress=Progress(context.log.info, "users published", shop.count_users()),
            )
        except NoRoomError as error:
            yield _room(ROOM_FOR_USERS, error.room)
            raise dg.Failure(str(error), allow_retries=False) from error
        if not config.only_changed:
            publish_example_users(session, client)
        examples = _top_buys_of(client, shop.some_users(3))
    yield dg.MaterializeResult(
        metadata=top_buys_metadata(published)
        | {
            "seconds": time.monotonic() - started,
            "examples": dg.MetadataValue.md(shop.side_by_side(examples)),
        }
    )
    yield _room(ROOM_FOR_USERS, published.room)


def top_buys_metadata(published: "PublishedUsers") -> dict[str, "int | str | dg.MetadataValue"]:
    """What was published, as the metadata of a materialization."""
    metadata: dict[str, int | str | dg.MetadataValue] = {
        "users": published.written,
        "users_left_out": published.left_out,
        "keys_removed": published.removed,
        "model_version": published.model_version,
        "source": published.source,
        "rules_skipped": len(published.skipped),
    }
    if published.orders_through:
        metadata["orders_through"] = dg.MetadataValue.timestamp(published.orders_through)
    return metadata


@dg.asset(
    deps=[user_product_interactions],
    group_name="publish",
    kinds={"postgres", "redis"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="2",
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
    from recsys_assets.publish.popularity import publish_popular
    from recsys_assets.publish.selection import current_assortment

    started = time.monotonic()
    with shop.session() as session, redis.client() as client:
        assortment = current_assortment(session)
        edition, popularity = publish_popular(session, client, config.length, assortment)
    context.log.info(f"{len(popularity):,} products sold; the first {config.length} published")
    return dg.MaterializeResult(
        metadata={
            "products_sold": len(popularity),
            "products_published": min(config.length, len(popularity)),
            "model_version": edition.model_version,
            "orders_through": dg.MetadataValue.timestamp(edition.orders_through),
            "seconds": time.monotonic() - started,
            "most_popular": dg.MetadataValue.md(_most_popular(shop, popularity)),
            "popularity": dg.MetadataValue.md(
                ranking(
                    np.sort(np.asarray(popularity["orders"]))[::-1],
                    title="Popularity",
                    x="rank of the product",
                    y="orders",
                )
            ),
        }
    )


@dg.asset(
    deps=[bought_together_backtest],
    group_name="publish",
    kinds={"python", "redis"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
    pool=Family.BOUGHT_TOGETHER.value,
    check_specs=[ROOM_FOR_PRODUCTS],
)
def bought_together(
    context: dg.AssetExecutionContext,
    config: BoughtTogetherConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
    redis: RedisPublisher,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """`product:{id}:bought_together`: for every product the strongest rules it is antecedent of.

    Ordered by strength, the lift shrunk by the orders expected by chance, so that coincidences of
    rare products do not come first.
    """
    from recsys_assets.learn.artifacts import from_arrays
    from recsys_assets.learn.rules import BasketRules
    from recsys_assets.publish.bought_together import (
        lists_from_rules,
        publish_pairings,
        room_for_pairings,
    )
    from recsys_assets.publish.redis_writer import Edition
    from recsys_assets.publish.selection import current_assortment
    from recsys_assets.publish.unavailable import publish_unavailable

    started = time.monotonic()
    header, arrays = artifacts.load(BASKET_RULES)
    rules = from_arrays(BasketRules, arrays)
    with shop.session() as session, redis.client() as client:
        assortment = current_assortment(session)
        lists = lists_from_rules(
            rules, assortment, length=config.length, min_orders=config.min_orders
        )
        room = room_for_pairings(client, lists, config.length)
        if not room.fits:
            yield _room(ROOM_FOR_PRODUCTS, room)
            raise dg.Failure(str(room), allow_retries=False)
        published = publish_pairings(
            client,
            lists,
            Edition(header.version, datetime.now(UTC), header.orders_through),
            progress=Progress(context.log.info, "products published", len(lists.listed)),
        )
        publish_unavailable(session, client)
        examples = _bought_with(shop, client, lists.most_ordered(3))
    yield dg.MaterializeResult(
        metadata={
            "products": published.keys,
            "products_borrowing": int(lists.borrowed.sum()),
            "products_sold": len(rules.product_ids),
            "pairings": len(lists.top.consequents),
            "keys_removed": published.removed,
            "rules_skipped": len(assortment.skipped),
            "model_version": header.version,
            "orders_through": dg.MetadataValue.timestamp(header.orders_through),
            "seconds": time.monotonic() - started,
            "examples": dg.MetadataValue.md(shop.side_by_side(examples)),
        }
    )
    yield _room(ROOM_FOR_PRODUCTS, room)


@dg.asset(
    deps=[user_product_interactions],
    group_name="publish",
    kinds={"postgres", "redis"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
)
def product_names(
    context: dg.AssetExecutionContext,
    config: ProductNamesConfig,
    shop: ShopDatabase,
    redis: RedisPublisher,
) -> dg.MaterializeResult[None]:
    """Names of the products that are sold, and what finds them by a part, for the explorer page.

    No list depends on them. A shop without a table of products has none.
    """
    from recsys_assets.publish.names import publish_names

    started = time.monotonic()
    with shop.session() as session, redis.client() as client:
        published = publish_names(session, client, config.most)
        named = session.shop.products is not None and session.shop.products_name is not None
    if not named:
        context.log.info("no table with names of products is configured: none are published")
    return dg.MaterializeResult(
        metadata={
            "names": published.total,
            "names_written": published.written,
            "names_removed": published.removed,
            "search_entries": published.searched,
            "names_configured": named,
            "seconds": time.monotonic() - started,
        }
    )


def _room(spec: dg.AssetCheckSpec, room: "Room | None") -> dg.AssetCheckResult:
    """The check that a publication fits into Redis; None: it was one of a few lists."""
    if room is None:
        return dg.AssetCheckResult(
            check_name=spec.name, passed=True, description="a few lists: not estimated"
        )
    return dg.AssetCheckResult(
        check_name=spec.name,
        passed=room.fits,
        description=str(room),
        metadata={"bytes_needed": room.needed, "bytes_free": room.free},
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


def _bought_with(
    shop: ShopDatabase, client: "Client", product_ids: list[Id]
) -> dict[str, list[Id]]:
    """The published lists of a few products, by a title with the product's name."""
    from recsys_assets.publish.redis_reader import read_bought_together

    names = shop.product_names(product_ids)
    return {
        f"with {names.get(str(product_id), product_id)}": [
            pairing.product_id for pairing in read_bought_together(client, product_id)
        ]
        for product_id in product_ids
    }


def _top_buys_of(client: "Client", user_ids: list[Id]) -> dict[str, list[Id]]:
    """The published lists of a few users, by a title."""
    from recsys_assets.publish.redis_reader import read_user_top_buys

    return {
        f"user {user_id}": [product.product_id for product in top_buys.products]
        for user_id in user_ids
        if (top_buys := read_user_top_buys(client, user_id))
    }
