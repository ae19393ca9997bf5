"""The reads of one turn of the event loop, which share a round trip to Redis."""

from asyncio import Future, TimerHandle, get_running_loop
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from math import inf
from time import perf_counter
from typing import Any, Generic, TypeVar

import hiredis

Command = tuple[str | bytes | int, ...]
"""A Redis command and its arguments."""


class CommandRefused(Exception):
    """Redis answers a command by an error; the text has both."""

    def __init__(self, command: Command, reply: Exception) -> None:
        super().__init__(f"{' '.join(map(str, command[:2]))}: {reply}")
        self.reply = str(reply)


_pack: Any = hiredis.pack_command

request_began: ContextVar[float] = ContextVar("request_began", default=inf)
"""When the request at work was taken, by ``perf_counter``; infinite where the work is of none."""

_LATER_SECONDS = 0.005
"""After so long it is not the request's first read, for which the turn's own timeout is enough."""


_View = TypeVar("_View")


class RedisUnavailable(Exception):
    """Redis is away, refused, or did not answer in time."""


class Group(Generic[_View]):
    """Commands that many readers ask for together, and what they make of the replies.

    Known by identity, which is quick; what is made of the replies is made once a turn.
    """

    __slots__ = ("commands", "view")

    def __init__(self, view: Callable[..., _View], *commands: Command) -> None:
        self.view = view
        self.commands = commands


class Turn:
    """Commands, of which identical ones are one, and the reply to each once it is settled.

    A reply is what hiredis makes of it (bytes, int, None, a list of these) or an exception.
    """

    __slots__ = (
        "_commands",
        "_groups",
        "_patience",
        "_readers",
        "_views",
        "again",
        "counted",
        "deadline",
        "failed",
        "replies",
        "sent_at",
    )

    def __init__(self, patience: float = inf) -> None:
        """A request waits ``patience`` seconds at most for all the turns that it needs."""
        self._patience = patience
        self._commands: dict[Command, int] = {}
        self._groups: dict[Group[Any], list[int]] = {}
        self._views: dict[Group[Any], Any] = {}
        self._readers: list[Future[None]] = []
        self.replies: list[Any] = []
        self.deadline: TimerHandle | None = None
        self.sent_at = 0.0
        self.failed = False
        """Whether the reply to any command is an exception."""
        self.again = False
        """Whether it was sent before, over a connection that was then lost."""
        self.counted = True
        """Whether the metrics tell of it where it is replied to."""

    def __len__(self) -> int:
        return len(self._commands)

    @property
    def commands(self) -> list[Command]:
        """The commands, in the order of their replies."""
        return list(self._commands)

    @property
    def readers(self) -> int:
        """How many have asked for something."""
        return len(self._readers)

    @property
    def complete(self) -> bool:
        """Whether every command has its reply."""
        return len(self.replies) == len(self._commands)

    def packed(self) -> bytes:
        """The commands as they are sent."""
        return b"".join([_pack(command) for command in self._commands])

    def ask(self, command: Command) -> int:
        """Where the reply to a command will be."""
        return self._commands.setdefault(command, len(self._commands))

    def ask_group(self, group: Group[Any]) -> None:
        """Ask for what :meth:`view` will then be of."""
        if group not in self._groups:
            self._groups[group] = [self.ask(command) for command in group.commands]

    def view(self, group: Group[_View]) -> _View:
        """What the group makes of the replies to its commands, none of which has failed."""
        view: _View | None = self._views.get(group)
        if view is None:
            replies = [self.replies[place] for place in self._groups[group]]
            view = self._views[group] = group.view(*replies)
        return view

    def settled(self) -> "Future[None]":
        """What a reader awaits who has asked, and until then all replies are there.

        It raises :class:`RedisUnavailable` when the time of the reader's request is over before.
        """
        # One for each: to cancel a future that many await would cancel them all.
        loop = get_running_loop()
        reader: Future[None] = loop.create_future()
        self._readers.append(reader)
        waited = perf_counter() - request_began.get()
        if waited > _LATER_SECONDS and self._patience < inf:
            loop.call_later(max(0.0, self._patience - waited), self._give_up, reader)
        return reader

    def _give_up(self, reader: "Future[None]") -> None:
        if not reader.done():
            reader.set_exception(RedisUnavailable(f"no answer within {self._patience:g} s"))

    def settle(self, error: Exception | None = None) -> None:
        """Wake the readers; ``error`` is then the reply to whatever has none."""
        if self.deadline is not None:
            self.deadline.cancel()
        if error is not None:
            self.failed = True
            self.replies.extend([error] * (len(self) - len(self.replies)))
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)


def turn_of(commands: Sequence[Command]) -> tuple[Turn, "Future[None]"]:
    """A turn of these commands alone, which are not to repeat, and what its reader awaits.

    It is not counted: it is a greeting, or a part of a turn that is.
    """
    turn = Turn()
    turn.counted = False
    for command in commands:
        turn.ask(command)
    return turn, turn.settled()
