"""A load generator on kept-alive connections: at a rate, or each as fast as it is answered.

    python benchmarks/peers/load.py http://127.0.0.1:8000 PATHS --rate 1000

PATHS is a file with a path on each line, of which requests take any. Given a rate, requests come by
a Poisson process whatever the service does: one for which no connection is free waits, and its
latency counts from when it came. Prints one line of JSON: requests answered by 2xx, others, and
quantiles of the latency in seconds; ``late`` is that of the generator behind its own schedule.
"""

import argparse
import asyncio
import json
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

SECONDS_TO_DRAIN = 5.0


class Connection(asyncio.Protocol):
    """One connection, with one request on its way at most; made anew when the peer closes it."""

    def __init__(self, generator: "Generator") -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is free."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._generator.free(self)

    def ask(self, request: bytes, since: float) -> None:
        """Send a request that came at the moment ``since`` (seconds, monotonic)."""
        assert self._transport is not None
        self._received, self._since = b"", since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Account for the answer once its body is complete; every peer tells its length."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or self._since is None:
            return
        head = head.lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        self._generator.answered(self._since, head.split(None, 2)[1].startswith(b"2"))
        self._since = None
        if b"connection: close" not in head:
            self._generator.free(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Account for the request that was on its way, and connect anew."""
        if self._since is not None:
            self._generator.answered(self._since, False)
        self._generator.lost(self)

    def close(self) -> None:
        """Close it for good."""
        if self._transport is not None:
            self._transport.abort()


class Generator:
    """The connections, the requests that wait for one, and what was seen."""

    def __init__(self, url: str, paths: Sequence[str], *, at_rate: bool) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 80
        self._requests = [
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode() for path in paths
        ]
        self._at_rate = at_rate
        self._chance = random.Random(1)
        self._running = True
        self._waiting: deque[float] = deque()
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self.under_way = 0
        self.latencies: list[float] = []
        self.failed = 0

    def lost(self, connection: Connection) -> None:
        """A connection was closed: take another one."""
        with suppress(ValueError):
            self._idle.remove(connection)
        self._all.discard(connection)
        self.connect()

    def connect(self) -> None:
        """Open one more connection, unless it is over."""
        if self._running:
            task = asyncio.ensure_future(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        connection = Connection(self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, *self._address)
        except OSError:
            self.failed += 1
            await asyncio.sleep(0.01)
            self.connect()
        else:
            self._all.add(connection)

    def free(self, connection: Connection) -> None:
        """A connection has nothing to do: give it what waits, or the next request."""
        if self._waiting:
            self._ask(connection, self._waiting.popleft())
        elif self._at_rate or not self._running:
            self._idle.append(connection)
        else:
            self.under_way += 1
            self._ask(connection, time.monotonic())

    def come(self) -> None:
        """A request comes."""
        self.under_way += 1
        if self._idle:
            # the one idle for longest, so that none is idle until its peer closes it
            self._ask(self._idle.popleft(), time.monotonic())
        else:
            self._waiting.append(time.monotonic())

    def answered(self, since: float, well: bool) -> None:
        """A request that came at ``since`` has its answer, or never will."""
        self.under_way -= 1
        if well:
            self.latencies.append(time.monotonic() - since)
        else:
            self.failed += 1

    def stop(self) -> None:
        """Send no more than waits."""
        self._running = False

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()

    def _ask(self, connection: Connection, since: float) -> None:
        connection.ask(self._chance.choice(self._requests), since)


async def arrive(generator: Generator, rate: float, seconds: float) -> list[float]:
    """Let requests come by a Poisson process; by how many seconds each was behind it."""
    chance, late = random.Random(2), []
    began = time.monotonic()
    due = chance.expovariate(rate)
    while due < seconds:
        ahead = began + due - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        late.append(time.monotonic() - began - due)
        generator.come()
        due += chance.expovariate(rate)
    return late


async def generate(chosen: argparse.Namespace) -> dict[str, float]:
    """Put the service under load; returns what was seen."""
    paths = chosen.paths.read_text().split()
    generator = Generator(chosen.url, paths, at_rate=chosen.rate is not None)
    began = time.monotonic()
    for _ in range(chosen.connections):
        generator.connect()
    if chosen.rate is None:
        late = [0.0]
        await asyncio.sleep(chosen.seconds)
    else:
        late = await arrive(generator, chosen.rate, chosen.seconds)
    generator.stop()
    seconds = time.monotonic() - began
    while generator.under_way and time.monotonic() - began - seconds < SECONDS_TO_DRAIN:
        await asyncio.sleep(0.01)
    generator.failed += generator.under_way
    generator.close()
    return {
        "requests": len(generator.latencies),
        "failed": generator.failed,
        "seconds": seconds,
        "p50": quantile(generator.latencies, 0.5),
        "p99": quantile(generator.latencies, 0.99),
        "late": quantile(late, 0.99),
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that ``share`` of the values do not exceed (nearest rank); 0 of none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else 0.0


def main() -> None:
    """Put a service under load and print what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("paths", type=Path, metavar="PATHS")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, help="a second; unset: as fast as answered")
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(generate(chosen))))


if __name__ == "__main__":
    main()
