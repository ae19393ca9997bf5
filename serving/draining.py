"""Ending a server without turning anybody away: readiness says no first, then it stops."""

import logging
import os
import signal
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

from granian.server.mp import MPServer

DRAIN_FILE = "RECSYS_API_DRAIN_FILE"
"""The environment variable with the path of a file that exists while the server drains."""

logger = logging.getLogger(__name__)


def is_draining() -> bool:
    """Whether this worker's server has been told to stop."""
    return os.path.exists(os.environ.get(DRAIN_FILE, ""))  # noqa: PTH110 - may be no path


class DrainingServer(MPServer):
    """Goes on serving for a while when told to stop, so that balancers send nothing more."""

    def __init__(self, draining: Path, seconds: int, *arguments: Any, **options: Any) -> None:
        """``draining`` is the file that exists from then on; ``seconds`` may be 0."""
        super().__init__(*arguments, **options)
        os.register_at_fork(after_in_child=_leave_signals_to_the_server)
        self._draining = draining
        self._seconds = seconds
        self._stopping = False

    def signal_handler_interrupt(self, *arguments: Any, **options: Any) -> None:
        """Begin to drain at the first order to stop, and stop at the next one."""
        stop = partial(self._stop, *arguments, **options)
        if self._seconds == 0 or self._draining.exists():
            stop()
            return
        self._draining.touch()
        logger.info("Draining for %d s", self._seconds)
        timer = Timer(self._seconds, stop)
        timer.daemon = True
        timer.start()

    def _stop(self, *arguments: Any, **options: Any) -> None:
        """Stop once: an order that interrupts another one would wait for a lock that it holds."""
        if not self._stopping:
            self._stopping = True
            super().signal_handler_interrupt(*arguments, **options)  # type: ignore[no-untyped-call]


def _leave_signals_to_the_server() -> None:
    """A worker's until it serves, in place of the server's own handlers, which came by the fork.

    Ctrl-C comes to all processes of a terminal, and is an order to the server only, which ends its
    workers by SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
