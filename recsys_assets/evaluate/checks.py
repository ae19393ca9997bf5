"""Asset checks. Blocking ones stop what is downstream, so that the last good lists stay served."""

from datetime import UTC, datetime
from itertools import compress, islice

import dagster as dg
from pydantic import Field

from recsys_assets.database import ShopError
from recsys_assets.ingest.assets import order_items, orders, user_product_interactions
from recsys_assets.learn.assets import ALS_MODEL, BASKET_RULES, als_model, basket_rules
from recsys_assets.publish.assets import bought_together, global_top_buys, user_top_buys
from recsys_assets.resources import ArtifactStore, RedisPublisher, ShopDatabase
from serving.contract import Family, Id, is_id

MOST_TOLD = 10  # rows that a check tells of


@dg.asset_check(asset=orders.key, blocking=True)
def orders_readable(shop: ShopDatabase) -> dg.AssetCheckResult:
    """The shop's tables can be read and have the columns that the settings name."""
    try:
        tables = shop.inspect()
    except ShopError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    return dg.AssetCheckResult(
        passed=True,
        metadata={
            "orders": tables.orders,
            "order_items": tables.order_items,
            "changed_at": tables.changed_at,
            "status": tables.status or "none: every order counts",
            "names": tables.products or "none",
            "user_id_type": tables.user_id_type,
            "product_id_type": tables.product_id_type,
        },
    )


@dg.asset_check(asset=order_items.key)
def lines_sound(shop: ShopDatabase) -> dg.AssetCheckResult:
    """Every order has a date, every line an order, a product and a quantity; what does not count.

    Scans both tables, so it belongs to the retraining.
    """
    from recsys_assets.shop_quality import BROKEN, left_out

    with shop.session() as session:
        (counts,) = session.read(left_out(session.shop)).to_pylist()
    broken = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in BROKEN if counts[name]]
    return dg.AssetCheckResult(
        passed=not broken,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"these do not count: {', '.join(broken)}" if broken else None,
        metadata=counts,
    )


@dg.asset_check(asset=user_product_interactions, blocking=True)
def watermark_not_in_future(shop: ShopDatabase) -> dg.AssetCheckResult:
    """The watermark is not ahead of the database's clock, which would hide orders to come."""
    with shop.connect() as connection:
        row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    now: datetime = row[0]
    watermark = shop.watermark()
    return dg.AssetCheckResult(
        passed=watermark <= now,
        description=f"watermark {watermark}, database's clock {now}",
        metadata={"seconds_behind": (now - watermark).total_seconds()},
    )


@dg.asset_check(asset=user_product_interactions, blocking=True)
def interactions_sound(shop: ShopDatabase) -> dg.AssetCheckResult:
    """There are interactions, unique by user and product, with scores above 0 up to the count."""
    from psycopg import sql

    from recsys_assets.tables import interactions_table

    tables = shop.inspect()
    table = interactions_table(tables)
    with shop.connect() as connection:
        row = connection.execute(
            sql.SQL(
                "SELECT EXISTS (SELECT FROM {table}),"
                " (SELECT count(*) FROM {table} WHERE interaction_score IS NULL"
                "   OR NOT interaction_score > 0"
                "   OR interaction_score > purchase_count * (1 + 1e-9)"
                "   OR user_id IS NULL OR product_id IS NULL),"
                " EXISTS (SELECT FROM pg_index WHERE indisprimary AND indisvalid"
                "   AND indrelid = {name}::regclass)"
            ).format(table=table, name=sql.Literal(table.as_string(connection)))
        ).fetchone()
    assert row is not None
    some, unsound, unique = row
    return dg.AssetCheckResult(
        passed=some and unique and not unsound,
        description=None
        if some
        else "there are no interactions: no order of a user has a counting status"
        f" ({', '.join(tables.purchase_statuses)}; set RECSYS_PURCHASE_STATUSES)",
        metadata={"unsound_rows": unsound, "primary_key": unique},
    )


@dg.asset_check(asset=als_model, blocking=True)
def als_model_sound(artifacts: ArtifactStore) -> dg.AssetCheckResult:
    """The pickle loads; its factors are finite and have a row for every id."""
    import numpy as np

    header, arrays = artifacts.latest(ALS_MODEL)
    factors = arrays["product_factors"]
    complete = len(factors) == len(arrays["product_ids"]) == len(arrays["popularity"])
    finite = bool(np.isfinite(factors).all())
    learnt = bool(np.any(factors))
    return dg.AssetCheckResult(
        passed=complete and finite and learnt,
        metadata={
            "version": header.version,
            "users": int(arrays["user_count"]),
            "product_rows": len(factors),
            "finite": finite,
            "not_all_zero": learnt,
        },
    )


@dg.asset_check(asset=basket_rules, blocking=True)
def basket_rules_sound(artifacts: ArtifactStore) -> dg.AssetCheckResult:
    """The pickle loads; supports and confidences are in (0, 1], lifts and strengths positive."""
    import numpy as np

    header, arrays = artifacts.latest(BASKET_RULES)
    shares = np.concatenate([arrays["support"], arrays["confidence"]])
    strengths = np.concatenate([arrays["lift"], arrays["strength"]])
    rules = len(arrays["orders"])
    sound = bool(
        np.all((shares > 0) & (shares <= 1)) and np.all(np.isfinite(strengths) & (strengths > 0))
    )
    return dg.AssetCheckResult(
        passed=sound and rules > 0,
        metadata={"version": header.version, "rules": rules},
    )


class CoverageConfig(dg.Config):
    """How many must have a list."""

    min_share: float = Field(0.99, ge=0, le=1, description="share that must have a list")


class ProductCoverageConfig(CoverageConfig):
    """Which products must have a list."""

    min_share: float = Field(0.9, ge=0, le=1, description="share that must have a list")
    min_orders: int = Field(20, ge=1, description="of products in at least so many baskets")


@dg.asset_check(asset=user_top_buys)
def users_covered(
    config: CoverageConfig, shop: ShopDatabase, redis: RedisPublisher
) -> dg.AssetCheckResult:
    """The share of users with interactions that have a list."""
    from recsys_assets.publish.redis_reader import read_publication

    with redis.client() as client:
        record = read_publication(client, Family.USER_TOP_BUYS)
    return _coverage(record.keys if record else 0, shop.count_users(), config.min_share)


@dg.asset_check(asset=bought_together)
def products_covered(
    config: ProductCoverageConfig, artifacts: ArtifactStore, redis: RedisPublisher
) -> dg.AssetCheckResult:
    """The share of products sold in enough baskets that have a list."""
    from recsys_assets.publish.redis_reader import listed_products

    _, arrays = artifacts.load(BASKET_RULES)
    sold = arrays["product_ids"][arrays["product_orders"] >= config.min_orders]
    with redis.client() as client:
        listed = sum(listed_products(client, sold.tolist()))
    return _coverage(listed, len(sold), config.min_share)


@dg.asset_check(asset=user_top_buys)
def recommendation_rules_sound(shop: ShopDatabase) -> dg.AssetCheckResult:
    """Every row of our table `recommendation_rules` is a rule; the others are skipped."""
    from recsys_assets.publish.merchandising import read_rules

    with shop.session() as session:
        rules, skipped = read_rules(session, datetime.now(UTC))
    told = [str(row) for row in skipped[:MOST_TOLD]]
    if len(skipped) > MOST_TOLD:
        told.append(f"and {len(skipped) - MOST_TOLD:,} more")
    return dg.AssetCheckResult(
        passed=not skipped,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(told) or None,
        metadata={"rules_that_apply_now": len(rules.rules), "rows_skipped": len(skipped)},
    )


@dg.asset_check(asset=user_top_buys)
def user_top_buys_readable(shop: ShopDatabase, redis: RedisPublisher) -> dg.AssetCheckResult:
    """Keys of some users read back as lists without gaps or repetitions, best first.

    Not every list is empty. The API shows the guests' list to those whose own has nothing in it, as
    where they have bought only what is not sold now.
    """
    from recsys_assets.publish.redis_reader import read_user_top_buys

    with redis.client() as client:
        users = filter(is_id, shop.some_users())
        lists = {user: read_user_top_buys(client, user) for user in users}
    return _readable(
        {
            f"user {user}": [(p.product_id, p.score) for p in top.products] if top else []
            for user, top in lists.items()
            if top is None or top.products
        }
    )


@dg.asset_check(asset=user_top_buys)
def user_explanations_readable(shop: ShopDatabase, redis: RedisPublisher) -> dg.AssetCheckResult:
    """Keys of some users read back as reasons for the first products of their lists."""
    from recsys_assets.publish.redis_reader import read_explanations, read_user_top_buys

    users = list(filter(is_id, shop.some_users()))
    with redis.client() as client:
        read = [(read_user_top_buys(client, u), read_explanations(client, u)) for u in users]
    listed = [[p.product_id for p in top.products] if top else [] for top, _ in read]
    explained = [[e.product_id for e in why.because] if why else None for _, why in read]
    return _all_sound(
        "missing or of other products",
        {
            f"user {user}": products is not None and products == first[: len(products)]
            for user, first, products in zip(users, listed, explained, strict=True)
        },
    )


@dg.asset_check(asset=user_top_buys)
def user_buy_again_readable(shop: ShopDatabase, redis: RedisPublisher) -> dg.AssetCheckResult:
    """Keys of some users read back as products that they have bought, each once."""
    from recsys_assets.publish.redis_reader import read_buy_again

    with redis.client() as client:
        users = filter(is_id, shop.some_users())
        lists = {user: read_buy_again(client, user) for user in users}
    return _all_sound(
        "missing or repeating itself",
        {
            f"user {user}": again is not None
            and all(p.purchases > 0 for p in again.products)
            and len({p.product_id for p in again.products}) == len(again.products)
            for user, again in lists.items()
        },
    )


@dg.asset_check(asset=global_top_buys)
def global_top_buys_readable(redis: RedisPublisher) -> dg.AssetCheckResult:
    """The guests' key reads back as a list without gaps or repetitions, best first."""
    from recsys_assets.publish.redis_reader import read_global_top_buys

    with redis.client() as client:
        top = read_global_top_buys(client)
    return _readable({"guests": [(p.product_id, p.score) for p in top.products] if top else []})


@dg.asset_check(asset=bought_together)
def bought_together_readable(
    artifacts: ArtifactStore, redis: RedisPublisher
) -> dg.AssetCheckResult:
    """Some products have a list, and of those with most orders it reads back, strongest first."""
    import numpy as np

    from recsys_assets.publish.redis_reader import listed_products, read_bought_together

    _, arrays = artifacts.load(BASKET_RULES)
    best = np.argsort(-arrays["product_orders"], kind="stable")
    products = arrays["product_ids"][best].tolist()
    with redis.client() as client:
        listed = islice(compress(products, listed_products(client, products)), 20)
        lists = {product: read_bought_together(client, product) for product in listed}
    return _readable(
        {f"product {i}": [(p.product_id, p.strength) for p in pairs] for i, pairs in lists.items()}
    )


def _coverage(listed: int, of: int, min_share: float) -> dg.AssetCheckResult:
    share = listed / of if of else 1.0
    return dg.AssetCheckResult(
        passed=share >= min_share,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{listed:,} of {of:,} have a list, at least {min_share:.0%} should",
        metadata={"listed": listed, "of": of, "share": share},
    )


def _readable(lists: dict[str, list[tuple[Id, float]]]) -> dg.AssetCheckResult:
    sound = {name: _is_ranking(products) for name, products in lists.items()}
    return _all_sound("missing or not a ranking", sound)


def _all_sound(otherwise: str, sound: dict[str, bool]) -> dg.AssetCheckResult:
    bad = [name for name, is_sound in sound.items() if not is_sound]
    return dg.AssetCheckResult(
        passed=bool(sound) and not bad,
        description=f"{otherwise}: {', '.join(bad)}" if bad else None,
        metadata={"lists_read": len(sound)},
    )


def _is_ranking(products: list[tuple[Id, float]]) -> bool:
    ids, scores = [i for i, _ in products], [score for _, score in products]
    return bool(ids) and len(set(ids)) == len(ids) and scores == sorted(scores, reverse=True)
