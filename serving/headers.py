"""The headers that every answer has beside its own: for browsers' safety, and for other origins.

They are made once; an answer costs a look-up. CORS is not left to Litestar, which does not see
what is answered before it.
"""

from collections.abc import Iterable, Sequence

from litestar.types import HTTPScope

from serving.caching import Headers

_SAFETY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
PAGE_SAFETY = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
]
"""What a page has beside :meth:`AnswerHeaders.of`, whatever the path that it came by."""
_VARY = (b"vary", b"Origin")
_EXPOSED = (b"ETag", b"RateLimit", b"RateLimit-Policy", b"Retry-After", b"X-Request-Id")
PREFLIGHT = [
    (b"access-control-allow-methods", b"GET"),
    (b"access-control-allow-headers", b"Authorization, If-None-Match, X-API-Key, X-Request-Id"),
    (b"access-control-max-age", b"600"),
]
"""What a browser is told that asks what pages may, beside :meth:`AnswerHeaders.of`."""
_ANY = "*"


class AnswerHeaders:
    """Makes the headers of answers to requests of any origin."""

    def __init__(self, origins: Sequence[str] = ()) -> None:
        """``origins`` are those whose pages may read answers; ``*`` are all."""
        self._allowed = {origin.encode(): _cors(origin) for origin in origins}
        self._of_any = self._allowed.get(_ANY.encode())

    def of(self, scope: HTTPScope) -> Headers:
        """The headers of the answer to a request."""
        if not self._allowed:
            return _SAFETY
        if self._of_any is not None:
            return _SAFETY + self._of_any
        return _SAFETY + self._allowed.get(_header(scope["headers"], b"origin"), [_VARY])


def is_page(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer with some headers is a page, which a browser would run."""
    return _header(headers, b"content-type").startswith(b"text/html")


def is_preflight(scope: HTTPScope) -> bool:
    """Whether a browser asks what a page of another origin may."""
    return scope["method"] == "OPTIONS" and bool(
        _header(scope["headers"], b"access-control-request-method")
    )


def _cors(origin: str) -> Headers:
    headers = [
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-expose-headers", b", ".join(_EXPOSED)),
    ]
    return headers if origin == _ANY else [*headers, _VARY]


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    return next((value for name, value in headers if name == wanted), b"")
