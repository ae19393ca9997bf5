"""A Redis Cluster: which node answers for which key, and reads that span nodes."""

import asyncio
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, get_args

from redis.crc import key_slot

from serving import metrics
from serving.redis.node import Node, State
from serving.redis.turn import Command, RedisUnavailable, Turn, turn_of

_ATTEMPTS = 3
_REFRESH_SECONDS = 0.1
"""How long one waits at least before asking the nodes anew who answers for what."""

_STATES = get_args(State)
"""From the best to the worst."""

Address = tuple[str, int]


class Cluster:
    """Nodes by the slots they answer for, kept up to date by what they say themselves."""

    def __init__(self, seed: Node, make_node: Callable[[Address], Node], timeout: float) -> None:
        """``seed`` is where the URL leads: asked where nodes are, and for what no node has."""
        self._seed = seed
        self._make_node = make_node
        self._timeout = timeout
        self._nodes: dict[Address, Node] = {}
        self._slots: list[Address | None] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._refreshed = 0.0

    @property
    def state(self) -> State:
        """The state of the circuit breaker that is the worst of all nodes that are read."""
        nodes = list(self._nodes.values()) or [self._seed]
        return max((node.state for node in nodes), key=_STATES.index)

    def take(self, slots: Iterable[Any], asked: Node) -> None:
        """Take over what CLUSTER SLOTS answered; nodes that are gone are let go."""
        table: dict[int, Address] = {}
        for first, last, (host, port, *_), *_replicas in slots:
            address = (host.decode() if host else asked.host, port)
            table |= dict.fromkeys(range(first, last + 1), address)
        self._slots = [table.get(slot) for slot in range(16_384)]
        for address in set(self._nodes) - set(table.values()):
            self._start(self._nodes.pop(address).close())

    def send(self, turn: Turn) -> None:
        """Settle the turn with the replies of the nodes that its keys lie on."""
        turn.sent_at = perf_counter()
        self._start(self._answer(turn))

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    async def _answer(self, turn: Turn) -> None:
        commands = turn.commands
        replies: list[Any] = [TimeoutError(f"no answer within {self._timeout:g} s")] * len(commands)
        try:
            async with asyncio.timeout(self._timeout):
                await self._ask(commands, replies)
        except TimeoutError:
            pass
        finally:
            turn.replies = replies
            turn.failed = any(isinstance(reply, Exception) for reply in replies)
            if not (turn.failed and any(map(_redirected, replies))):
                metrics.count_round_trip(turn.readers, perf_counter() - turn.sent_at)
            turn.settle()

    async def _ask(self, commands: list[Command], replies: list[Any]) -> None:
        """Fill in ``replies``, and go where the nodes point to while slots move."""
        left = list(range(len(commands)))
        for _ in range(_ATTEMPTS):
            asked = {place: self._node_of(commands[place]) for place in left}
            by_node: dict[Node, list[int]] = {}
            for place, node in asked.items():
                by_node.setdefault(node, []).append(place)
            parts = [
                (places, _send(node, [commands[place] for place in places]))
                for node, places in by_node.items()
            ]
            for places, (turn, settled) in parts:
                await settled
                for place, reply in zip(places, turn.replies, strict=True):
                    replies[place] = reply
            left = [place for place in left if _redirected(replies[place])]
            for place in left.copy():
                said, *where = str(replies[place]).split()
                if said == "ASK":
                    # ASKING holds for the one command after it
                    node = self._node(_address(where[1], asked[place]))
                    turn, settled = _send(node, [("ASKING",), commands[place]])
                    await settled
                    replies[place] = turn.replies[1]
                    left.remove(place)
                elif said == "MOVED":
                    self._slots[int(where[0])] = _address(where[1], asked[place])
            if not left:
                return
            await self._refresh()

    async def _refresh(self) -> None:
        """Ask the nodes anew who answers for what, until one tells; not too often."""
        now = asyncio.get_running_loop().time()
        if now < self._refreshed + _REFRESH_SECONDS:
            return
        self._refreshed = now
        for node in [*self._nodes.values(), self._seed]:
            turn, settled = _send(node, [("CLUSTER", "SLOTS")])
            await settled
            if isinstance(turn.replies[0], list) and turn.replies[0]:
                self.take(turn.replies[0], node)
                return

    def _node_of(self, command: Command) -> Node:
        key = command[1] if len(command) > 1 else b""
        assert not isinstance(key, int)
        address = self._slots[key_slot(key if isinstance(key, bytes) else key.encode())]
        return self._seed if address is None else self._node(address)

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = self._make_node(address)
        return self._nodes[address]

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _send(node: Node, commands: list[Command]) -> tuple[Turn, "asyncio.Future[None]"]:
    """A turn of some commands that is on its way to one node, and what its reader awaits."""
    turn, settled = turn_of(commands)
    node.send(turn)
    return turn, settled


def _redirected(reply: Any) -> bool:
    """Whether another node, or the same one later, has the answer."""
    if isinstance(reply, (RedisUnavailable, OSError)):
        return True
    return isinstance(reply, Exception) and str(reply).startswith(("MOVED ", "ASK ", "TRYAGAIN"))


def _address(text: str, asked: Node) -> Address:
    """The address that the node asked points to; without a host, it is on its own."""
    host, _, port = text.rpartition(":")
    return host or asked.host, int(port)
