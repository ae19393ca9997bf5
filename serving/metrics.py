"""What Prometheus is told at /metrics, and how requests are counted and timed.

The series live in prometheus-client's default registry; under several workers the server names a
folder in PROMETHEUS_MULTIPROC_DIR before this is imported, and any worker then tells of all.
"""

from functools import cache

from litestar.plugins.prometheus import PrometheusController
from prometheus_client import Counter, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

http_requests = Counter(
    "recsys_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
http_seconds = Histogram(
    "recsys_http_request_seconds", "From request to answer.", ["route"], buckets=_SECONDS
)
redis_seconds = Histogram(
    "recsys_redis_round_trip_seconds", "Round trips to Redis that were answered.", buckets=_SECONDS
)
redis_reads = Counter(
    "recsys_redis_reads_total", "Reads that were answered; per round trip, how many share one."
)
redis_failures = Counter(
    "recsys_redis_failures_total",
    "Requests not answered: Redis away or slow (unavailable), or a foreign value in it (contract).",
    ["reason"],
)
recommendations = Counter(
    "recsys_recommendations_total",
    "Lists served, by where they came from; empty: no product was left to recommend.",
    ["list", "source"],
)

_requests = cache(http_requests.labels)
_latencies = cache(http_seconds.labels)
_recommendations = cache(recommendations.labels)

_UNROUTED = "unrouted"
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count an answer, whether or not the path is one of ours, and time those of known routes.

    Paths and methods that are made up by clients are counted together.
    """
    _requests(method if method in _METHODS else "other", route or _UNROUTED, status).inc()
    if route is not None:
        _latencies(route).observe(seconds)


def count_round_trip(reads: int, seconds: float) -> None:
    """Count a round trip to Redis that so many reads have shared."""
    redis_reads.inc(reads)
    redis_seconds.observe(seconds)


def count_list(name: str, source: str) -> None:
    """Count a list that was served; ``source`` is where it came from, or "empty"."""
    _recommendations(name, source).inc()


class MetricsController(PrometheusController):
    """GET /metrics, in Prometheus' text format."""

    include_in_schema = False
