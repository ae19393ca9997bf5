"""Every setting of the API: its environment variable, its default, its unit.

Nothing here reads Redis or starts anything.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Self

import msgspec
from msgspec import Meta, field


class SettingsError(ValueError):
    """A setting is missing or out of its bounds; the text names its environment variable."""


class ServingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of the API; ``name`` is the environment variable of each."""

    redis_url: Annotated[str, Meta(pattern="^(redis|rediss|unix)://.+")] = field(
        name="RECSYS_REDIS_URL"
    )
    """The Redis or Valkey server with the published lists; redis://, rediss:// or unix://."""

    redis_timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] = field(
        default=250, name="RECSYS_REDIS_TIMEOUT_MS"
    )
    """Milliseconds after which a read is given up and answered by 503."""

    redis_connections: Annotated[int, Meta(ge=1, le=10_000)] = field(
        default=32, name="RECSYS_REDIS_CONNECTIONS"
    )
    """Connections that one worker opens to Redis at most; further reads wait for one."""

    host: Annotated[str, Meta(min_length=1)] = field(default="127.0.0.1", name="RECSYS_API_HOST")
    """The address to listen on."""

    port: Annotated[int, Meta(ge=1, le=65_535)] = field(default=8000, name="RECSYS_API_PORT")
    """The TCP port to listen on."""

    workers: Annotated[int, Meta(ge=1, le=1_024)] = field(default=1, name="RECSYS_API_WORKERS")
    """Processes that answer requests."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The settings in ``environment``, where an empty variable counts as unset.

        Raises :class:`SettingsError` for a missing or bad value.
        """
        given = {name: value for name, value in environment.items() if value}
        try:
            return msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"bad setting: {error}") from error

    def as_environment(self) -> dict[str, str]:
        """The environment variables that :meth:`from_environment` makes these settings of."""
        return {name: str(value) for name, value in msgspec.to_builtins(self).items()}

    @property
    def redis_timeout_seconds(self) -> float:
        """``redis_timeout_ms`` in seconds."""
        return self.redis_timeout_ms / 1000
