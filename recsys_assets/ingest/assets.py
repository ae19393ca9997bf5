"""The assets of the stage ingest: the shop's tables, and our interactions made from them."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from recsys_assets.progress import Progress
from recsys_assets.resources import ShopDatabase

if TYPE_CHECKING:
    from recsys_assets.ingest.interactions import Interaction, Refresh
    from recsys_assets.ingest.reconcile import Reconciliation

orders = dg.AssetSpec(
    "orders",
    group_name="ingest",
    kinds={"postgres"},
    owners=["team:shop"],
    tags={"domain": "shop"},
    description="The shop's orders: read only, never altered. RECSYS_ORDERS_* map its columns.",
)
order_items = dg.AssetSpec(
    "order_items",
    group_name="ingest",
    kinds={"postgres"},
    owners=["team:shop"],
    tags={"domain": "shop"},
    description="The lines of the shop's orders. RECSYS_ORDER_ITEMS_* map its columns.",
)


class InteractionsConfig(dg.Config):
    """How to refresh the interactions."""

    rebuild: bool = Field(
        False, description="recompute every user instead of those with changed orders"
    )
    reconcile: bool = Field(
        False, description="compare every order with what it counts for, and repair what differs"
    )


@dg.asset(
    deps=[orders, order_items],
    group_name="ingest",
    kinds={"postgres"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="2",
)
def user_product_interactions(
    context: dg.AssetExecutionContext, config: InteractionsConfig, shop: ShopDatabase
) -> dg.MaterializeResult[None]:
    """Time-decayed number of purchases of every user and product, kept up incrementally.

    Inside PostgreSQL: finds the orders changed since the watermark in `batch_metadata`, recomputes
    what they have changed, advances the watermark. Run twice, it changes nothing. Beside it stands
    the popularity of every product, guests' purchases included.
    """
    from recsys_assets.ingest.interactions import refresh_interactions
    from recsys_assets.ingest.reconcile import reconcile_interactions
    from recsys_assets.shop import inspect_shop

    with shop.connect() as connection:
        tables = inspect_shop(connection, shop)
        refresh = refresh_interactions(
            connection,
            tables,
            half_life=shop.half_life,
            overlap=shop.overlap,
            rebuild=config.rebuild,
            log=context.log.info,
            progress=Progress(context.log.info, "orders counted"),
        )
        repairs = (
            reconcile_interactions(
                connection,
                tables,
                half_life=shop.half_life,
                overlap=shop.overlap,
                log=context.log.info,
            )
            if config.reconcile
            else None
        )
    metadata = interactions_metadata(refresh, repairs)
    if refresh.newest:
        metadata["newest"] = dg.MetadataValue.md(_newest(refresh.newest, shop))
    return dg.MaterializeResult(metadata=metadata)


def interactions_metadata(
    refresh: "Refresh", repairs: "Reconciliation | None" = None
) -> dict[str, dg.MetadataValue | int | float | bool]:
    """What a refresh did, and what was repaired, as the metadata of a materialization."""
    metadata: dict[str, dg.MetadataValue | int | float | bool] = {
        "changed_orders": refresh.changed_orders,
        "orders_added": refresh.difference.orders_added,
        "orders_removed": refresh.difference.orders_removed,
        "orders_altered": refresh.difference.orders_altered,
        "users_recomputed": refresh.users_recomputed,
        "rows_written": refresh.rows_written,
        "rows_deleted": refresh.rows_deleted,
        "orders_in_future": refresh.orders_in_future,
        "orders_dated_ahead": refresh.orders_dated_ahead,
        "rebuilt": refresh.rebuilt,
        "seconds": refresh.seconds,
    }
    if repairs:
        metadata |= {
            "repaired_orders_missing": repairs.repaired.orders_added,
            "repaired_orders_gone": repairs.repaired.orders_removed,
            "repaired_orders_altered": repairs.repaired.orders_altered,
            "repaired_users": repairs.repaired.users + repairs.users_unsound,
            "seconds_reconciling": repairs.seconds,
        }
    if refresh.watermark:
        metadata["watermark"] = dg.MetadataValue.timestamp(refresh.watermark)
    return metadata


def _newest(rows: "list[Interaction]", shop: ShopDatabase) -> str:
    """A table of the rows, with names where there are any."""
    from recsys_assets.figures import markdown_table

    names = shop.product_names([row.product_id for row in rows])
    return markdown_table(
        [
            {
                "user": str(row.user_id),
                "product": names.get(str(row.product_id), row.product_id),
                "purchases": row.purchase_count,
                "score": row.interaction_score,
                "last": f"{row.last_updated_at:%Y-%m-%d %H:%M}",
            }
            for row in rows
        ]
    )
