"""Running the API under granian: workers, port, and the folder their metrics share."""

import os
import socket
from tempfile import TemporaryDirectory

from granian import Granian
from granian.constants import Interfaces

from serving.logs import log_config
from serving.settings import ServingSettings
from serving.tracing import require_otel

SECONDS_TO_STOP = 5


class AddressError(OSError):
    """The API's address cannot be listened on; the text names the setting to change."""


def serve(settings: ServingSettings) -> None:
    """Serve until SIGTERM or SIGINT; returns when every worker has ended.

    Raises :class:`AddressError` when the port is taken or the host is not of this machine.
    """
    _require_address(settings)
    require_otel(settings)
    with TemporaryDirectory(prefix="recsys-metrics-") as metrics_folder:
        # The workers read their settings from the environment, and prometheus-client, which is
        # not imported before them, finds the folder there.
        os.environ.update(settings.as_environment() | {"PROMETHEUS_MULTIPROC_DIR": metrics_folder})
        Granian(
            "serving.app:create_app",
            factory=True,
            interface=Interfaces.ASGI,
            address=settings.host,
            port=settings.port,
            workers=settings.workers,
            workers_kill_timeout=SECONDS_TO_STOP,
            websockets=False,
            log_dictconfig=log_config(settings.log_format),
        ).serve()


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
