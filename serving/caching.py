"""What lets browsers and proxies keep an answer: ETag, Cache-Control, and 304 when unchanged."""

from collections.abc import Iterable
from hashlib import blake2b

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

NOT_MODIFIED = 304
_STALE = b'"stale":true}'
"""How the answer ends that stands in while Redis is away."""


class Caching:
    """The headers of an answer to keep; one about a user is for their browser alone."""

    def __init__(self, max_age: int, *, shared: bool = True) -> None:
        """``max_age`` is in seconds; not ``shared`` are answers that not everybody may have."""
        self._private = (b"cache-control", b"private, max-age=%d" % max_age)
        self._public = self._private
        if shared:
            self._public = (b"cache-control", b"public, max-age=%d" % max_age)

    def headers(self, body: bytes, query: bytes) -> Headers:
        """ETag and Cache-Control of a body that was asked for by this query string."""
        tag = b'"%b"' % blake2b(body, digest_size=9).hexdigest().encode()
        if body.endswith(_STALE):
            return [(b"etag", tag), (b"cache-control", b"no-store")]
        of_user = b"user_id=" in query or b"%" in query  # encoded it may hide in there
        return [(b"etag", tag), self._private if of_user else self._public]


def is_known(headers: Headers, asked: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether whoever asked with some headers has the body already that has these ``headers``."""
    for name, value in asked:
        if name == b"if-none-match":
            return headers[0][1] in value or value == b"*"
    return False


class CacheHeaders(ASGIMiddleware):
    """Gives :class:`Caching` headers to 200 answers, and leaves out the body that is known."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, caching: Caching) -> None:
        self._caching = caching

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Hold the start of the answer back until its body, which is one piece, is there."""
        start: Message | None = None

        async def tagged(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and message["status"] == 200:
                start = message
                return
            if message["type"] == "http.response.body" and start is not None:
                assert start["type"] == "http.response.start"
                headers = self._caching.headers(message["body"], scope["query_string"])
                if is_known(headers, scope["headers"]):
                    start["status"], start["headers"], message["body"] = NOT_MODIFIED, headers, b""
                else:
                    start["headers"] = [*start["headers"], *headers]
                await send(start)
            await send(message)

        await next_app(scope, receive, tagged)
