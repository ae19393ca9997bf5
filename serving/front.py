"""What every request passes first, whatever its path; those that are plain need go no further."""

from time import perf_counter
from typing import Literal

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from serving import metrics
from serving.access import Answered, Gate
from serving.caching import NOT_MODIFIED, Caching, Headers, is_known
from serving.headers import PAGE_SAFETY, AnswerHeaders, is_page
from serving.logs import REQUEST_ID, log_access, request_id, request_id_of
from serving.problems import MEDIA_TYPE, RETRY_AFTER_SECONDS, busy
from serving.ready import ReadyLists
from serving.redis.turn import request_began
from serving.tracing import Traces

_BUSY = msgspec.json.encode(busy())
_BUSY_HEADERS = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"content-length", b"%d" % len(_BUSY)),
    (b"retry-after", b"%d" % RETRY_AFTER_SECONDS),
]
_JSON = (b"content-type", b"application/json")
_EVEN_IF_BUSY = frozenset({"/health/live", "/health/live/", "/metrics", "/metrics/"})

START: Literal["http.response.start"] = "http.response.start"
BODY: Literal["http.response.body"] = "http.response.body"


class Front:
    """An ASGI application around another; has at most ``limit`` requests at work, refuses others.

    What is refused costs next to nothing, so that a flood leaves the requests at work alone. How
    the process is can be asked all the same.
    """

    def __init__(
        self,
        app: ASGIApp,
        ready: ReadyLists,
        caching: Caching,
        limit: int,
        *,
        headers: AnswerHeaders,
        gate: Gate | None = None,
        access_log: bool = False,
        traces: Traces | None = None,
    ) -> None:
        self._app = app
        self._ready = ready
        self._caching = caching
        self._limit = limit
        self._headers = headers
        self._gate = gate
        self._access_log = access_log
        self._traces = traces
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request, or the messages of the application's life."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        start, status, route = perf_counter(), 500, None
        method, path = scope["method"], scope["path"]  # as they came: the path is changed later
        id_ = request_id_of(scope["headers"])
        request_id.set(id_)
        request_began.set(start)
        own = [(REQUEST_ID, id_), *self._headers.of(scope)]
        span = None if self._traces is None else self._traces.begin(scope, id_)
        if method == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        self.in_flight += 1
        try:
            if self.in_flight > self._limit and path not in _EVEN_IF_BUSY:
                status = 503
                metrics.count_refusal("busy")
                await _send(send, status, _BUSY_HEADERS + own, _BUSY)
                return
            if self._gate is not None:
                own += await self._gate.admit(scope)
            if scope["method"] == "GET":
                ready = await self._ready.answer(path, query := scope["query_string"])
                if ready is not None:
                    route, body = ready
                    headers, status = self._caching.headers(body, query), 200
                    if is_known(headers, scope["headers"]):
                        status, body = NOT_MODIFIED, b""
                    else:
                        headers += (_JSON, (b"content-length", b"%d" % len(body)))
                    # Not by _send: this is what nearly all requests come to.
                    await send({"type": START, "status": status, "headers": headers + own})
                    await send({"type": BODY, "body": body, "more_body": False})
                    return

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    safety = PAGE_SAFETY if is_page(message["headers"]) else ()
                    message["headers"] = [*message["headers"], *own, *safety]
                await send(message)

            await self._app(scope, receive, noted)
            route = scope.get("path_template")
        except Answered as early:
            status = early.status
            if early.refusal:
                metrics.count_refusal(early.refusal)
            await _send(send, status, early.headers + own, early.body)
        finally:
            self.in_flight -= 1
            seconds = perf_counter() - start
            metrics.count_request(method, route, status, seconds)
            if self._traces is not None:
                self._traces.end(span, route, status)
            if self._access_log:
                log_access(method, path, status, seconds)


def _without_body(send: Send) -> Send:
    """What a request by HEAD gets of the answer to the same by GET."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message["body"] = b""
        await send(message)

    return send_head


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": START, "status": status, "headers": headers})
    await send({"type": BODY, "body": body, "more_body": False})
