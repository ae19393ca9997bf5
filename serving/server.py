"""Running the API under granian: workers, port, and the folder their metrics share."""

import os
import resource
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from granian.constants import HTTPModes, Interfaces, Loops

from serving.api_keys import is_loopback, require_keys_or_loopback
from serving.draining import DRAIN_FILE, DrainingServer
from serving.logs import log_config
from serving.settings import ServingSettings
from serving.tracing import require_otel

DRAIN_SECONDS = 5
"""How long a server on a network goes on by default when told to stop."""

SECONDS_TO_STOP = 5
"""How long requests at work may take to end, once no more are accepted."""

CONNECTIONS = 8_192
"""How many connections a worker keeps open at most, idle ones included; more wait for a place."""

_OTHER_FILES = 128


class AddressError(OSError):
    """The API's address cannot be listened on; the text names the setting to change."""


def serve(settings: ServingSettings) -> None:
    """Serve until SIGTERM or SIGINT; returns when every worker has ended.

    Raises :class:`AddressError` when the port is taken or the host is not of this machine, and
    :class:`SettingsError` when it would let in a network without API keys.
    """
    _require_address(settings)
    require_keys_or_loopback(settings)
    require_otel(settings)
    with TemporaryDirectory(prefix="recsys-metrics-") as metrics_folder:
        # The workers read their settings from the environment, and prometheus-client, which is
        # not imported before them, finds the folder there.
        draining = Path(metrics_folder) / "draining"
        os.environ.update(
            settings.as_environment()
            | {"PROMETHEUS_MULTIPROC_DIR": metrics_folder, DRAIN_FILE: str(draining)}
        )
        DrainingServer(
            draining,
            drain_seconds(settings),
            "serving.worker:create_worker",
            factory=True,
            interface=Interfaces.ASGI,
            address=settings.host,
            port=settings.port,
            workers=settings.workers,
            workers_kill_timeout=SECONDS_TO_STOP,
            http=HTTPModes.http1,
            websockets=False,
            loop=Loops.uvloop,
            # Front bounds what is at work, and refuses the rest at once. A connection that is idle
            # is no work, and must not keep others out.
            backpressure=_connections(),
            respawn_failed_workers=True,
            log_dictconfig=log_config(settings.log_format),
        ).serve()


def drain_seconds(settings: ServingSettings) -> int:
    """How long to drain: what is set, else five seconds, and none on loopback.

    There, whoever sends requests is on this machine, and mostly a person who waits for the end.
    """
    if settings.drain_seconds is not None:
        return settings.drain_seconds
    return 0 if is_loopback(settings.host) else DRAIN_SECONDS


def _connections() -> int:
    """The bound of connections, within as many files as this process may have open at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + _OTHER_FILES
    if resource.RLIM_INFINITY not in {soft, hard} and soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    return max(1, files - _OTHER_FILES)


def _require_address(settings: ServingSettings) -> None:
    """Granian shares its port with whoever else shares it, so a taken one would go unnoticed."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise AddressError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
                "change RECSYS_API_HOST or RECSYS_API_PORT"
            ) from error
