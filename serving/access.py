"""Who may ask what, and how often: API keys, the rate limit, and where none are needed.

There is no :class:`Gate` where neither is configured, nor pages of other origins allowed.
"""

import re
from collections.abc import Iterable

import msgspec
from litestar.types import HTTPScope

from serving.api_keys import KeyRing, key_ring
from serving.caching import Headers
from serving.headers import PREFLIGHT, is_preflight
from serving.problems import MEDIA_TYPE, Problem, too_many_requests, unauthorized
from serving.rate_limit import Rate, RateLimiter, Standing
from serving.redis.reads import RedisReads
from serving.settings import ServingSettings

OPEN_TO_ALL = re.compile(r"/|/(static|schema|health)(/.*)?", re.DOTALL)
"""The paths that need no key and have no limit: nothing about a user or a product is there."""

_NO_KEY = unauthorized("Send an API key, as Authorization: Bearer KEY or X-API-Key: KEY.")
_WRONG_KEY = unauthorized("This API key is not, or no longer, in force.")


class Answered(Exception):
    """A request that goes no further, and what it is answered."""

    def __init__(self, status: int, headers: Headers, body: bytes = b"", refusal: str = "") -> None:
        """``refusal`` says why it was refused, if it was."""
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body
        self.refusal = refusal


class Gate:
    """Lets requests in that bear a key and come no more often than they may."""

    def __init__(self, keys: KeyRing | None, limiter: RateLimiter | None) -> None:
        self._keys = keys
        self._limiter = limiter

    async def admit(self, scope: HTTPScope) -> Headers:
        """What the answer's headers are to tell of the limit; raises :class:`Answered`."""
        if is_preflight(scope):
            raise Answered(204, PREFLIGHT)
        if OPEN_TO_ALL.fullmatch(scope["path"]):
            return []
        if self._keys is None:
            client = scope["client"]
            caller = client[0] if client else "unknown"
        else:
            caller = _caller(self._keys, scope["headers"])
        if self._limiter is None:
            return []
        return _allowance(self._limiter.rate, await self._limiter.count(caller))


def gate_of(settings: ServingSettings, redis: RedisReads) -> Gate | None:
    """The gate that the settings describe; None where all may ask as often as they like.

    Raises :class:`SettingsError` for what are no keys.
    """
    keys = key_ring(settings)
    limiter = RateLimiter(redis, Rate.parse(settings.rate_limit)) if settings.rate_limit else None
    return Gate(keys, limiter) if keys or limiter or settings.cors_origins else None


def _caller(keys: KeyRing, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The name of whose key is in the headers; raises :class:`Answered`."""
    key = _key_in(headers)
    if key is None:
        raise _refusal("no_key", _NO_KEY, [(b"www-authenticate", b"Bearer")])
    name = keys.name_of(key)
    if name is None:
        challenge = (b"www-authenticate", b'Bearer error="invalid_token"')
        raise _refusal("wrong_key", _WRONG_KEY, [challenge])
    return name


def _key_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return None


def _allowance(rate: Rate, standing: Standing) -> Headers:
    """The headers of draft-ietf-httpapi-ratelimit-headers; raises :class:`Answered` beyond it."""
    if standing.nth is None:
        return []
    left = max(0, rate.requests - standing.nth)
    headers = [
        (b"ratelimit-policy", b'"default";q=%d;w=%d' % rate),
        (b"ratelimit", b'"default";r=%d;t=%d' % (left, standing.reset)),
    ]
    if standing.nth > rate.requests:
        wait = (b"retry-after", b"%d" % standing.reset)
        raise _refusal("rate", too_many_requests(standing.reset), [wait, *headers])
    return headers


def _refusal(why: str, problem: Problem, headers: Headers) -> Answered:
    body = msgspec.json.encode(problem)
    content = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    return Answered(problem.status, content + headers, body, why)
