"""The assets of the stage learn: the ALS model and the basket rules, as pickles in `data/`."""

import time
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, ValidationError

from recsys_assets import tables
from recsys_assets.database import ShopError
from recsys_assets.ingest.assets import order_items, orders, user_product_interactions
from recsys_assets.progress import Progress
from recsys_assets.resources import ArtifactStore, ShopDatabase
from recsys_assets.tuned import misfit

if TYPE_CHECKING:
    from recsys_assets.learn.als import AlsModel
    from recsys_assets.learn.baskets import BasketCounts, Baskets
    from recsys_assets.learn.mining import Mining
    from recsys_assets.learn.recipe import Recipe
    from recsys_assets.learn.rules import BasketRules

ALS_MODEL = "als_model"
BASKET_RULES = "basket_rules"


class AlsConfig(dg.Config):
    """The recipe of Top Buys: what is not given is as `recsys tune` has chosen it, or the default.

    What each parameter does is told in `recsys_assets.learn.blending` and `als`.
    """

    factors: int | None = Field(
        None, ge=1, description="latent factors of users and products; default 128"
    )
    alpha: float | None = Field(
        None, gt=0, description="confidence of one purchase of today; default 1"
    )
    regularization: float | None = Field(
        None, gt=0, description="ridge penalty on the factors; default 10"
    )
    iterations: int | None = Field(
        None, ge=1, description="alternations of users and products; default 15"
    )
    seed: int | None = Field(
        None, ge=0, description="of the factors training starts from; default 7"
    )
    discovery: float | None = Field(
        None,
        ge=0,
        description="score of the most popular product to who never bought it, in purchases of"
        " today; default 0.8",
    )
    affinity: float | None = Field(
        None, ge=0, le=50, description="by how much the factors of ALS raise that score; default 6"
    )
    popularity: float | None = Field(
        None, ge=0, description="power of the popularity of the last weeks in it; default 0.15"
    )
    trend_days: float | None = Field(
        None, gt=0, description="half-life of that popularity; default 14"
    )
    lapse: float | None = Field(
        None,
        ge=0,
        description="power by which own purchases lapse after their usual interval; default 0.5",
    )


@dg.asset(
    deps=[user_product_interactions],
    group_name="learn",
    kinds={"python", "pickle"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
    pool=ALS_MODEL,
)
def als_model(
    context: dg.AssetExecutionContext,
    config: AlsConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
) -> dg.MaterializeResult[None]:
    """Factors of users and products by implicit ALS on the decayed interactions.

    Reads the interactions as Arrow, trains on all cores with a fixed seed, and writes a candidate,
    `als_model-candidate.pkl`. It becomes `als_model.pkl` once `top_buys_backtest` has accepted it.
    """
    from recsys_assets.figures import histogram
    from recsys_assets.learn.artifacts import Header, to_arrays
    from recsys_assets.learn.matrix import histories_from_arrow
    from recsys_assets.learn.recipe import train

    started = time.monotonic()
    recipe = recipe_of(config, shop, artifacts.tuned(ALS_MODEL))
    watermark = shop.watermark()
    weights = shop.read(lambda s: tables.weights(s, watermark, shop.half_life))
    histories = histories_from_arrow(weights)
    users, products = histories.weights.shape
    context.log.info(
        f"{histories.weights.nnz:,} interactions of {users:,} users with {products:,} products"
    )
    read = time.monotonic()
    progress = Progress(context.log.info, "ALS iterations", recipe.als.iterations)
    model = train(histories, watermark, recipe, progress)
    fitted = time.monotonic()
    header = Header(
        name=ALS_MODEL,
        created_at=datetime.now(UTC),
        orders_through=watermark,
        parameters=recipe.to_parameters(),
    )
    path = artifacts.propose(header, to_arrays(model))
    import numpy as np

    per_user = np.diff(histories.weights.indptr)
    return dg.MaterializeResult(
        metadata={
            "users": users,
            "products": products,
            "interactions": int(histories.weights.nnz),
            "orders_through": dg.MetadataValue.timestamp(watermark),
            "version": header.version,
            "path": dg.MetadataValue.path(path),
            "bytes": path.stat().st_size,
            "seconds_reading": read - started,
            "seconds_fitting": fitted - read,
            "seconds": time.monotonic() - started,
            "nearest_products": dg.MetadataValue.md(_nearest(model, shop)),
            "interactions_per_user": dg.MetadataValue.md(
                histogram(per_user, title="Interactions per user", x="products bought", y="users")
            ),
        }
    )


def recipe_of(config: AlsConfig, shop: ShopDatabase, tuned: Mapping[str, Any]) -> "Recipe":
    """All that is chosen to make lists, as it then stands in the artifact."""
    from recsys_assets.learn.als import AlsParameters
    from recsys_assets.learn.blending import Blend
    from recsys_assets.learn.recipe import Recipe

    chosen = _chosen(config, tuned) | {"repeats": shop.repeat_purchases}
    of_als = {f.name: chosen.pop(f.name) for f in fields(AlsParameters) if f.name in chosen}
    return Recipe(AlsParameters(**of_als), Blend(**chosen), shop.half_life)


def _chosen(config: dg.Config, tuned: Mapping[str, Any]) -> dict[str, Any]:
    """What was given in a config, and tuned beside it; SettingsError where that does not fit.

    Tuned can be what is chosen where nothing is given: the fields that are None by default.
    """
    kind = type(config)
    tunable = [name for name, field in kind.model_fields.items() if field.default is None]
    for name in tuned:
        if name not in tunable:
            raise misfit(name, f"not one of {', '.join(tunable)}")
    given = config.model_dump(exclude_none=True)
    try:
        return kind(**{**tuned, **given}).model_dump(exclude_none=True)
    except ValidationError as error:
        problem = error.errors()[0]
        raise misfit(str(problem["loc"][0]), problem["msg"]) from error


def _nearest(model: "AlsModel", shop: ShopDatabase) -> str:
    """A table of what the model holds to be like the most bought products, by name."""
    import numpy as np

    from recsys_assets.learn.als import nearest_products

    best = np.argsort(-model.popularity, kind="stable")[:3]
    nearest = nearest_products(model, best, min(5, len(model.popularity) - 1))
    ids = model.product_ids
    names = shop.product_names(ids[best].tolist())
    return shop.side_by_side(
        {
            f"like {names.get(str(product), product)}": ids[row].tolist()
            for product, row in zip(ids[best].tolist(), nearest, strict=True)
        }
    )


class MiningEngine(Enum):
    """Who finds the frequent itemsets; both find the same ones up to two products."""

    sparse = "sparse"
    mlxtend = "mlxtend"


class MiningConfig(dg.Config):
    """What makes an itemset frequent. Give one of the two minimums, or none for the default."""

    engine: MiningEngine = Field(
        MiningEngine.sparse, description="sparse: pairs, in bounded memory; mlxtend: larger sets"
    )
    min_orders: int | None = Field(None, ge=1, description="orders with all products; default 2")
    min_support: float | None = Field(
        None, gt=0, le=1, description="the same as a fraction of all baskets"
    )
    max_itemset_size: int = Field(2, ge=2, description="above 2 only with the engine mlxtend")
    shrinkage: float | None = Field(
        None, ge=0, description="k of the strength n / (E + k + q n_a), in orders; default 3"
    )
    antecedent_shrinkage: float | None = Field(
        None,
        ge=0,
        description="q of the strength, a share of the orders with the antecedent; default 0.1",
    )
    max_consequents: int = Field(
        100, ge=1, description="rules kept of each antecedent, the strongest ones"
    )


def mining_of(config: MiningConfig, tuned: Mapping[str, Any]) -> "Mining":
    """What makes rules, as it then stands in the artifact; a minimum given goes before both."""
    from recsys_assets.learn.mining import Mining

    minimums = {"min_orders", "min_support"}
    if minimums & config.model_dump(exclude_none=True).keys():
        tuned = {name: value for name, value in tuned.items() if name not in minimums}
    chosen = _chosen(config, tuned) | {"engine": config.engine.value}
    del chosen["max_consequents"]
    unless_given: dict[str, Any] = {"min_orders": None} if "min_support" in chosen else {}
    return Mining(**(unless_given | chosen))


@dg.asset(
    deps=[orders, order_items],
    group_name="learn",
    kinds={"python", "pickle"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
    pool=BASKET_RULES,
)
def basket_rules(
    context: dg.AssetExecutionContext,
    config: MiningConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
) -> dg.MaterializeResult[None]:
    """Frequent itemsets of the orders and their rules: support, confidence, lift, strength.

    Writes a candidate, which becomes `basket_rules.pkl` once `bought_together_backtest` accepts
    it. Baskets of 2 to 100 distinct products count (RECSYS_MIN_BASKET_PRODUCTS and
    RECSYS_MAX_BASKET_PRODUCTS), of all orders or of the latest (RECSYS_BASKET_WINDOW_DAYS); guests'
    orders are included.
    """
    from recsys_assets.learn.artifacts import Header, to_arrays
    from recsys_assets.learn.mining import mine
    from recsys_assets.learn.rules import strongest_rules

    started = time.monotonic()
    last_change = shop.last_change()
    if last_change is None:
        raise ShopError("the shop has no orders: there are no baskets to mine")
    since = last_change - shop.basket_window if shop.basket_window else None
    baskets, counts = _read_baskets(shop, since)
    context.log.info(_told(counts, shop, since))
    read = time.monotonic()
    mining = mining_of(config, artifacts.tuned(BASKET_RULES))
    itemsets, rules = mine(baskets, mining)
    mined = time.monotonic()
    if not len(rules.orders):
        raise ValueError(
            f"no two products share {itemsets.min_orders} orders: lower min_orders or min_support"
        )
    context.log.info(f"{len(rules.orders):,} rules of itemsets in {itemsets.min_orders}+ orders")
    sizes = {"min_basket_products", "max_basket_products", "basket_window_days"}
    parameters = mining.to_parameters() | shop.model_dump(include=sizes)
    rules = strongest_rules(rules, config.max_consequents)
    header = Header(BASKET_RULES, datetime.now(UTC), last_change, parameters)
    path = artifacts.propose(header, to_arrays(rules))
    return dg.MaterializeResult(
        metadata={
            "orders": counts.orders,
            "baskets": counts.baskets,
            "baskets_too_small": counts.too_small,
            "baskets_too_large": counts.too_large,
            "basket_window_days": shop.basket_window_days,
            "min_orders": itemsets.min_orders,
            "itemsets": sum(len(orders) for orders in itemsets.orders),
            "rules": len(rules.orders),
            "orders_through": dg.MetadataValue.timestamp(last_change),
            "version": header.version,
            "path": dg.MetadataValue.path(path),
            "bytes": path.stat().st_size,
            "seconds_reading": read - started,
            "seconds_mining": mined - read,
            "seconds": time.monotonic() - started,
            "strongest_rules": dg.MetadataValue.md(_strongest(rules, shop)),
            "lift_against_support": dg.MetadataValue.md(_lift_against_support(rules)),
        }
    )


def _read_baskets(shop: ShopDatabase, since: datetime | None) -> "tuple[Baskets, BasketCounts]":
    """The baskets of all counting orders since then, and how many were left out for their size."""
    from recsys_assets.learn.baskets import baskets_from_lines

    lines = shop.read(lambda s: s.basket_lines(since))
    if since and not len(lines):
        raise ShopError(
            f"no order since {since:%Y-%m-%d %H:%M} counts: set RECSYS_BASKET_WINDOW_DAYS to more"
            f" than {shop.basket_window_days:g}"
        )
    return baskets_from_lines(
        lines["order_id"],
        lines["product_id"],
        min_products=shop.min_basket_products,
        max_products=shop.max_basket_products,
    )


def _told(counts: "BasketCounts", shop: ShopDatabase, since: datetime | None) -> str:
    return (
        f"{counts.baskets:,} baskets of {counts.orders:,} orders"
        f"{f' since {since}' if since else ''}; left out: {counts.too_small:,}"
        f" with fewer than {shop.min_basket_products} products, {counts.too_large:,} with more"
        f" than {shop.max_basket_products}"
    )


def _lift_against_support(rules: "BasketRules") -> str:
    from recsys_assets.figures import scatter

    return scatter(rules.support, rules.lift, title="Lift against support", x="support", y="lift")


def _strongest(rules: "BasketRules", shop: ShopDatabase, most: int = 10) -> str:
    """A table of the strongest rules with one antecedent, with names where there are any."""
    import numpy as np

    from recsys_assets.figures import markdown_table

    single = np.flatnonzero((rules.antecedents[:, 1:] == -1).all(axis=1))
    best = single[np.argsort(-rules.strength[single], kind="stable")[:most]]
    antecedents = rules.product_ids[rules.antecedents[best, 0]].tolist()
    consequents = rules.product_ids[rules.consequent[best]].tolist()
    names = shop.product_names([*antecedents, *consequents])
    return markdown_table(
        [
            {
                "with": names.get(str(antecedent), antecedent),
                "also bought": names.get(str(consequent), consequent),
                "orders": int(rules.orders[row]),
                "confidence": float(rules.confidence[row]),
                "lift": float(rules.lift[row]),
                "strength": float(rules.strength[row]),
            }
            for row, antecedent, consequent in zip(best, antecedents, consequents, strict=True)
        ]
    )
