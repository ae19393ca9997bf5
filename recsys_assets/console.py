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

from recsys_assets.publish.redis_reader import listed_products, read_global_top_buys
from recsys_assets.rankings import (
    bought_together_table,
    buy_again_table,
    cart_table,
    cart_text,
    mentioned,
    product_text,
    top_buys_table,
)
from recsys_assets.served import ask
from recsys_assets.session import Session
from recsys_assets.tables import some_users
from serving.answers import bought_together_answer, buy_again_answer, cart_answer, top_buys_answer

NOTHING_PUBLISHED = "Nothing is published yet: recsys materialize"
NOTHING: frozenset[str] = frozenset()


class NothingPublishedError(LookupError):
    """There is nothing to show, since nothing was published."""


def print_top_buys(
    console: Console, session: Session, user_id: str | None, limit: int, *, explain: bool = False
) -> None:
    """Print a user's Top Buys, the guests' where there are none or ``user_id`` is None.

    Raises :class:`NothingPublishedError`.
    """
    read = ask(
        session,
        lambda store: (
            store.guest_top_buys()
            if user_id is None
            else store.user_top_buys(user_id, explain=explain)
        ),
    )
    answer = top_buys_answer(user_id, read, limit=limit, exclude=NOTHING, explain=explain)
    if answer.model_version is None:
        raise NothingPublishedError(NOTHING_PUBLISHED)
    console.print(top_buys_table(answer, session.names(mentioned(answer)), explained=explain))


def print_buy_again(console: Console, session: Session, user_id: str, limit: int) -> None:
    """Print what a user buys again and again.

    Raises :class:`NothingPublishedError`.
    """
    read = ask(session, lambda store: store.buy_again(user_id))
    if read.record is None:
        raise NothingPublishedError(NOTHING_PUBLISHED)
    now = datetime.now(UTC)
    answer = buy_again_answer(user_id, read, limit=limit, exclude=NOTHING, now=now)
    if not answer.products:
        _say(console, f"Nothing is known that user {user_id} buys again")
        return
    console.print(buy_again_table(answer, session.names(mentioned(answer))))


def print_product(
    console: Console, session: Session, product_id: str, limit: int, *, explain: bool = False
) -> None:
    """Print what is bought together with a product.

    Raises :class:`NothingPublishedError`.
    """
    read = ask(session, lambda store: store.bought_together([product_id], limit, explain=explain))
    if read.record is None:
        raise NothingPublishedError(NOTHING_PUBLISHED)
    answer = bought_together_answer(product_id, read, limit=limit, exclude=NOTHING, explain=explain)
    names = session.names(mentioned(answer))
    if not answer.products:
        product = product_text(answer.product_id, names)
        _say(console, f"Nothing is known to be bought together with {product}")
        return
    console.print(bought_together_table(answer, names, explained=explain))


def print_cart(
    console: Console,
    session: Session,
    product_ids: Sequence[str],
    limit: int,
    *,
    explain: bool = False,
) -> None:
    """Print what is bought together with the products of a cart.

    Raises :class:`NothingPublishedError`.
    """
    cart = list(dict.fromkeys(product_ids))
    read = ask(session, lambda store: store.bought_together(cart, explain=explain))
    if read.record is None:
        raise NothingPublishedError(NOTHING_PUBLISHED)
    answer = cart_answer(cart, read, limit=limit, exclude=NOTHING, explain=explain)
    names = session.names(mentioned(answer))
    if not answer.products:
        _say(console, f"Nothing is known to be bought together with {cart_text(answer, names)}")
        return
    console.print(cart_table(answer, names, explained=explain))


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


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
