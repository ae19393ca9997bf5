"""Answers of the API as tables, with the names of products, and why each product is listed.

Nothing here reads anything. Names are by the text of a product's id; one without a name is told by
its id.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from msgspec import UnsetType
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from serving.answers import (
    BoughtTogetherAnswer,
    BoughtTogetherProduct,
    BuyAgainAnswer,
    CartAnswer,
    CartProduct,
    Contribution,
    Measures,
    TopBuysAnswer,
    TopBuysProduct,
)
from serving.contract import (
    Because,
    BecausePinned,
    BecausePopular,
    BecauseRepeat,
    BecauseSimilar,
    Id,
    Repeat,
)

Names = Mapping[str, str]
Answer = TopBuysAnswer | BuyAgainAnswer | BoughtTogetherAnswer | CartAnswer
Product = TopBuysProduct | Repeat | BoughtTogetherProduct | CartProduct

TEXTS = ("because", "with")
"""The columns that hold words; all others are numbers and dates."""


def mentioned(answer: Answer) -> list[Id]:
    """The products whose names the table of an answer shows, each once."""
    return list(dict.fromkeys(_mentioned(answer)))


def top_buys_table(answer: TopBuysAnswer, names: Names, *, explained: bool) -> Table:
    """A user's or the guests' Top Buys; ``explained`` adds why."""
    who = "guests" if answer.user_id is None else f"user {answer.user_id}"
    columns = {"score": [_decimals(p.score) for p in answer.products]}
    if explained:
        columns["because"] = [because_text(p.because, names) for p in answer.products]
    source = answer.source.replace("_", " ")
    return _ranking(f"Top Buys of {who} ({source})", answer, names, columns)


def buy_again_table(answer: BuyAgainAnswer, names: Names) -> Table:
    """What a user buys again, in how many orders they did, when last, and when it is due."""
    products = answer.products
    columns = {
        "score": [_decimals(p.score) for p in products],
        "orders": [f"{p.purchases:,}" for p in products],
        "last": [_day(p.last_purchased_at) for p in products],
        "due": [_day(p.due_at) for p in products],
    }
    return _ranking(f"Buy Again of user {answer.user_id}", answer, names, columns)


def bought_together_table(answer: BoughtTogetherAnswer, names: Names, *, explained: bool) -> Table:
    """What is bought together with a product; ``explained`` adds the counts behind it."""
    columns: dict[str, list[str]] = {}
    if explained:
        measured = [p.evidence or None for p in answer.products]
        columns = {
            "orders\nwith both": [f"{m.orders:,}" if m else "" for m in measured],
            "support": [f"{m.support:.3%}" if m else "" for m in measured],
            "confidence": [f"{m.confidence:.1%}" if m else "" for m in measured],
            "lift": [f"{m.lift:,.2f}" if m else "" for m in measured],
        }
    columns["strength"] = [_decimals(p.strength) for p in answer.products]
    category = ", as with its category" if answer.source == "category" else ""
    title = f"Bought together with {product_text(answer.product_id, names)}{category}"
    return _ranking(title, answer, names, columns)


def cart_table(answer: CartAnswer, names: Names, *, explained: bool) -> Table:
    """What goes with a cart; ``explained`` adds what each product of the cart contributes."""
    columns = {"strength": [_decimals(p.strength) for p in answer.products]}
    if explained:
        columns["with"] = [contributions_text(p.contributions, names) for p in answer.products]
    return _ranking(f"Bought together with {cart_text(answer, names)}", answer, names, columns)


def product_text(product_id: Id, names: Names) -> str:
    """A product by its id and, where it has one, its name."""
    return f"{product_id} {names.get(str(product_id), '')}".strip()


def cart_text(answer: CartAnswer, names: Names) -> str:
    """The products of a cart."""
    return " and ".join(product_text(product_id, names) for product_id in answer.product_ids)


def because_text(because: Because | UnsetType | None, names: Names) -> str:
    """Why a product is in Top Buys; empty where that is not known."""
    match because:
        case BecauseRepeat(purchases=1, last_purchased_at=last):
            return f"bought once, {_day(last)}"
        case BecauseRepeat(purchases=purchases, last_purchased_at=last):
            return f"bought {purchases:,} times, last {_day(last)}"
        case BecauseSimilar(purchases=weighed):
            return "like " + ", ".join(
                f"{_name(p.product_id, names)} ({p.weight:.2f})" for p in weighed
            )
        case BecausePopular():
            return "popular"
        case BecausePinned():
            return "pinned"
        case _:
            return ""


def contributions_text(contributions: Sequence[Contribution] | UnsetType, names: Names) -> str:
    """What the strength beside a cart is made of, a line for each, strongest first."""
    return "\n".join(
        f"{' and '.join(_name(i, names) for i in c.product_ids)} {_decimals(c.strength)}"
        f"{_evidence(c.evidence)}"
        for c in contributions or ()
    )


def _evidence(measures: Measures | None) -> str:
    return f" ({measures.orders:,} orders, lift {measures.lift:,.2f})" if measures else ""


def _mentioned(answer: Answer) -> Iterator[Id]:
    match answer:
        case BoughtTogetherAnswer(product_id=product_id):
            yield product_id
        case CartAnswer(product_ids=product_ids):
            yield from product_ids
        case TopBuysAnswer(products=products):
            for top in products:
                if isinstance(top.because, BecauseSimilar):
                    yield from (purchase.product_id for purchase in top.because.purchases)
    yield from _listed(answer)


def _listed(answer: Answer) -> list[Id]:
    products: Sequence[Product] = answer.products
    return [product.product_id for product in products]


def _ranking(
    title: str, answer: Answer, names: Names, columns: Mapping[str, Sequence[str]]
) -> Table:
    through = answer.orders_through
    known = f", orders through {through:%Y-%m-%d %H:%M}" if through else ""
    table = Table(
        title=Text(f"\n{title}"),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        caption=f"model {answer.model_version}{known}",
        caption_justify="left",
    )
    table.add_column("#", justify="right")
    table.add_column("product", justify="right")
    table.add_column("name", min_width=20 if len(columns) > 1 else 40)
    for column in columns:
        table.add_column(column, justify="left" if column in TEXTS else "right")
    cells = zip(*columns.values(), strict=True)
    for place, (product_id, values) in enumerate(zip(_listed(answer), cells, strict=True), 1):
        name = names.get(str(product_id), "")
        table.add_row(*map(Text, (str(place), str(product_id), name, *values)))
    return table


def _name(product_id: Id, names: Names) -> str:
    return names.get(str(product_id), str(product_id))


def _decimals(value: float) -> str:
    return f"{value:,.3f}"


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else "-"
