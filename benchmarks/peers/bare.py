"""A bare ASGI callable: one GET of redis.asyncio for each request, and no framework at all.

Started by ``granian --interface asgi peers.bare:app``. It is the limit of what a service gains by
leaving its framework away, as long as each request waits for a call of its own.
"""

import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec
from redis.asyncio import Redis

from serving.contract import user_top_buys_key

LIMIT = 10
HEADERS = [(b"content-type", b"application/json")]

client = Redis.from_url(os.environ["RECSYS_REDIS_URL"])


class Product(msgspec.Struct):
    """One product of a list."""

    product_id: int
    score: float


class TopBuys(msgspec.Struct, omit_defaults=True):
    """A list as it is stored, and, with its user, as it is answered."""

    source: str
    model_version: str
    generated_at: datetime
    orders_through: datetime | None
    products: list[Product]
    user_id: int = 0


decode = msgspec.json.Decoder(TopBuys).decode
encode = msgspec.json.Encoder().encode


async def app(
    scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """Answer a request for the list of a user who has one."""
    if scope["type"] != "http":
        return
    user_id = scope["query_string"].removeprefix(b"user_id=").decode()
    answer = decode(await client.get(user_top_buys_key(user_id)))
    answer.user_id = int(user_id)
    del answer.products[LIMIT:]
    body = encode(answer)
    headers = [*HEADERS, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
