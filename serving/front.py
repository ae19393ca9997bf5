"""What every request passes first, whatever its path: the bound of those at work, and counting."""

from time import perf_counter

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from serving import metrics
from serving.problems import MEDIA_TYPE, RETRY_AFTER_SECONDS, busy

_BUSY = msgspec.json.encode(busy())
_BUSY_HEADERS = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"content-length", b"%d" % len(_BUSY)),
    (b"retry-after", b"%d" % RETRY_AFTER_SECONDS),
]


class Front:
    """An ASGI application around another; has at most ``limit`` requests at work, refuses others.

    What is refused costs next to nothing, so that a flood leaves the requests at work alone.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.in_flight = 0
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request, or the messages of the application's life."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        start, status = perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.in_flight += 1
        try:
            if self.in_flight > self._limit:
                await _refuse(noted)
            else:
                await self.app(scope, receive, noted)
        finally:
            self.in_flight -= 1
            metrics.count_request(
                scope["method"], scope.get("path_template"), status, perf_counter() - start
            )


async def _refuse(send: Send) -> None:
    await send({"type": "http.response.start", "status": 503, "headers": _BUSY_HEADERS})
    await send({"type": "http.response.body", "body": _BUSY, "more_body": False})
