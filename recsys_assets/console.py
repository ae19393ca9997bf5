"""What the command line prints: recommendations and the state of the system, as tables."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from recsys_assets.publish.redis_reader import (
    listed_products,
    read_bought_together,
    read_global_top_buys,
    read_publication,
    read_user_top_buys,
)
from recsys_assets.session import Session
from recsys_assets.tables import some_users
from serving.contract import Family, Id, known_through

NOTHING_PUBLISHED = "Nothing is published yet: recsys materialize"


class NothingPublishedError(LookupError):
    """There is nothing to show, since nothing was published."""


def print_top_buys(console: Console, session: Session, user_id: str | None, limit: int) -> None:
    """Print a user's Top Buys, the guests' where there are none or ``user_id`` is None.

    Raises :class:`NothingPublishedError`.
    """
    with session.redis() as client:
        top_buys = read_user_top_buys(client, user_id) if user_id is not None else None
        top_buys = top_buys or read_global_top_buys(client)
        personal = top_buys is not None and top_buys.source == "personal"
        family = Family.USER_TOP_BUYS if personal else Family.GLOBAL_TOP_BUYS
        record = read_publication(client, family)
    if top_buys is None:
        raise NothingPublishedError(NOTHING_PUBLISHED)
    who = "guests" if user_id is None else f"user {user_id}"
    console.print(
        _ranking(
            f"Top Buys of {who} ({top_buys.source})",
            "score",
            [(p.product_id, p.score) for p in top_buys.products[:limit]],
            session,
            top_buys.model_version,
            known_through(top_buys, record),
        )
    )


def print_product(console: Console, session: Session, product_id: str, limit: int) -> None:
    """Print what is bought together with a product.

    Raises :class:`NothingPublishedError`.
    """
    with session.redis() as client:
        record = read_publication(client, Family.BOUGHT_TOGETHER)
        pairings = read_bought_together(client, product_id)
    if record is None:
        raise NothingPublishedError(NOTHING_PUBLISHED)
    product = f"{product_id} {session.names([product_id]).get(product_id, '')}".strip()
    if not pairings:
        console.print(f"Nothing is known to be bought together with {product}")
        return
    console.print(
        _ranking(
            f"Bought together with {product}",
            "strength",
            [(p.product_id, p.strength) for p in pairings[:limit]],
            session,
            record.model_version,
            record.orders_through,
        )
    )


def print_examples(console: Console, session: Session) -> None:
    """Print the lists of a known user, of guests, and of three popular products."""
    with session.shop() as (connection, shop):
        users = some_users(connection, shop, 1)
    with session.redis() as client:
        top_buys = read_global_top_buys(client)
        popular = [p.product_id for p in top_buys.products] if top_buys else []
        listed = listed_products(client, popular)
    for user_id in [*map(str, users), None]:
        print_top_buys(console, session, user_id, 10)
    products = [product for product, has_list in zip(popular, listed, strict=True) if has_list]
    for product_id in products[:3]:
        print_product(console, session, str(product_id), 5)


def bars(console: Console) -> Progress:
    """Progress bars with a label, a share, and the time."""
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def bar_for_each(progress: Progress) -> Callable[[int, int, str], None]:
    """A callback (done, total, label) that draws a bar for each label."""
    tasks: dict[str, TaskID] = {}

    def report(done: int, total: int, label: str) -> None:
        if label not in tasks:
            tasks[label] = progress.add_task(label)
        progress.update(tasks[label], completed=done, total=total)

    return report


def status_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of state, its first column a name."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0)
    for row in rows:
        table.add_row(*row)
    return table


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago a moment was, in its largest unit: ``3 h ago``."""
    if moment is None:
        return "never"
    passed = (now or datetime.now(UTC)) - moment
    for unit, name in (
        (timedelta(days=1), "d"),
        (timedelta(hours=1), "h"),
        (timedelta(minutes=1), "min"),
    ):
        if passed >= unit:
            return f"{passed // unit:,} {name} ago"
    return f"{max(0, int(passed.total_seconds()))} s ago"


def _ranking(
    title: str,
    measure: str,
    products: Sequence[tuple[Id, float]],
    session: Session,
    version: str,
    orders_through: datetime | None,
) -> Table:
    through = f", orders through {orders_through:%Y-%m-%d %H:%M}" if orders_through else ""
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        caption=f"model {version}{through}",
        caption_justify="left",
    )
    table.add_column("#", justify="right")
    table.add_column("product", justify="right")
    table.add_column("name", min_width=40)
    table.add_column(measure, justify="right")
    names = session.names([product_id for product_id, _ in products])
    for place, (product_id, value) in enumerate(products, start=1):
        table.add_row(str(place), str(product_id), names.get(str(product_id), ""), f"{value:,.3f}")
    return table
