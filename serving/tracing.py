"""Traces of requests, made only where an OpenTelemetry collector is configured.

What makes them is :mod:`serving.otlp`, which needs the optional extra ``otel`` and is not imported
otherwise.
"""

from asyncio import to_thread
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from threading import Thread
from typing import Any, Protocol

from serving.redis.turn import Turn
from serving.settings import ServingSettings, SettingsError

SECONDS_TO_CLOSE = 2.0
"""How long the end of the service waits for the last traces to be sent."""

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


class Traces(Protocol):
    """Makes spans of requests and of their waits for Redis."""

    def begin(self, scope: Mapping[str, Any], request_id: bytes) -> Any:
        """The span of a request, which is the current one until :meth:`end` is told of it."""

    def end(self, span: Any, route: str | None, status: int) -> None:
        """End the span of a request, which was answered so."""

    def turn(self, patience: float) -> Turn:
        """A new turn, in which each reader's wait is a span of the request at work."""
        raise NotImplementedError

    def close(self) -> None:
        """Send what is not sent yet."""


def traces_for(settings: ServingSettings) -> Traces | None:
    """What makes traces by these settings; None where none are to be made.

    Raises :class:`SettingsError` as :func:`require_otel` does.
    """
    require_otel(settings)
    if not settings.otlp_endpoint:
        return None
    traces: Traces = import_module("serving.otlp").OtlpTraces.to(settings.otlp_endpoint)
    return traces


def require_otel(settings: ServingSettings) -> None:
    """Raises :class:`SettingsError` when traces are to be made and what makes them is missing."""
    if settings.otlp_endpoint and not _is_installed(_EXPORTER):
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
            "install this project's extra otel, or unset it"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it would be in
        return False


@asynccontextmanager
async def closing_traces(traces: Traces | None) -> AsyncIterator[None]:
    """Close them at the end of the service, which a collector that is away does not hold up."""
    try:
        yield
    finally:
        if traces is not None:
            closing = Thread(target=traces.close, daemon=True)
            closing.start()
            await to_thread(closing.join, SECONDS_TO_CLOSE)
