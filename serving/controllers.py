"""The routes of the JSON API: take the parameters, ask the store, shape the answer."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import PathParameter, QueryParameter

from serving import metrics
from serving.answers import (
    BoughtTogetherAnswer,
    BuyAgainAnswer,
    CartAnswer,
    TopBuysAnswer,
    bought_together_answer,
    buy_again_answer,
    cart_answer,
    top_buys_answer,
)
from serving.contract import ContractError, encode_id
from serving.problems import ACCESS_RESPONSES, BAD_REQUEST, UNAVAILABLE, refused
from serving.ready import DEFAULT_LIMIT
from serving.store import RecommendationStore

MAX_CART = 50
"""How many products of a cart are taken into account at most."""

Store = NamedDependency[RecommendationStore]
UserId = Annotated[
    str | None,
    QueryParameter(
        description="The shop's id of the user; leave it out for a guest.",
        examples=[Example(summary="a user", value="1")],
    ),
]
KnownUserId = Annotated[
    str,
    QueryParameter(
        description="The shop's id of the user.",
        examples=[Example(summary="a user", value="1")],
    ),
]
ProductId = Annotated[
    str,
    PathParameter(
        description="The shop's id of the product; a slash in it is written %2F. One that begins "
        "or ends with a slash, or has two in a row, is asked for as a cart of one.",
        examples=[Example(summary="a product", value="1082185")],
    ),
]
CartIds = Annotated[
    list[str],
    QueryParameter(
        min_items=1,
        max_items=MAX_CART,
        description="The shop's id of a product in the cart; repeat it for each.",
        examples=[Example(summary="a cart", value=["1082185", "995242"])],
    ),
]
Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Products to answer, at most.")]
Exclude = Annotated[
    list[str] | None,
    QueryParameter(description="A product to leave out, such as one in the cart; may be repeated."),
]
Explain = Annotated[bool, QueryParameter(description="Whether to say why each product is listed.")]

_HEADER_EXAMPLE = {
    "model_version": "20250301T030000Z",
    "generated_at": "2025-03-01T03:02:11Z",
    "orders_through": "2025-03-01T02:59:40Z",
}
_TOP_BUYS_EXAMPLE = {
    "user_id": 1,
    "source": "personal",
    **_HEADER_EXAMPLE,
    "products": [{"product_id": 1082185, "score": 1.31}, {"product_id": 995242, "score": 0.87}],
}
_TOP_BUYS_EXPLAINED_EXAMPLE = _TOP_BUYS_EXAMPLE | {
    "products": [
        {
            "product_id": 1082185,
            "score": 1.31,
            "because": {
                "kind": "repeat",
                "purchases": 7,
                "last_purchased_at": "2025-02-22T17:05:00Z",
            },
        },
        {
            "product_id": 995242,
            "score": 0.87,
            "because": {
                "kind": "similar",
                "purchases": [{"product_id": 981760, "weight": 0.21}],
            },
        },
    ]
}
_BUY_AGAIN_EXAMPLE = {
    "user_id": 1,
    **_HEADER_EXAMPLE,
    "products": [
        {
            "product_id": 1082185,
            "score": 1.4,
            "purchases": 7,
            "last_purchased_at": "2025-02-22T17:05:00Z",
            "due_at": "2025-02-28T12:00:00Z",
        },
        {
            "product_id": 995242,
            "score": 0.6,
            "purchases": 1,
            "last_purchased_at": "2025-01-12T09:30:00Z",
            "due_at": None,
        },
    ],
}
_MEASURES_EXAMPLE = {"orders": 60, "support": 0.012, "confidence": 0.15, "lift": 2.5}
_BOUGHT_TOGETHER_EXAMPLE = {
    "product_id": 1082185,
    "source": "product",
    **_HEADER_EXAMPLE,
    "products": [
        {"product_id": 981760, "strength": 2.4},
        {"product_id": 840361, "strength": 1.9},
    ],
}
_BOUGHT_TOGETHER_EXPLAINED_EXAMPLE = _BOUGHT_TOGETHER_EXAMPLE | {
    "products": [{"product_id": 981760, "strength": 2.4, "evidence": _MEASURES_EXAMPLE}]
}
_CART_EXAMPLE = {
    "product_ids": [1082185, 995242],
    **_HEADER_EXAMPLE,
    "products": [
        {"product_id": 981760, "strength": 3.0, "source": "product"},
        {"product_id": 840361, "strength": 1.9, "source": "product"},
    ],
}
_CART_EXPLAINED_EXAMPLE = _CART_EXAMPLE | {
    "products": [
        {
            "product_id": 981760,
            "strength": 3.0,
            "source": "product",
            "with": [
                {"product_ids": [1082185], "strength": 2.4, "evidence": _MEASURES_EXAMPLE},
                {"product_ids": [1082185, 995242], "strength": 1.8, "evidence": None},
            ],
        }
    ]
}


def _list_responses(
    answer: type[Any], description: str, **examples: dict[str, Any]
) -> dict[int, ResponseSpec]:
    return {
        200: ResponseSpec(
            answer,
            description=description,
            examples=[Example(id=name, value=example) for name, example in examples.items()],
        ),
        400: BAD_REQUEST,
        **ACCESS_RESPONSES,
        503: UNAVAILABLE,
    }


class RecommendationsController(Controller):
    """The lists that the shop's pages show."""

    path = "/api/recommendations"
    tags = ("Recommendations",)

    @get(
        "/top-buys",
        summary="Top Buys",
        responses=_list_responses(
            TopBuysAnswer,
            "The list, best product first; empty when nothing is published.",
            list=_TOP_BUYS_EXAMPLE,
            explained=_TOP_BUYS_EXPLAINED_EXAMPLE,
        ),
    )
    async def top_buys(
        self,
        store: Store,
        user_id: UserId = None,
        limit: Limit = DEFAULT_LIMIT,
        exclude: Exclude = None,
        explain: Explain = False,
    ) -> TopBuysAnswer:
        """The user's own list, or the guests' for a guest and for a user with nothing in theirs."""
        excluded = _checked("exclude", exclude or ())
        if user_id is None:
            read = await store.guest_top_buys()
        else:
            _checked("user_id", [user_id])
            read = await store.user_top_buys(user_id, explain=explain)
        answer = top_buys_answer(user_id, read, limit=limit, exclude=excluded, explain=explain)
        _count("top_buys", "stale" if answer.stale else answer.source, answer.products)
        return answer

    @get(
        "/buy-again",
        summary="Buy Again",
        responses=_list_responses(
            BuyAgainAnswer,
            "The list, due products first; empty when nothing is known of the user.",
            list=_BUY_AGAIN_EXAMPLE,
        ),
    )
    async def buy_again(
        self,
        store: Store,
        user_id: KnownUserId,
        limit: Limit = DEFAULT_LIMIT,
        exclude: Exclude = None,
    ) -> BuyAgainAnswer:
        """What the user buys again and again, first what is due by their own rhythm."""
        _checked("user_id", [user_id])
        excluded = _checked("exclude", exclude or ())
        read = await store.buy_again(user_id)
        answer = buy_again_answer(
            user_id, read, limit=limit, exclude=excluded, now=datetime.now(UTC)
        )
        _count("buy_again", "personal", answer.products)
        return answer

    @get(
        "/bought-together/{product_id:path}",
        summary="Bought Together",
        responses=_list_responses(
            BoughtTogetherAnswer,
            "The list, strongest first; empty when nothing is known.",
            list=_BOUGHT_TOGETHER_EXAMPLE,
            explained=_BOUGHT_TOGETHER_EXPLAINED_EXAMPLE,
        ),
    )
    async def bought_together(
        self,
        store: Store,
        product_id: ProductId,
        limit: Limit = DEFAULT_LIMIT,
        exclude: Exclude = None,
        explain: Explain = False,
    ) -> BoughtTogetherAnswer:
        """The products that share orders with this one, the same for everybody."""
        product_id = product_id.removeprefix("/")
        _checked("product_id", [product_id])
        excluded = _checked("exclude", exclude or ())
        read = await store.bought_together([product_id], limit + len(excluded), explain=explain)
        answer = bought_together_answer(
            product_id, read, limit=limit, exclude=excluded, explain=explain
        )
        source = "category" if answer.source == "category" else "global"
        _count("bought_together", source, answer.products)
        return answer

    @get(
        "/bought-together",
        summary="Bought Together with a cart",
        responses=_list_responses(
            CartAnswer,
            "The list, strongest first; empty when nothing is known.",
            list=_CART_EXAMPLE,
            explained=_CART_EXPLAINED_EXAMPLE,
        ),
    )
    async def bought_together_with_cart(
        self,
        store: Store,
        product_id: CartIds,
        limit: Limit = DEFAULT_LIMIT,
        exclude: Exclude = None,
        explain: Explain = False,
    ) -> CartAnswer:
        """The products that share orders with those of a cart, and are not in it."""
        _checked("product_id", product_id)
        excluded = _checked("exclude", exclude or ())
        cart = list(dict.fromkeys(product_id))
        read = await store.bought_together(cart, explain=explain)
        answer = cart_answer(cart, read, limit=limit, exclude=excluded, explain=explain)
        _count("bought_together_cart", "global", answer.products)
        return answer


def _count(name: str, source: str, products: Sequence[object]) -> None:
    metrics.count_list(name, source if products else "empty")


def _checked(parameter: str, ids: Iterable[str]) -> frozenset[str]:
    """The ids as they stand in Redis; raises the 400 that names ``parameter``."""
    try:
        return frozenset(map(encode_id, ids))
    except ContractError as error:
        raise refused(parameter, error) from error
