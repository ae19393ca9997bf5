"""GET /metrics: the series of all workers, and how old what is published in Redis is by now."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from serving import metrics
from serving.contract import ContractError, Family, Publication, decode_publication, publication_key
from serving.health import age_seconds
from serving.redis.turn import RedisUnavailable
from serving.store import RecommendationStore

_Collector: Any = MultiProcessCollector  # these have no types
_mark_process_dead: Any = mark_process_dead


class MetricsController(Controller):
    """The metrics, in Prometheus' text format."""

    path = "/metrics"
    include_in_schema = False

    @get()
    async def metrics(self, store: NamedDependency[RecommendationStore]) -> Response[bytes]:
        """All series; those about publications are left out while Redis is away."""
        published = CollectorRegistry()
        published.register(PublicationAges(await _publications(store), datetime.now(UTC)))
        metrics.flush()
        body = generate_latest(_series()) + generate_latest(published)
        return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})


class PublicationAges(Collector):
    """The age at ``now`` of what is published of each family, as a series that was not kept."""

    def __init__(self, publications: Iterable[Publication], now: datetime) -> None:
        self._publications = publications
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge, with a sample for each publication."""
        ages = GaugeMetricFamily(
            "recsys_publication_age_seconds",
            "Since the last publication of a family has finished; none: never published.",
            labels=["family"],
        )
        for each in self._publications:
            ages.add_metric([each.family], age_seconds(each, self._now))
        yield ages


async def _publications(store: RecommendationStore) -> list[Publication]:
    """The records that can be read now, within the timeout of a read."""
    publications = []
    with suppress(RedisUnavailable, ContractError):
        for record in await store.read([("GET", publication_key(family)) for family in Family]):
            with suppress(ContractError):
                if record is not None:
                    publications.append(decode_publication(record))
    return publications


def _series() -> CollectorRegistry:
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return REGISTRY
    for file in Path(folder).glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not _is_alive(pid):  # a worker that has been replaced
            with suppress(FileNotFoundError):  # another worker is as quick
                _mark_process_dead(pid)
    registry = CollectorRegistry()
    _Collector(registry)
    return registry


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
