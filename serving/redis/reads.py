"""Reads of Redis: those of one turn of the event loop share one round trip."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from hiredis import ReplyError
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from serving.redis.cluster import Address, Cluster
from serving.redis.node import Node, State
from serving.redis.turn import Command, CommandRefused, RedisUnavailable, Turn, turn_of
from serving.redis.url import RedisUrl, server_url

_SENTINEL: Any = Sentinel  # has no types


class RedisReads:
    """The Redis at a URL, whether it is one server, a cluster, or the primary of sentinels.

    An async context manager: connects when it is entered, whether or not that succeeds, and keeps
    trying. No read takes longer than ``timeout`` seconds, nor do all that one request
    needs together.
    """

    def __init__(self, url: str, timeout: float, new_turn: Callable[[float], Turn] = Turn) -> None:
        """Raises ValueError for what is not the URL of a Redis."""
        self._new_turn = new_turn
        self._url = RedisUrl.parse(url)
        self._timeout = timeout
        self._turn: Turn | None = None
        self._seeds = deque(self._url.servers)
        self._cluster: Cluster | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        self._loop = asyncio.get_running_loop()
        self._node = Node(self._locate, self._timeout, self._greeted)
        turn, settled = turn_of([("PING",)])
        self._node.send(turn)
        await settled
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._node.close()
        if self._cluster is not None:
            await self._cluster.close()

    @property
    def state(self) -> State:
        """The state of the circuit breaker; of a cluster, the worst of the nodes that are read."""
        return self._node.state if self._cluster is None else self._cluster.state

    async def read(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to some commands, each about the key that is its first argument.

        Raises :class:`RedisUnavailable` when there are none, and :class:`CommandRefused` when one
        is an error.
        """
        turn = self.turn()
        places = [turn.ask(command) for command in commands]
        await turn.settled()
        answers = [turn.replies[place] for place in places]
        if turn.failed:
            for command, answer in zip(commands, answers, strict=True):
                if isinstance(answer, ReplyError):
                    raise CommandRefused(command, answer)
                if isinstance(answer, Exception):
                    raise RedisUnavailable(str(answer)) from answer
        return answers

    def turn(self) -> Turn:
        """The open turn: ask it and await :meth:`Turn.settled`, with no other await in between.

        Raises :class:`RedisUnavailable` while the circuit breaker is open.
        """
        turn = self._turn
        if turn is None:
            if self._node.why is not None and self._cluster is None:
                raise RedisUnavailable(str(self._node.why)) from self._node.why
            turn = self._turn = self._new_turn(self._timeout)
            self._loop.call_soon(self._send)
        return turn

    def _send(self) -> None:
        turn, self._turn = self._turn, None
        assert turn is not None
        if self._cluster is not None:
            self._cluster.send(turn)
        else:
            self._node.send(turn)

    def _greeted(self, slots: Any) -> None:
        """Learn from CLUSTER SLOTS whether there is a cluster, and who is in it."""
        if isinstance(slots, list) and slots:
            if self._cluster is None:
                self._cluster = Cluster(self._node, self._node_at, self._timeout)
            self._cluster.take(slots, self._node)

    def _node_at(self, address: Address) -> Node:
        """A node by the address that the cluster announces."""
        url = server_url(self._seeds[0], *address)

        async def locate() -> str:
            return url

        return Node(locate, self._timeout)

    async def _locate(self) -> str:
        """The plain URL to connect to next: each of those named in turn, or the primary."""
        if self._url.kind == "sentinel":
            return self._url.at(*await self._primary())
        self._seeds.rotate(-1)
        return self._seeds[0]

    async def _primary(self) -> Address:
        """Where the sentinels say that the primary is."""
        share = self._timeout / (len(self._url.addresses) + 1)  # so that one that hangs is passed
        sentinels: Any = _SENTINEL(
            self._url.addresses,
            sentinel_kwargs={
                "socket_timeout": share,
                "socket_connect_timeout": share,
                "retry": Retry(NoBackoff(), retries=0),
                **self._url.sentinel_options,
            },
        )
        try:
            host, port = await sentinels.discover_master(self._url.service)
            return host, port
        finally:
            for each in sentinels.sentinels:
                await each.aclose()
