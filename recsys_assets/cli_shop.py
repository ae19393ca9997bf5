"""Commands about the shop's own data: its tables, the sample, an export, orders that come in."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from recsys_assets.session import open_session

commands = typer.Typer()
console = Console()

Households = Annotated[
    int | None, typer.Option(min=1, help="Only the first N households of the sample.")
]
Rate = Annotated[float, typer.Option(min=0.001, help="Orders a second, on average.")]
EXISTING: Any = {"exists": True, "dir_okay": False, "readable": True}


@commands.command()
def init() -> None:
    """Check the shop's tables and create ours beside them; say which indexes the shop lacks."""
    from recsys_assets.catalogue import refresh_unavailable
    from recsys_assets.shop import missing_indexes
    from recsys_assets.tables import OUR_TABLES

    with open_session(redis=False) as session, session.shop() as (connection, shop):
        connection.commit()
        connection.autocommit = True
        refresh_unavailable(connection, shop)
        windowed = session.settings.basket_window is not None
        hints = missing_indexes(connection, shop, baskets_windowed=windowed)
    console.print(
        f"The shop: {shop.orders} and {shop.order_items}; ids of orders are {shop.order_id_type},"
        f" of users {shop.user_id_type}, of products {shop.product_id_type}."
    )
    console.print(f"Ours, in the schema {shop.schema}: {', '.join(OUR_TABLES)}.")
    if hints:
        console.print(
            "\nRefreshes read the shop's tables by these columns; an index makes it cheap:"
        )
        for hint in hints:
            console.print(f"  {hint}", highlight=False, soft_wrap=True)


@commands.command("load-sample")
def load_sample_shop(
    households: Households = None,
    replace: Annotated[
        bool, typer.Option(help="Drop the tables orders, order_items and products first.")
    ] = False,
    hold_back_days: Annotated[
        int | None,
        typer.Option(min=1, max=364, help="Leave out the last N days, for recsys simulate."),
    ] = None,
) -> None:
    """Load the sample shop into the tables orders, order_items and products."""
    from recsys_assets.console import bar_for_each, bars
    from recsys_assets.local.sample_shop import load_sample, start_of_last
    from recsys_assets.shop import inspect_shop
    from recsys_assets.tables import forget_orders

    with (
        open_session(redis=False) as session,
        session.database() as connection,
        bars(console) as shown,
    ):
        counts = load_sample(
            connection,
            households=households,
            until=start_of_last(hold_back_days) if hold_back_days else None,
            replace=replace,
            progress=bar_for_each(shown),
        )
        if replace:
            forget_orders(connection, inspect_shop(connection, session.settings))
    console.print(
        f"{counts.orders:,} orders, {counts.order_items:,} lines, {counts.products:,} products"
    )
    if hold_back_days:
        console.print(f"Held back: the last {hold_back_days} days, for recsys simulate")


@commands.command()
def simulate(
    rate: Rate = 5.0,
    orders: Annotated[
        int | None, typer.Option(min=1, help="End after N orders; all that are left by default.")
    ] = None,
    burst: Annotated[int, typer.Option(min=0, help="The first N come in at once.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the moments at which orders come in.")] = 0,
) -> None:
    """Let the orders come in that load-sample has held back, real ones in their real order.

    Goes on where it was stopped; Ctrl-C stops it.
    """
    from recsys_assets.demo import let_orders_come_in

    with open_session(redis=False) as session:
        let_orders_come_in(console, session, rate=rate, most=orders, burst=burst, seed=seed)


@commands.command("load-csv")
def load_csv_files(
    orders: Annotated[
        Path,
        typer.Argument(help="id, user_id, created_at[, updated_at, status]", **EXISTING),
    ],
    items: Annotated[
        Path, typer.Argument(help="order_id, product_id[, quantity, price]", **EXISTING)
    ],
    products: Annotated[Path | None, typer.Option(help="id, name", **EXISTING)] = None,
) -> None:
    """Load an export of your own into orders and order_items: all of it or nothing."""
    from recsys_assets.console import bar_for_each, bars
    from recsys_assets.local.csv_import import load_csv

    with (
        open_session(redis=False) as session,
        session.database() as connection,
        bars(console) as shown,
    ):
        counts = load_csv(
            connection, orders, items, products_csv=products, progress=bar_for_each(shown)
        )
    console.print(
        f"{counts.orders:,} orders, {counts.order_items:,} lines, {counts.products:,} products"
    )
