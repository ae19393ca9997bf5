"""Every setting of the API: its environment variable, its default, its unit.

Nothing here reads Redis or starts anything.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta, field

from serving.redis.url import RedisUrl


class SettingsError(ValueError):
    """A setting is missing or out of its bounds; the text names its environment variable."""


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class ServingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of the API; ``name`` is the environment variable of each."""

    redis_url: Annotated[str, Meta(pattern=r"^(rediss?(\+cluster|\+sentinel)?|unix)://.+")] = field(
        name="RECSYS_REDIS_URL"
    )
    """The Redis or Valkey with the published lists; :class:`serving.redis.url.RedisUrl` of it."""

    redis_timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] = field(
        default=250, name="RECSYS_REDIS_TIMEOUT_MS"
    )
    """Milliseconds after which a read is given up and answered by 503."""

    host: Annotated[str, Meta(min_length=1)] = field(default="127.0.0.1", name="RECSYS_API_HOST")
    """The address to listen on."""

    port: Annotated[int, Meta(ge=1, le=65_535)] = field(default=8000, name="RECSYS_API_PORT")
    """The TCP port to listen on."""

    workers: Annotated[int, Meta(ge=1, le=1_024)] = field(
        default_factory=_cores, name="RECSYS_API_WORKERS"
    )
    """Processes that answer requests; as many as there are cores for them by default."""

    in_flight: Annotated[int, Meta(ge=1, le=100_000)] = field(
        default=512, name="RECSYS_API_IN_FLIGHT"
    )
    """Requests that one worker has at work at most; more are answered by 503 at once."""

    max_age_seconds: Annotated[int, Meta(ge=0, le=86_400)] = field(
        default=5, name="RECSYS_API_MAX_AGE_SECONDS"
    )
    """Seconds for which browsers and proxies may show a list without asking again."""

    api_keys: str = field(default="", name="RECSYS_API_KEYS")
    """API keys, one of which a request must bear: name:sha256, separated by commas."""

    api_keys_file: str = field(default="", name="RECSYS_API_KEYS_FILE")
    """A file of more of them, one a line, that may change while the API runs."""

    insecure: bool = field(default=False, name="RECSYS_API_INSECURE")
    """Whether to serve a network without API keys."""

    rate_limit: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")] = field(
        default="", name="RECSYS_API_RATE_LIMIT"
    )
    """Requests that each name, or each address where there are no keys, may make: 100/second."""

    cors_origins: Annotated[str, Meta(pattern=r"^(\*|https?://[^/,\s]+(,https?://[^/,\s]+)*)$")] = (
        field(default="", name="RECSYS_API_CORS_ORIGINS")
    )
    """Origins, separated by commas, whose pages may ask in a browser; * is all."""

    stale_guests: bool = field(default=False, name="RECSYS_API_STALE_GUESTS")
    """Whether to serve the last known guests' list while Redis is away, marked as stale."""

    fresh_seconds: Annotated[int, Meta(ge=1, le=31_622_400)] = field(
        default=26 * 3600, name="RECSYS_API_FRESH_SECONDS"
    )
    """Seconds after its publication for which /health/ready calls a family of lists fresh."""

    access_log: bool = field(default=False, name="RECSYS_API_ACCESS_LOG")
    """Whether to log every request."""

    log_format: Literal["text", "json"] = field(default="text", name="RECSYS_API_LOG_FORMAT")
    """Lines for people, or a JSON object a line."""

    otlp_endpoint: Annotated[str, Meta(pattern=r"^(https?://.+)?$")] = field(
        default="", name="OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    """The OpenTelemetry collector that traces are sent to, over HTTP; empty: none are made."""

    drain_seconds: Annotated[int, Meta(ge=0, le=600)] | None = field(
        default=None, name="RECSYS_API_DRAIN_SECONDS"
    )
    """Seconds to go on serving after the order to stop, while readiness already says no.

    None: as :func:`serving.server.drain_seconds` has it.
    """

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The settings in ``environment``, where an empty variable counts as unset.

        Raises :class:`SettingsError` for a missing or bad value.
        """
        given = {name: value for name, value in environment.items() if value}
        try:
            settings = msgspec.convert(given, cls, strict=False)
            RedisUrl.parse(settings.redis_url)
        except msgspec.ValidationError as error:
            raise SettingsError(f"bad setting: {error}") from error
        except ValueError as error:
            raise SettingsError(f"bad setting: RECSYS_REDIS_URL is {error}") from error
        return settings

    def as_environment(self) -> dict[str, str]:
        """The environment variables that :meth:`from_environment` makes these settings of."""
        return {
            name: str(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in msgspec.to_builtins(self).items()
            if value is not None
        }

    @property
    def has_keys(self) -> bool:
        """Whether requests must bear an API key."""
        return bool(self.api_keys or self.api_keys_file)

    @property
    def redis_timeout_seconds(self) -> float:
        """``redis_timeout_ms`` in seconds."""
        return self.redis_timeout_ms / 1000
