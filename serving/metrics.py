"""What Prometheus is told at /metrics, and how requests are counted and timed.

The series live in prometheus-client's default registry; under several workers the server names a
folder in PROMETHEUS_MULTIPROC_DIR before this is imported, and any worker then tells of all.
"""

from time import perf_counter

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.plugins.prometheus import PrometheusController
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Counter, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

http_requests = Counter(
    "recsys_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
http_seconds = Histogram(
    "recsys_http_request_seconds", "From request to answer.", ["route"], buckets=_SECONDS
)
redis_seconds = Histogram(
    "recsys_redis_read_seconds", "Round trips to Redis that were answered.", buckets=_SECONDS
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

_UNROUTED = "unrouted"
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


async def count_request(message: Message, scope: Scope) -> None:
    """Count an answer when it starts, whether or not the path is one of ours.

    Paths and methods that are made up by clients are counted together.
    """
    if message["type"] == "http.response.start" and scope["type"] == ScopeType.HTTP:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = scope.get("path_template") or _UNROUTED
        http_requests.labels(method, route, message["status"]).inc()


class RequestTimer(ASGIMiddleware):
    """Time the requests of known routes."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on and observe how long its answer took."""
        start = perf_counter()
        await next_app(scope, receive, send)
        http_seconds.labels(scope["path_template"]).observe(perf_counter() - start)


class MetricsController(PrometheusController):
    """GET /metrics, in Prometheus' text format."""

    include_in_schema = False
