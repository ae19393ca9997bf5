"""The commands `recsys show`: what Redis serves, as the API answers it, with names of products."""

from typing import Annotated

import typer
from rich.console import Console

from recsys_assets.session import open_session

commands = typer.Typer(no_args_is_help=True, help="Show what Redis serves, with product names.")
console = Console()

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="Products to show.")]
Explain = Annotated[bool, typer.Option("--explain", help="Say why each product is listed.")]


@commands.command("user")
def show_user(user_id: str, limit: Limit = 10, explain: Explain = False) -> None:
    """Show a user's Top Buys; the guests' where the user has none of their own."""
    from recsys_assets.console import print_top_buys

    with open_session() as session:
        print_top_buys(console, session, user_id, limit, explain=explain)


@commands.command("guest")
def show_guest(limit: Limit = 10) -> None:
    """Show the guests' Top Buys."""
    from recsys_assets.console import print_top_buys

    with open_session() as session:
        print_top_buys(console, session, None, limit)


@commands.command("buy-again")
def show_buy_again(user_id: str, limit: Limit = 10) -> None:
    """Show what a user buys again and again, first what is due."""
    from recsys_assets.console import print_buy_again

    with open_session() as session:
        print_buy_again(console, session, user_id, limit)


@commands.command("product")
def show_product(product_id: str, limit: Limit = 10, explain: Explain = False) -> None:
    """Show what is bought together with a product."""
    from recsys_assets.console import print_product

    with open_session() as session:
        print_product(console, session, product_id, limit, explain=explain)


@commands.command("cart")
def show_cart(product_ids: list[str], limit: Limit = 10, explain: Explain = False) -> None:
    """Show what is bought together with several products, none of them among it."""
    from recsys_assets.console import print_cart

    with open_session() as session:
        print_cart(console, session, product_ids, limit, explain=explain)
