"""The application factory: puts routes, store, errors, metrics and pages together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Tag

from serving.caching import CacheHeaders
from serving.controllers import HealthController, RecommendationsController
from serving.explorer_routes import ExplorerController
from serving.front import Front
from serving.metrics import MetricsController
from serving.pages import ReferencePage, start_page, static_files
from serving.problems import EXCEPTION_HANDLERS
from serving.settings import ServingSettings
from serving.store import RecommendationStore, open_store

API_VERSION = "1.0.0"

OPENAPI = OpenAPIConfig(
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
)


def create_app(settings: ServingSettings | None = None) -> Front:
    """The API, with its settings from the environment unless given.

    Redis need not be there: it is looked for when a request needs it.
    """
    settings = settings or ServingSettings.from_environment()

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with open_store(settings.redis_url, settings.redis_timeout_seconds) as store:
            app.state.store = store
            yield

    app = Litestar(
        route_handlers=[
            Router(
                "/",
                route_handlers=[RecommendationsController],
                middleware=[CacheHeaders(settings.max_age_seconds)],
            ),
            ExplorerController,
            HealthController,
            MetricsController,
            start_page,
            static_files(),
        ],
        dependencies={"store": Provide(_store, sync_to_thread=False)},
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[lifespan],
        openapi_config=OPENAPI,
        logging_config=None,
    )
    return Front(app, settings.in_flight)


def _store(state: State) -> RecommendationStore:
    store: RecommendationStore = state.store
    return store
