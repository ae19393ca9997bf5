"""The reads of one turn of the event loop, without a connection."""

import asyncio
import gc
import weakref
from math import inf
from time import perf_counter

from hiredis import ReplyError
from hypothesis import given
from hypothesis import strategies as st

from serving.contract import Family, is_id, list_key
from serving.redis.turn import (
    CommandRefused,
    Group,
    RedisUnavailable,
    Turn,
    request_began,
    turn_of,
)


def test_identical_commands_are_one():
    turn = Turn()
    group = Group(lambda a, b: {"a": a, "b": b}, ("GET", "a"), ("GET", "b"))
    assert turn.ask(("GET", "b")) == 0
    turn.ask_group(group)
    turn.ask_group(group)
    assert turn.ask(("GET", "a")) == 1
    assert turn.commands == [("GET", "b"), ("GET", "a")]
    assert len(turn) == 2
    assert turn.packed() == b"*2\r\n$3\r\nGET\r\n$1\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
    turn.replies += [b"2", b"1"]
    assert turn.view(group) == {"a": b"1", "b": b"2"}
    assert turn.view(group) is turn.view(group)


def test_every_reader_is_woken_once_all_is_there():
    async def scenario() -> None:
        turn = Turn()
        turn.ask(("GET", "a"))
        one, other = turn.settled(), turn.settled()
        assert turn.readers == 2
        assert not turn.complete
        turn.replies.append(b"1")
        assert turn.complete
        turn.settle()
        await asyncio.gather(one, other)
        assert (turn.replies, turn.failed) == ([b"1"], False)

    asyncio.run(scenario())


def test_a_reader_who_leaves_disturbs_nobody():
    async def scenario() -> None:
        turn = Turn()
        turn.ask(("GET", "a"))
        leaving, staying = turn.settled(), turn.settled()
        leaving.cancel()
        turn.replies.append(b"1")
        turn.settle()
        await staying
        assert leaving.cancelled()

    asyncio.run(scenario())


def test_an_error_is_the_reply_to_what_has_none():
    async def scenario() -> None:
        turn, settled = turn_of([("GET", "a"), ("GET", "b")])
        turn.replies.append(b"1")
        error = TimeoutError("slow")
        turn.settle(error)
        await settled
        assert turn.replies == [b"1", error]
        assert turn.failed

    asyncio.run(scenario())


def test_a_request_waits_no_longer_than_it_has_time_left():
    async def gives_up(began: float) -> bool:
        request_began.set(began)
        turn = Turn(patience=60.0)
        reader = turn.settled()
        await asyncio.sleep(0.01)
        turn.settle()
        try:
            await reader
        except RedisUnavailable as error:
            return "no answer within 60 s" in str(error)
        return False

    async def scenario() -> list[bool]:
        now = perf_counter()
        began = [now - 61.0, now - 59.0, now, inf]  # the last is of no request
        return await asyncio.gather(*map(gives_up, began))

    assert asyncio.run(scenario()) == [True, False, False, False]


def test_a_turn_of_endless_patience_leaves_no_timer_behind():
    async def scenario() -> bool:
        request_began.set(perf_counter() - 1.0)
        turn, reader = turn_of([("GET", "a")])
        turn.settle(TimeoutError())
        await reader
        left = weakref.ref(reader)
        del turn, reader
        gc.collect()
        return left() is None

    assert asyncio.run(scenario())


def test_a_refusal_tells_the_command_but_not_all_of_its_arguments():
    refused = CommandRefused(("SMISMEMBER", "key", "1", "2"), ReplyError("WRONGTYPE no"))
    assert str(refused) == "SMISMEMBER key: WRONGTYPE no"
    assert refused.reply == "WRONGTYPE no"


@given(st.sampled_from([f for f in Family if f is not Family.GLOBAL_TOP_BUYS]), st.text())
def test_a_key_is_one_argument_whatever_the_id(family: Family, text: str):
    if not is_id(text):
        return
    turn = Turn()
    turn.ask(("GET", key := list_key(family, text)))
    data = key.encode()
    assert turn.packed() == b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(data), data)
