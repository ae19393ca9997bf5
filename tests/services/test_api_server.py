"""The API as it runs: ``python -m serving``, over TCP."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from time import sleep

import pytest

from serving.__main__ import main
from serving.server import drain_seconds
from serving.settings import ServingSettings, SettingsError
from tests.commands import eventually
from tests.serving_processes import running
from tests.wires import Proxy

TOP_BUYS = "/api/recommendations/top-buys/"


def members_of_session(session: int) -> list[int]:
    """The living processes that the leader of a session started, itself included."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            members.append(int(stat.parent.name))
    return members


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    """The way to an empty Redis."""
    proxy = Proxy(redis_url.removeprefix("unix://"))
    with proxy.in_use():
        yield proxy


def test_it_serves_and_ends_cleanly(redis_url: str, tmp_path: Path):
    with running(redis_url, tmp_path) as (client, pid):
        assert client.get(TOP_BUYS).json()["products"] == []
        assert client.get("/health/ready").status_code == 200
        assert client.get("/").status_code == 200
        assert (
            client.get("/api/recommendations/bought-together/a%2Fb").json()["product_id"] == "a/b"
        )
        for odd in ["%ff", "%00", "%ED%A0%80", "x" * 8000]:
            for path in ["top-buys/?user_id=", "bought-together/"]:
                response = client.get(f"/api/recommendations/{path}{odd}")
                assert response.status_code in {200, 400, 404}
        assert len(members_of_session(pid)) >= 2
    assert members_of_session(pid) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", [TOP_BUYS, "/", "/health/ready", "/openapi/openapi.json", "/nothing"]
)
def test_head_is_get_without_the_body(path: str, redis_url: str, tmp_path: Path):
    with running(redis_url, tmp_path) as (client, _):
        get, head = client.get(path), client.head(path)
        assert head.status_code == get.status_code
        assert get.content
        assert head.content == b""
        own = {"date", "x-request-id"}
        assert [pair for pair in head.headers.items() if pair[0] not in own] == [
            pair for pair in get.headers.items() if pair[0] not in own
        ]
        assert 'method="HEAD"' in client.get("/metrics").text


def test_readiness_ends_before_the_service_does(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RECSYS_API_DRAIN_SECONDS", "60")
    with running(redis_url, tmp_path) as (client, pid):
        assert client.get("/health/ready").status_code == 200
        os.kill(pid, signal.SIGTERM)
        while client.get("/health/ready").status_code == 200:
            sleep(0.01)
        assert client.get("/health/ready").status_code == 503
        assert client.get(TOP_BUYS).status_code == 200
        os.kill(pid, signal.SIGTERM)  # the second order ends the draining


@pytest.mark.parametrize(("host", "seconds"), [("127.0.0.1", 0), ("::1", 0), ("0.0.0.0", 5)])
def test_who_serves_a_network_drains_by_default(host: str, seconds: int):
    environment = {"RECSYS_REDIS_URL": "redis://127.0.0.1:1", "RECSYS_API_HOST": host}
    settings = ServingSettings.from_environment(environment)
    assert drain_seconds(settings) == seconds
    assert ServingSettings.from_environment(settings.as_environment()) == settings
    environment["RECSYS_API_DRAIN_SECONDS"] = "7"
    assert drain_seconds(ServingSettings.from_environment(environment)) == 7


def test_requests_at_work_are_answered_before_it_ends(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RECSYS_REDIS_TIMEOUT_MS", "5000")
    with running(proxy.url, tmp_path) as (client, pid), ThreadPoolExecutor(1) as thread:
        assert client.get(TOP_BUYS).status_code == 200
        proxy.delay = 1.0
        answer = thread.submit(client.get, TOP_BUYS)
        assert proxy.holding.wait(10)
        os.kill(pid, signal.SIGTERM)
        assert answer.result().status_code == 200


def test_what_is_beyond_the_bound_is_refused_while_the_rest_is_at_work(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RECSYS_REDIS_TIMEOUT_MS", "5000")
    monkeypatch.setenv("RECSYS_API_IN_FLIGHT", "2")
    with (
        running(proxy.url, tmp_path, "--workers", "1") as (client, _),
        ThreadPoolExecutor(10) as threads,
    ):
        assert client.get(TOP_BUYS).status_code == 200
        proxy.delay = 1.0
        asked = [threads.submit(client.get, TOP_BUYS) for _ in range(10)]
        *refused, one, other = (each.result() for each in as_completed(asked))
        assert [one.status_code, other.status_code] == [200, 200]
        for answer in refused:  # those that were answered first
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"] == "1"
            assert "at work" in answer.json()["detail"]


def test_any_worker_tells_the_metrics_of_all(redis_url: str, tmp_path: Path):
    requests = 24
    with running(redis_url, tmp_path, "--workers", "2") as (client, _):
        for _ in range(requests):
            client.get(TOP_BUYS, headers={"Connection": "close"})
        series = re.escape(
            'recsys_http_requests_total{method="GET",'
            'route="/api/recommendations/top-buys",status="200"}'
        )

        def told() -> list[str]:
            text = client.get("/metrics", headers={"Connection": "close"}).text
            return re.findall(rf"^{series} (.*)$", text, re.MULTILINE)

        eventually(lambda: told() == [f"{requests}.0"], "the counts of both", seconds=20)
        for _ in range(6):
            assert told() == [f"{requests}.0"]


def test_a_taken_port_is_told_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RECSYS_REDIS_URL", "redis://127.0.0.1:1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"port {port}: Address already in use" in error
    assert "RECSYS_API_PORT" in error


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECSYS_REDIS_URL", ""),
        ("RECSYS_REDIS_URL", "http://127.0.0.1"),
        ("RECSYS_REDIS_URL", "redis://127.0.0.1:port"),
        ("RECSYS_REDIS_URL", "redis+sentinel://127.0.0.1"),
        ("RECSYS_API_PORT", "0"),
        ("RECSYS_API_PORT", "eighty"),
        ("RECSYS_API_WORKERS", "-1"),
        ("RECSYS_REDIS_TIMEOUT_MS", "0.5"),
    ],
)
def test_a_bad_setting_is_told_by_its_variable(variable: str, value: str):
    environment = {"RECSYS_REDIS_URL": "redis://127.0.0.1:6379", variable: value}
    with pytest.raises(SettingsError, match=variable):
        ServingSettings.from_environment(environment)


def test_settings_survive_the_environment():
    settings = ServingSettings(redis_url="unix:///run/redis.sock", port=8123, workers=3)
    assert ServingSettings.from_environment(settings.as_environment()) == settings
    assert ServingSettings.from_environment(
        {"RECSYS_REDIS_URL": "redis://h", "RECSYS_API_PORT": ""}
    ) == ServingSettings(redis_url="redis://h")
