"""The application factory: puts routes, store, errors, metrics and pages together."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag

from serving import metrics
from serving.access import gate_of
from serving.caching import CacheHeaders, Caching
from serving.controllers import RecommendationsController
from serving.explorer_routes import ExplorerController
from serving.front import Front
from serving.headers import AnswerHeaders
from serving.health import HealthController
from serving.pages import ReferencePage, start_page, static_files
from serving.problems import EXCEPTION_HANDLERS
from serving.ready import ReadyLists
from serving.redis.reads import RedisReads
from serving.redis.turn import Turn
from serving.scrape import MetricsController
from serving.settings import ServingSettings
from serving.stale import RememberingStore
from serving.store import RecommendationStore
from serving.tracing import Traces, closing_traces, traces_for

API_VERSION = "1.0.0"

KEY_NEEDED: Any = {
    "security": [{"bearer": []}, {"header": []}],
    "components": Components(
        security_schemes={
            "bearer": SecurityScheme(type="http", scheme="bearer"),
            "header": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
        }
    ),
}
"""What the OpenAPI document says of API keys, where there are any."""


Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def create_app(
    settings: ServingSettings | None = None,
    traces: Traces | None = None,
    lifespan: Sequence[Lifespan] = (),
) -> Front:
    """The API, with its settings from the environment unless given, and traces as they say.

    It runs within what ``lifespan`` makes. Redis need not be there: it is looked for when a request
    needs it.
    """
    settings = settings or ServingSettings.from_environment()
    traces = traces or traces_for(settings)
    new_turn = Turn if traces is None else traces.turn
    redis = RedisReads(settings.redis_url, settings.redis_timeout_seconds, new_turn)
    store = (RememberingStore if settings.stale_guests else RecommendationStore)(redis)
    caching = Caching(settings.max_age_seconds, shared=not settings.has_keys)

    app = Litestar(
        route_handlers=[
            Router(
                "/",
                route_handlers=[RecommendationsController],
                middleware=[CacheHeaders(caching)],
            ),
            ExplorerController,
            HealthController,
            MetricsController,
            start_page,
            static_files(),
        ],
        dependencies={
            "store": Provide(lambda: store, sync_to_thread=False),
            "fresh_seconds": Provide(lambda: settings.fresh_seconds, sync_to_thread=False),
        },
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[
            *lifespan,
            lambda _: closing_traces(traces),
            lambda _: redis,
            lambda _: store.remembering() if isinstance(store, RememberingStore) else nullcontext(),
            lambda _: metrics.told(lambda: front.in_flight, lambda: redis.state),
        ],
        openapi_config=_openapi(**(KEY_NEEDED if settings.has_keys else {})),
        logging_config=None,
    )
    front = Front(
        app,
        ReadyLists(store),
        caching,
        settings.in_flight,
        headers=AnswerHeaders(settings.cors_origins.split(",") if settings.cors_origins else ()),
        gate=gate_of(settings, redis),
        access_log=settings.access_log,
        traces=traces,
    )
    return front


def _openapi(**more: Any) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Product recommendations",
        version=API_VERSION,
        description="Ready lists of products, read from Redis. A final slash makes no difference.",
        path="/schema",
        render_plugins=[ReferencePage()],
        use_handler_docstrings=True,
        tags=[
            Tag(name="Recommendations", description="What the shop's pages show."),
            Tag(name="Explorer", description="What people need who look at the lists."),
            Tag(name="Health", description="What an orchestrator asks."),
        ],
        **more,
    )
