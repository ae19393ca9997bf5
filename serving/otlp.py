"""Traces by OpenTelemetry's SDK; see :mod:`serving.tracing` for when they are made.

A request is one span, which takes over the caller's trace context (W3C traceparent), and each wait
for Redis is a child of it. The names are OpenTelemetry's semantic conventions. As in the log, the
query of a request is not in its span.
"""

import os
from collections.abc import Mapping
from contextvars import Token
from typing import Any, NamedTuple, Self

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.redis.turn import Turn

SERVICE_NAME = "recsys-api"

_W3C = frozenset({b"traceparent", b"tracestate"})
_propagator = TraceContextTextMapPropagator()


class _Begun(NamedTuple):
    """The span of a request, and what makes the one before it the current one again."""

    method: str
    span: Span
    token: Token[Context]


class OtlpTraces:
    """Makes spans, as :class:`serving.tracing.Traces` says, and gives them to a processor."""

    def __init__(self, processor: SpanProcessor) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", SERVICE_NAME)
        resource = Resource.create({"service.name": name})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("serving")

    @classmethod
    def to(cls, endpoint: str) -> Self:
        """Traces that are sent in batches, by a thread of their own, to a collector."""
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        return cls(BatchSpanProcessor(exporter))

    def begin(self, scope: Mapping[str, Any], request_id: bytes) -> _Begun:
        """The span of a request, which is the current one from now on."""
        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _W3C
        }
        span = self._tracer.start_span(
            scope["method"],
            _propagator.extract(carrier, Context()),
            SpanKind.SERVER,
            {
                "http.request.method": scope["method"],
                "url.path": scope["path"],
                "url.scheme": scope["scheme"],
                "http.response.header.x-request-id": [request_id.decode()],
            },
        )
        return _Begun(scope["method"], span, context.attach(set_span_in_context(span)))

    def end(self, begun: _Begun, route: str | None, status: int) -> None:
        """End the span of a request, and name it by the route."""
        span = begun.span
        span.set_attribute("http.response.status_code", status)
        if route is not None:
            span.set_attribute("http.route", route)
            span.update_name(f"{begun.method} {route}")
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)
        context.detach(begun.token)
        span.end()

    def turn(self, patience: float) -> Turn:
        """A new turn whose readers' waits are spans."""
        return _TracedTurn(self._tracer, patience)

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()


class _TracedTurn(Turn):
    def __init__(self, tracer: Tracer, patience: float) -> None:
        super().__init__(patience)
        self._tracer = tracer

    def settled(self) -> Any:
        span = self._tracer.start_span("redis", None, SpanKind.CLIENT, {"db.system.name": "redis"})
        reader = super().settled()

        def end(_: object) -> None:
            span.set_attribute("db.operation.batch.size", len(self))
            span.set_attribute("recsys.readers", self.readers)
            if self.failed:
                span.set_status(StatusCode.ERROR)
            span.end()

        reader.add_done_callback(end)
        return reader
