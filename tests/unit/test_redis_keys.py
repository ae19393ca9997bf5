"""Which keys an id can reach in Redis: its own, and no others."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serving.contract import (
    Family,
    blocked_key,
    borrowed_key,
    global_top_buys_key,
    is_id,
    list_key,
    publication_key,
    unavailable_key,
)
from serving.redis.reads import RedisReads
from serving.redis.turn import Command, Turn
from serving.store import SPARE, RecommendationStore


class Recorded(RedisReads):
    """Records commands in the place of sending them; there is nothing in this Redis."""

    def __init__(self) -> None:
        super().__init__("redis://nowhere", 1.0)
        self.commands: list[Command] = []

    async def read(self, commands: Any) -> list[Any]:
        self.commands += commands
        empty: dict[Any, Any] = {"GET": None, "SCARD": 0, "ZREVRANGE": [], "SISMEMBER": 0}
        return [empty[command[0]] for command in commands]

    def turn(self) -> Turn:
        raise NotImplementedError


OF_ONE = [
    Family.USER_TOP_BUYS,
    Family.USER_TOP_BUYS_BECAUSE,
    Family.USER_BUY_AGAIN,
    Family.BOUGHT_TOGETHER,
    Family.BOUGHT_TOGETHER_EVIDENCE,
]
COMMON = {publication_key(family) for family in Family}
COMMON |= {global_top_buys_key(), borrowed_key(), blocked_key(), unavailable_key()}
PLAIN = {0, 10 + SPARE - 1, "WITHSCORES"}
ids = st.text(min_size=1, max_size=30).filter(is_id)
ids |= st.sampled_from(["1:top_buys", "*", "{1}", "product:1", ":", "a b", "$3"])


@given(ids)
def test_an_id_reaches_its_own_keys_and_no_others(text: str):
    async def recorded() -> list[Command]:
        reads = Recorded()
        store = RecommendationStore(reads)
        calls: list[Coroutine[Any, Any, object]] = [
            store.user_top_buys(text, explain=True),
            store.buy_again(text),
            store.bought_together([text], 10, explain=True),
        ]
        for call in calls:
            await call
        return reads.commands

    commands = asyncio.run(recorded())
    keys = {command[1] for command in commands}
    assert keys - COMMON == {list_key(family, text) for family in OF_ONE}
    for command in commands:  # beyond its key an id is only ever an argument by itself
        assert all(argument == text or argument in PLAIN for argument in command[2:])


@given(st.lists(st.tuples(st.sampled_from(OF_ONE), ids), unique=True))
def test_no_two_ids_share_a_key(pairs: list[tuple[Family, str]]):
    keys = {list_key(family, text) for family, text in pairs}
    assert len(keys) == len(pairs)
    assert keys & COMMON == set()
