"""The processes of the API: what becomes of them when one is killed or all get a signal."""

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from time import sleep

import httpx
import pytest

from tests.commands import eventually
from tests.serving_processes import running

LIVE, READY = "/health/live", "/health/ready"


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def status(client: httpx.Client, path: str) -> int | None:
    """That of an answer over a new connection; none if it breaks."""
    try:
        return client.get(path, headers={"Connection": "close"}).status_code
    except httpx.TransportError:
        return None


def test_a_worker_that_was_killed_is_replaced(redis_url: str, tmp_path: Path):
    with running(redis_url, tmp_path, "--workers", "2") as (client, server):
        before = children(server)
        assert len(before) == 2
        killed = before.pop()
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(children(server) - {killed}) == 2, "there are two again")
        eventually(lambda: status(client, LIVE) == 200, "the API answers")
        assert before < children(server)
        assert f'pid="{killed}"' not in client.get("/metrics").text


def test_workers_end_with_a_server_that_was_killed(redis_url: str, tmp_path: Path):
    with running(redis_url, tmp_path, killed=True) as (client, server):
        workers = children(server)
        os.kill(server, signal.SIGKILL)
        eventually(lambda: not any(map(runs, workers)), "its workers have ended")
        with socket.create_server(("127.0.0.1", client.base_url.port or 0)):
            pass  # the port is free for the next


def test_ctrl_c_drains(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECSYS_API_DRAIN_SECONDS", "60")
    with running(redis_url, tmp_path) as (client, server):
        os.killpg(server, signal.SIGINT)  # as a terminal does: to the server and its workers
        eventually(lambda: status(client, READY) == 503, "it drains")
        sleep(0.5)
        assert status(client, LIVE) == 200


def test_ctrl_c_drains_while_a_worker_starts(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RECSYS_API_DRAIN_SECONDS", "60")
    with running(redis_url, tmp_path, "--workers", "2") as (client, server):
        before = children(server)
        os.kill(min(before), signal.SIGKILL)
        (new,) = eventually(lambda: children(server) - before, "a new one is there")
        os.killpg(server, signal.SIGINT)
        eventually(lambda: status(client, READY) == 503, "it drains")
        sleep(0.5)
        assert status(client, LIVE) == 200
        assert runs(new)


def test_idle_connections_keep_nobody_out(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RECSYS_API_IN_FLIGHT", "2")
    with running(redis_url, tmp_path, "--workers", "1") as (client, _), ExitStack() as idle:
        address = ("127.0.0.1", client.base_url.port or 0)
        for _ in range(300):
            idle.enter_context(socket.create_connection(address))
        assert httpx.get(f"{client.base_url}{LIVE}", trust_env=False, timeout=5).status_code == 200
