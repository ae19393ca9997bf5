"""What lets browsers and proxies keep an answer: ETag, Cache-Control, and 304 when unchanged."""

from hashlib import blake2b

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

_NOT_MODIFIED = 304


class CacheHeaders(ASGIMiddleware):
    """Tag 200 answers by their content, and leave out the body that the client has already.

    An answer about a user is for their browser alone; others may be held by a proxy, too.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(self, max_age: int) -> None:
        """``max_age`` is in seconds."""
        self._private = (b"cache-control", b"private, max-age=%d" % max_age)
        self._public = (b"cache-control", b"public, max-age=%d" % max_age)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Hold the start of the answer back until its body, which is one piece, is there."""
        start: Message | None = None

        async def tagged(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body" and start is not None:
                if start["status"] == 200:  # type: ignore[typeddict-item]
                    self._tag(scope, start, message)
                await send(start)
                await send(message)
                start = None
            else:
                await send(message)

        await next_app(scope, receive, tagged)

    def _tag(self, scope: Scope, start: Message, body: Message) -> None:
        tag = b'"%b"' % blake2b(body["body"], digest_size=9).hexdigest().encode()  # type: ignore[typeddict-item]
        personal = b"user_id=" in scope["query_string"]
        headers = [(b"etag", tag), self._private if personal else self._public]
        known = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
        if tag in known or known == b"*":
            start["status"] = _NOT_MODIFIED  # type: ignore[typeddict-unknown-key]
            start["headers"] = headers  # type: ignore[typeddict-unknown-key]
            body["body"] = b""  # type: ignore[typeddict-unknown-key]
        else:
            start["headers"] = [*start["headers"], *headers]  # type: ignore[typeddict-unknown-key,typeddict-item]
