"""Traces: one span of each request, with its waits for Redis, sent where a collector is named."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from serving.__main__ import main
from serving.app import create_app
from serving.otlp import OtlpTraces
from serving.settings import ServingSettings, SettingsError
from serving.tracing import traces_for
from tests.published import Publisher
from tests.serving_processes import free_port, running

TOP_BUYS = "/api/recommendations/top-buys"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def traced(redis_url: str, spans: InMemorySpanExporter) -> TestClient[Litestar]:
    settings = ServingSettings(redis_url=redis_url, redis_timeout_ms=2000)
    traces = OtlpTraces(SimpleSpanProcessor(spans))
    return TestClient(create_app(settings, traces))


@pytest.fixture
def api(redis_url: str, spans: InMemorySpanExporter) -> Iterator[TestClient[Litestar]]:
    with traced(redis_url, spans) as client:
        yield client


def by_kind(spans: InMemorySpanExporter) -> tuple[list[ReadableSpan], list[ReadableSpan]]:
    """The spans of requests, and those of waits for Redis, in the order of their ends."""
    finished = spans.get_finished_spans()
    requests = [span for span in finished if span.kind is SpanKind.SERVER]
    waits = [span for span in finished if span.kind is SpanKind.CLIENT]
    assert len(requests) + len(waits) == len(finished)
    return requests, waits


@pytest.mark.parametrize("query", ["", "?explain=true"])
def test_a_request_is_a_span_and_its_wait_for_redis_a_child(
    api, published: Publisher, spans, query: str
):
    published.top_buys(None, 1, 2)
    for _ in range(2):  # the guests' list may stand in for nothing; both are one read
        spans.clear()
        answer = api.get(f"{TOP_BUYS}/{query}", headers={"X-Request-ID": "seven"})
    (request,), waits = by_kind(spans)
    assert answer.status_code == 200
    assert request.name == f"GET {TOP_BUYS}"
    assert request.parent is None
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": TOP_BUYS,
        "http.response.status_code": 200,
        "http.response.header.x-request-id": ("seven",),
        "url.path": f"{TOP_BUYS}/",
        "url.scheme": "http",
    }
    assert waits
    for wait in waits:
        assert wait.name == "redis"
        assert wait.parent == request.context
        assert wait.attributes["db.system.name"] == "redis"
        assert wait.attributes["db.operation.batch.size"] >= 3
        assert request.start_time <= wait.start_time <= wait.end_time <= request.end_time


def test_the_callers_trace_goes_on(api, spans):
    api.get(TOP_BUYS, headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"})
    (request,), waits = by_kind(spans)
    assert format(request.parent.span_id, "016x") == PARENT
    assert {format(span.context.trace_id, "032x") for span in [request, *waits]} == {TRACE}
    assert request.context.trace_state.get("a") == "b"


def test_an_odd_traceparent_begins_a_trace(api, spans):
    assert api.get("/none", headers={"traceparent": "00-x-y-z"}).status_code == 404
    (request,), waits = by_kind(spans)
    assert (request.name, request.parent, waits) == ("GET", None, [])
    assert request.status.status_code is StatusCode.UNSET


def test_what_the_caller_does_not_trace_is_not_traced(api, spans):
    answer = api.get(TOP_BUYS, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert answer.status_code == 200
    assert spans.get_finished_spans() == ()


def test_the_query_is_in_no_span(api, spans):
    api.get(f"{TOP_BUYS}/?user_id=4711")
    assert "4711" not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_a_failure_is_an_error(spans):
    with traced("redis://127.0.0.1:1", spans) as api:
        spans.clear()
        assert api.get(TOP_BUYS).status_code == 503
    (request,), _ = by_kind(spans)
    assert request.status.status_code is StatusCode.ERROR
    assert request.attributes["error.type"] == "503"


def test_concurrent_requests_have_their_own_spans(api, spans):
    paths = [f"/api/recommendations/bought-together/{number}/" for number in range(60)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(api.get, paths))
    requests, waits = by_kind(spans)
    assert sorted(span.attributes["url.path"] for span in requests) == sorted(paths)
    ids = {span.context.span_id: span.context.trace_id for span in requests}
    assert len(ids) == len(set(ids.values())) == len(paths)
    assert {wait.parent.span_id for wait in waits} == set(ids)
    assert all(ids[wait.parent.span_id] == wait.context.trace_id for wait in waits)


# Settings


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, ExportTraceServiceRequest]]]]:
    """The endpoint of a collector, and what it has received."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


def test_a_server_sends_its_traces_before_it_ends(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with collector() as (endpoint, received):
        monkeypatch.setenv(ENDPOINT, endpoint)
        with running(redis_url, tmp_path, "--workers", "1") as (client, _):
            client.get(TOP_BUYS)
    assert {path for path, _ in received} == {"/v1/traces"}
    resources = [each for _, request in received for each in request.resource_spans]
    names = {
        attribute.value.string_value
        for each in resources
        for attribute in each.resource.attributes
        if attribute.key == "service.name"
    }
    assert names == {"recsys-api"}
    spans = [span for each in resources for scope in each.scope_spans for span in scope.spans]
    assert {f"GET {TOP_BUYS}", "redis"} <= {span.name for span in spans}


def test_a_collector_that_is_away_holds_nothing_up(
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
):
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    with running(redis_url, tmp_path, "--workers", "1") as (client, _):
        assert client.get(TOP_BUYS).status_code == 200
    assert "Killing" not in capfd.readouterr().out  # the worker has ended by itself


def test_without_an_endpoint_what_makes_traces_is_not_imported():
    program = (
        "import sys; from serving.app import create_app; "
        "from serving.settings import ServingSettings; "
        "create_app(ServingSettings(redis_url='redis://127.0.0.1:1')); print(*sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    makers = ("serving.otlp", "opentelemetry.exporter")  # redis imports the SDK's metrics by itself
    assert [name for name in output.decode().split() if name.startswith(makers)] == []


def test_an_endpoint_without_the_extra_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    settings = ServingSettings(redis_url="redis://127.0.0.1:1", otlp_endpoint="http://c:4318")
    with pytest.raises(SettingsError, match=ENDPOINT):
        traces_for(settings)
    monkeypatch.setenv("RECSYS_REDIS_URL", settings.redis_url)
    monkeypatch.setenv(ENDPOINT, settings.otlp_endpoint)
    assert main(["--port", str(free_port())]) == 1
    assert "extra otel" in capsys.readouterr().err


def test_an_endpoint_that_is_none_is_told():
    with pytest.raises(SettingsError, match=ENDPOINT):
        ServingSettings.from_environment({"RECSYS_REDIS_URL": "redis://h", ENDPOINT: "c:4318"})
