"""The API in a worker process of the server."""

import asyncio
import gc
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar

from serving.app import create_app
from serving.front import Front

LOOK_SECONDS = 1.0
"""How often a worker looks whether its server is still there."""


def create_worker() -> Front:
    """The API, with its settings from the environment.

    What has been made until now stays for good: the collector need not look through it again and
    again, for some 40 ms each time, in which nothing is answered.
    """
    app = create_app(lifespan=[_of_server])
    gc.collect()
    gc.freeze()
    return app


@asynccontextmanager
async def _of_server(_: Litestar) -> AsyncIterator[None]:
    """End when the server ends, however that comes about, and only then.

    Ctrl-C comes to all processes of a terminal. The server then drains, and tells its workers
    when to stop; and when it was killed, nobody would, and they would keep its port.
    """
    loop = asyncio.get_running_loop()
    loop.remove_signal_handler(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = multiprocessing.parent_process()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        if server is not None and os.getppid() != server.pid:
            os.kill(os.getpid(), signal.SIGTERM)
        timer = loop.call_later(LOOK_SECONDS, look)

    look()
    try:
        yield
    finally:
        timer.cancel()
