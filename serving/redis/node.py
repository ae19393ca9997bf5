"""One Redis server: the connection that all reads share, kept up, and given up when it is dead."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from ssl import SSLContext
from time import perf_counter
from typing import Any, Literal, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

from serving import metrics
from serving.redis.turn import Command, RedisUnavailable, Turn, turn_of

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
_AWAY = ("LOADING", "MASTERDOWN", "NOAUTH")
"""How the errors begin by which a server answers whatever it is asked."""

State = Literal["closed", "half-open", "open"]
"""Of the circuit breaker: reads are sent; one attempt is under way; reads fail at once."""


class _Connection(asyncio.Protocol):
    """Turns that were sent and are replied to in their order."""

    def __init__(self) -> None:
        self._parser = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self.outstanding: deque[Turn] = deque()
        self.proven = False
        """Whether any turn has been replied to."""
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        """Done when the connection is: None where the server closed it."""

    def send(self, turn: Turn) -> None:
        assert self._transport is not None
        turn.sent_at = perf_counter()
        self.outstanding.append(turn)
        self._transport.write(turn.packed())

    def drop(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(error)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.drop(error if isinstance(error, OSError) else None)

    def data_received(self, data: bytes) -> None:
        parser, outstanding = self._parser, self.outstanding
        parser.feed(data)
        try:
            while (reply := parser.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    if not outstanding or (self.proven and str(reply).startswith(_AWAY)):
                        self.drop(RedisUnavailable(str(reply)))
                        return
                    outstanding[0].failed = True
                turn = outstanding[0]
                turn.replies.append(reply)
                if turn.complete:
                    outstanding.popleft()
                    self.proven = True
                    if turn.counted:
                        metrics.count_round_trip(turn.readers, perf_counter() - turn.sent_at)
                    turn.settle()
        except (hiredis.ProtocolError, IndexError) as error:
            self.drop(RedisUnavailable(f"it does not speak Redis' protocol: {error}"))


class Node:
    """A server that reads are sent to; no read waits longer than ``timeout`` seconds.

    A task of its own keeps the connection. Reads wait for the first attempt to connect, and for the
    first after the server has closed the connection, with which those outstanding are sent again.
    When an attempt fails, a turn is not answered in time, or a connection ends by which nothing was
    read, the circuit breaker opens: reads then fail at once, until a later attempt succeeds, with
    growing pauses in between.
    """

    def __init__(
        self,
        locate: Callable[[], Awaitable[str]],
        timeout: float,
        greeted: Callable[[Any], None] = lambda _: None,
    ) -> None:
        """``locate`` tells the server's plain URL; ``greeted`` is told its CLUSTER SLOTS."""
        self._locate = locate
        self._timeout = timeout
        self._greeted = greeted
        self._connection: _Connection | None = None
        self._waiting: list[Turn] = []
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        self._available = True
        self._trying = True
        self.host = ""
        """The one that was connected to last."""
        self.why: Exception | None = None
        """What keeps the breaker open."""

    @property
    def state(self) -> State:
        """The state of the circuit breaker."""
        if self.why is None:
            return "closed"
        return "half-open" if self._trying else "open"

    def send(self, turn: Turn) -> None:
        """Send the turn, which is settled within the timeout."""
        if self.why is not None:
            turn.settle(self.why)
            return
        turn.deadline = asyncio.get_running_loop().call_later(self._timeout, self._expire, turn)
        if self._connection is None:
            self._waiting.append(turn)
        else:
            self._connection.send(turn)

    async def close(self) -> None:
        """End the connection; what is outstanding fails."""
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper
        self._open(RedisUnavailable("the service ends"), quiet=True)

    def _expire(self, turn: Turn) -> None:
        error = TimeoutError(f"no answer within {self._timeout:g} s")
        if self._connection is not None and turn in self._connection.outstanding:
            self._connection.drop(error)
            self._open(error)
        elif turn in self._waiting:
            self._waiting.remove(turn)
            turn.settle(error)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._trying = True
            connection, error = await self._connected()
            self._trying = False
            if connection is not None:
                self._close_breaker(connection)
                error = await connection.lost
                if connection.proven:
                    pause = FIRST_PAUSE_SECONDS
                    if error is None and self.why is None:  # the server closed it: a restart, say
                        self._take_back(connection)
                        continue
            self._open(error or RedisUnavailable("the connection was closed"))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _connected(self) -> tuple[_Connection | None, Exception | None]:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._connect(), None
        except TimeoutError:
            return None, TimeoutError(f"no connection within {self._timeout:g} s")
        except Exception as error:  # whatever it is: the next attempt may succeed
            return None, error

    async def _connect(self) -> _Connection:
        """A connection that is logged in and was greeted."""
        loop = asyncio.get_running_loop()
        url = await self._locate()
        options: Any = parse_url(url)
        self.host = options.get("host", "localhost")
        if "path" in options:
            _, connection = await loop.create_unix_connection(_Connection, options["path"])
        else:
            port, tls = options.get("port", 6379), _tls(url)
            _, connection = await loop.create_connection(_Connection, self.host, port, ssl=tls)
        try:
            await _greet(connection, _login(options), self._greeted)
        except BaseException:
            connection.drop(None)
            raise
        connection.proven = False
        return connection

    def _close_breaker(self, connection: _Connection) -> None:
        self._connection, self.why = connection, None
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            connection.send(turn)
        if not self._available:
            self._available = True
            logger.warning("Redis answers again")

    def _take_back(self, connection: _Connection) -> None:
        """Let outstanding turns wait for the next connection, but each only once."""
        self._connection = None
        outstanding, connection.outstanding = connection.outstanding, deque()
        for turn in outstanding:
            turn.replies.clear()
            turn.failed = False
            if turn.again:
                turn.settle(RedisUnavailable("the connection was closed again"))
            else:
                turn.again = True
                self._waiting.append(turn)

    def _open(self, error: Exception, *, quiet: bool = False) -> None:
        """Open the breaker: fail whatever waits or is outstanding."""
        self.why = error
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop(error)
            for turn in connection.outstanding:
                turn.settle(error)
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.settle(error)
        if self._available and not quiet:
            self._available = False
            logger.error("Redis does not answer: %s", error or repr(error))


def _login(options: dict[str, Any]) -> list[Command]:
    """The commands by which a connection becomes that of the URL's user and database."""
    commands: list[Command] = []
    if options.get("password"):
        user = (options["username"],) if options.get("username") else ()
        commands.append(("AUTH", *user, options["password"]))
    if options.get("db"):
        commands.append(("SELECT", options["db"]))
    return commands


async def _greet(
    connection: _Connection, login: list[Command], greeted: Callable[[Any], None]
) -> None:
    """Log in and see that commands are answered.

    Raises :class:`RedisUnavailable` when the server refuses, closes or does not speak Redis.
    """
    turn, settled = turn_of([*login, ("PING",), ("CLUSTER", "SLOTS")])
    connection.send(turn)
    ends: set[asyncio.Future[Any]] = {settled, connection.lost}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not settled.done():
        said = next((str(reply) for reply in turn.replies if isinstance(reply, Exception)), None)
        raise connection.lost.result() or RedisUnavailable(said or "it closes the connection")
    *replies, pong, slots = turn.replies
    for reply in [*replies, pong]:
        permitted = reply is pong and str(reply).startswith("NOPERM")
        if isinstance(reply, Exception) and not permitted:
            raise RedisUnavailable(f"it refuses the API's login: {reply}")
    greeted(slots)


@cache
def _tls(url: str) -> SSLContext | None:
    """The TLS context that a rediss:// URL's options describe."""
    options: Any = parse_url(url)
    if options.get("connection_class") is not SSLConnection:
        return None
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    context: SSLContext = SSLConnection(**tls).ssl_context.get()
    return context
