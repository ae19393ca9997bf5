"""Top Buys as a FastAPI service, the way FastAPI's documentation writes one.

Started by ``uvicorn peers.fastapi_service:app``: an async path operation with validated query
parameters and a response model, and a client of redis.asyncio for the whole process.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel
from redis.asyncio import Redis

from serving.contract import global_top_buys_key, user_top_buys_key

client = Redis.from_url(os.environ["RECSYS_REDIS_URL"])


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Close the client at the end."""
    yield
    await client.aclose()


app = FastAPI(lifespan=lifespan)


class Product(BaseModel):
    """One product of a list."""

    product_id: int
    score: float


class TopBuys(BaseModel):
    """A list as it is answered."""

    user_id: int | None
    source: str
    model_version: str
    generated_at: datetime
    orders_through: datetime | None
    products: list[Product]


@app.get("/api/recommendations/top-buys/")
async def top_buys(
    user_id: int | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 10
) -> TopBuys:
    """The user's list, or the guests'."""
    data = None if user_id is None else await client.get(user_top_buys_key(user_id))
    data = data or await client.get(global_top_buys_key())
    if data is None:
        raise HTTPException(503, "nothing is published")
    stored = json.loads(data)
    return TopBuys(
        user_id=user_id,
        source=stored["source"],
        model_version=stored["model_version"],
        generated_at=stored["generated_at"],
        orders_through=stored["orders_through"],
        products=stored["products"][:limit],
    )
