"""A Redis Cluster for tests: one node, on a port of its own."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from recsys_assets.local.redis import RedisServer


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
                node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
                while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    pass
        yield url


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
