"""The routes that an orchestrator asks: is the process alive, and should it get requests?"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.exceptions import ServiceUnavailableException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from serving.contract import Family, Publication
from serving.draining import is_draining
from serving.problems import RETRY_AFTER_SECONDS, UNAVAILABLE
from serving.readings import Records
from serving.redis.turn import RedisUnavailable
from serving.store import RecommendationStore

_RECORD_EXAMPLE = {
    "schema": 1,
    "family": "global_top_buys",
    "model_version": "20250301T030000Z",
    "generated_at": "2025-03-01T03:02:11Z",
    "orders_through": "2025-03-01T02:59:40Z",
    "finished_at": "2025-03-01T03:02:12Z",
    "keys": 1,
    "id_kind": "integer",
    "age_seconds": 3480.5,
    "fresh": True,
}


class Liveness(Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class PublishedFamily(Publication, frozen=True, kw_only=True):
    """The last publication of a family of lists, and how old it is by now."""

    age_seconds: Annotated[float, Meta(description="Since the publication has finished.")]
    fresh: Annotated[
        bool, Meta(description="Whether it is not older than RECSYS_API_FRESH_SECONDS.")
    ]


class Readiness(Struct, frozen=True, kw_only=True):
    """What there is to serve."""

    status: Literal["ready"] = "ready"
    families: Annotated[
        dict[Family, PublishedFamily | None],
        Meta(description="The last publication of each family of lists; null: never published."),
    ]
    stale: Annotated[
        bool | UnsetType,
        Meta(
            description="True while Redis is away and the guests' list is served as last known: "
            "so are the publications. Only with RECSYS_API_STALE_GUESTS."
        ),
    ] = UNSET


class HealthController(Controller):
    """What an orchestrator asks."""

    path = "/health"
    tags = ("Health",)
    security = ({},)  # no key is needed, whatever the rest asks for

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
            200: ResponseSpec(
                Readiness,
                description="Redis answers, or the guests' list is served as last known; what is "
                "published, and whether that is fresh.",
                examples=[
                    Example(
                        id="ready",
                        value={
                            "status": "ready",
                            "families": {"global_top_buys": _RECORD_EXAMPLE, "user_top_buys": None},
                        },
                    )
                ],
            ),
            503: UNAVAILABLE,
        },
    )
    async def ready(
        self, store: NamedDependency[RecommendationStore], fresh_seconds: NamedDependency[int]
    ) -> Readiness:
        """Whether to send requests here: Redis answers, and the server is not about to stop.

        Old or missing lists do not change that: they are better than none, and no other instance
        that reads the same Redis has others. Nor does it that Redis is away, where the guests' list
        is served as last known.
        """
        if is_draining():
            raise ServiceUnavailableException(
                "The server is about to stop; ask another one.",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        now = datetime.now(UTC)
        try:
            return readiness(await store.publications(), fresh_seconds, now)
        except RedisUnavailable:
            last_known = store.last_known
            if last_known is None:
                raise
            return readiness(last_known, fresh_seconds, now, stale=True)


def readiness(
    publications: Records, fresh_seconds: int, now: datetime, *, stale: bool = False
) -> Readiness:
    """What is published, with its age at ``now``, and fresh up to an age in seconds."""
    families: dict[Family, PublishedFamily | None] = dict.fromkeys(publications)
    for family, record in publications.items():
        if record is not None:
            age = age_seconds(record, now)
            families[family] = PublishedFamily(
                **structs.asdict(record), age_seconds=age, fresh=age <= fresh_seconds
            )
    return Readiness(families=families, stale=stale or UNSET)


def age_seconds(publication: Publication, now: datetime) -> float:
    """The seconds since a publication has finished; not less than 0 where clocks differ."""
    return max(0.0, (now - publication.finished_at).total_seconds())
