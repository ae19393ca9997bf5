"""The routes of the JSON API: take the parameters, ask the store, shape the answer."""

from collections.abc import Iterable
from typing import Annotated

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import PathParameter, QueryParameter

from serving import metrics
from serving.answers import (
    BoughtTogetherAnswer,
    Liveness,
    Readiness,
    TopBuysAnswer,
    bought_together_answer,
    top_buys_answer,
)
from serving.contract import ContractError, encode_id
from serving.problems import BAD_REQUEST, UNAVAILABLE, refused
from serving.store import RecommendationStore

Store = NamedDependency[RecommendationStore]
UserId = Annotated[
    str | None,
    QueryParameter(
        description="The shop's id of the user; leave it out for a guest.",
        examples=[Example(summary="a user", value="1")],
    ),
]
ProductId = Annotated[
    str,
    PathParameter(
        description="The shop's id of the product; a slash in it is written %2F.",
        examples=[Example(summary="a product", value="1082185")],
    ),
]
Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Products to answer, at most.")]
Exclude = Annotated[
    list[str] | None,
    QueryParameter(description="A product to leave out, such as one in the cart; may be repeated."),
]

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
_BOUGHT_TOGETHER_EXAMPLE = {
    "product_id": 1082185,
    **_HEADER_EXAMPLE,
    "products": [
        {"product_id": 981760, "strength": 2.4},
        {"product_id": 840361, "strength": 1.9},
    ],
}


class RecommendationsController(Controller):
    """The two lists that the shop's pages show."""

    path = "/api/recommendations"
    tags = ("Recommendations",)

    @get(
        "/top-buys",
        summary="Top Buys",
        responses={
            200: ResponseSpec(
                TopBuysAnswer,
                description="The list, best product first; empty when nothing is published.",
                examples=[Example(value=_TOP_BUYS_EXAMPLE)],
            ),
            400: BAD_REQUEST,
            503: UNAVAILABLE,
        },
    )
    async def top_buys(
        self, store: Store, user_id: UserId = None, limit: Limit = 10, exclude: Exclude = None
    ) -> TopBuysAnswer:
        """The user's own list, or the guests' for a guest and for a user who has none."""
        excluded = _checked("exclude", exclude or ())
        if user_id is None:
            stored, records = await store.guest_top_buys()
        else:
            _checked("user_id", [user_id])
            stored, records = await store.user_top_buys(user_id)
        answer = top_buys_answer(user_id, stored, records, limit=limit, exclude=excluded)
        source = answer.source if answer.products else "empty"
        metrics.recommendations.labels("top_buys", source).inc()
        return answer

    @get(
        "/bought-together/{product_id:path}",
        summary="Bought Together",
        responses={
            200: ResponseSpec(
                BoughtTogetherAnswer,
                description="The list, strongest first; empty when nothing is known.",
                examples=[Example(value=_BOUGHT_TOGETHER_EXAMPLE)],
            ),
            400: BAD_REQUEST,
            503: UNAVAILABLE,
        },
    )
    async def bought_together(
        self, store: Store, product_id: ProductId, limit: Limit = 10, exclude: Exclude = None
    ) -> BoughtTogetherAnswer:
        """The products that share orders with this one, the same for everybody."""
        product_id = product_id.removeprefix("/")
        _checked("product_id", [product_id])
        excluded = _checked("exclude", exclude or ())
        pairings, record = await store.bought_together(product_id, limit + len(excluded))
        answer = bought_together_answer(product_id, pairings, record, limit=limit, exclude=excluded)
        source = "global" if answer.products else "empty"
        metrics.recommendations.labels("bought_together", source).inc()
        return answer


class HealthController(Controller):
    """What an orchestrator asks."""

    path = "/health"
    tags = ("Health",)

    @get(
        "/live",
        summary="Alive",
        responses={200: ResponseSpec(Liveness, description="The process answers.")},
    )
    async def live(self) -> Liveness:
        """Does not ask Redis, so that its absence makes nobody restart this process."""
        return Liveness()

    @get(
        "/ready",
        summary="Ready",
        responses={
            200: ResponseSpec(Readiness, description="Redis answers; what is published in it."),
            503: UNAVAILABLE,
        },
    )
    async def ready(self, store: Store) -> Readiness:
        """Whether Redis answers, and the last publication of every family of lists."""
        return Readiness(families=await store.publications())


def _checked(parameter: str, ids: Iterable[str]) -> frozenset[str]:
    """The ids as they stand in Redis; raises the 400 that names ``parameter``."""
    try:
        return frozenset(map(encode_id, ids))
    except ContractError as error:
        raise refused(parameter, error) from error
