"""The log as it is written: by the API that runs, and by its formatters."""

import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient

from serving.contract import global_top_buys_key
from serving.logs import JsonFormatter, TextFormatter, Throttle, request_id, request_id_of
from tests.commands import eventually
from tests.serving_processes import running

TOP_BUYS = "/api/recommendations/top-buys/"
JSON = {"RECSYS_API_LOG_FORMAT": "json", "RECSYS_API_ACCESS_LOG": "true"}


# Ids


@pytest.mark.parametrize(
    "path", [TOP_BUYS, f"{TOP_BUYS}?limit=0", f"{TOP_BUYS}?explain=true", "/none", "/health/live"]
)
def test_the_id_of_a_request_is_taken_and_told(api: TestClient, path: str):
    given_id = "Root=1-67891233-abc:7/+._"
    assert api.get(path, headers={"X-Request-ID": given_id}).headers["x-request-id"] == given_id
    own = [api.get(path).headers["x-request-id"] for _ in range(3)]
    assert len(set(own)) == 3


def test_an_answer_that_is_known_has_an_id_too(api: TestClient):
    tag = api.get(TOP_BUYS).headers["etag"]
    answer = api.get(TOP_BUYS, headers={"If-None-Match": tag, "X-Request-ID": "seven"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (304, "seven")


@given(st.binary(max_size=200))
def test_an_id_is_short_and_plain_whatever_was_given(value: bytes):
    id_ = request_id_of([(b"accept", b"*/*"), (b"x-request-id", value)])
    assert 0 < len(id_) <= 128
    assert id_.isascii()
    assert id_.decode().isprintable()
    assert b" " not in id_


@pytest.mark.parametrize("value", [b"", b"a b", b"a\n", b'"', b"x" * 129, "é".encode()])
def test_an_odd_id_is_replaced(value: bytes):
    assert request_id_of([(b"x-request-id", value)]) != value


# Lines


def logged(formatter: logging.Formatter, message: str, **more: Any) -> str:
    record = logging.LogRecord("serving.x", logging.WARNING, "f.py", 1, message, (), None)
    record.__dict__ |= more
    return formatter.format(record)


@contextmanager
def of_request(id_: bytes) -> Iterator[None]:
    token = request_id.set(id_)
    yield
    request_id.reset(token)


def test_a_line_for_people_stays_one():
    line = logged(TextFormatter(), "GET /a\n[ERROR] forged\x1b[31m\u2028")
    assert line == r"[WARNING] GET /a\n[ERROR] forged\x1b[31m\u2028"
    with of_request(b"r-1"):
        assert logged(TextFormatter(), "slow") == "[WARNING] slow (r-1)"


def test_a_json_line_has_the_request_and_the_traceback():
    try:
        raise ValueError("no\nway")
    except ValueError:
        failure = sys.exc_info()
    with of_request(b"r-1"):
        line = logged(JsonFormatter(), "failed", exc_info=failure, fields={"status": 500})
    assert "\n" not in line
    event = json.loads(line)
    assert event.pop("exception").startswith("Traceback")
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "level": "warning",
        "logger": "serving.x",
        "message": "failed",
        "request_id": "r-1",
        "status": 500,
    }


@given(st.text())
def test_a_json_line_is_one_line_of_json_whatever_is_logged(text: str):
    line = logged(JsonFormatter(), text.replace("%", "%%"))
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == text.replace("%", "%%")


def events(throttle: Throttle, *messages: str, level: int = logging.ERROR) -> list[str]:
    """What is let through of some messages about 7."""
    records = [logging.LogRecord("x", level, "f.py", 1, each, (7,), None) for each in messages]
    return [record.getMessage() for record in records if throttle.filter(record)]


def test_a_failure_of_a_kind_is_told_once_in_a_while_and_how_many_there_were():
    now = 100.0
    throttle = Throttle(10, lambda: now)
    assert events(throttle, "no %d", "no %d", "bad %d", "no %d") == ["no 7", "bad 7"]
    assert events(throttle, "no %d", "no %d", level=logging.INFO) == ["no 7", "no 7"]
    now = 109.9
    assert events(throttle, "no %d") == []
    now = 110.0
    assert events(throttle, "no %d", "bad %d", "no %d") == ["no 7 (and 3 more like it)", "bad 7"]
    now = 120.0
    assert events(throttle, "no %d") == ["no 7 (and 1 more like it)"]
    now = 130.0
    assert events(throttle, "no %d") == ["no 7"]


def test_a_kind_of_failure_is_its_exception_too():
    throttle = Throttle()
    told = []
    for error in (KeyError(), OSError(), KeyError()):
        record = logging.LogRecord(
            "x", logging.ERROR, "f.py", 1, "a", (), (type(error), error, None)
        )
        told.append(throttle.filter(record))
    assert told == [True, True, False]


# The API that runs


def events_of(output: str) -> list[dict[str, Any]]:
    """The events in an output, of which every line is one."""
    return [json.loads(line) for line in output.splitlines()]


def test_all_that_a_server_logs_is_json(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    for name, value in JSON.items():
        monkeypatch.setenv(name, value)
    with running(redis_url, tmp_path, "--workers", "1") as (client, _):
        client.get(f"{TOP_BUYS}?user_id=4711", headers={"X-Request-ID": "one"})
        client.get("/none?user_id=4711", headers={"X-Request-ID": "two"})
        with closing(redis.Redis.from_url(redis_url)) as writer:
            writer.set(global_top_buys_key(), "no list")
        client.get(TOP_BUYS, headers={"X-Request-ID": "three"})
        for _ in range(5):
            assert client.get(TOP_BUYS).status_code == 503
    output = capfd.readouterr().out
    assert "4711" not in output
    events = events_of(output)
    assert "granian" in {event["logger"] for event in events}
    access = {event["request_id"]: event for event in events if event["logger"] == "serving.access"}
    one, two, three = access["one"], access["two"], access["three"]
    assert (one["method"], one["path"], one["status"]) == ("GET", TOP_BUYS, 200)
    assert (two["path"], two["status"]) == ("/none", 404)
    assert three["status"] == 503
    (error,) = (event for event in events if event["level"] == "error")
    assert (error["logger"], error["request_id"]) == ("serving.problems", "three")
    assert 0 < one["milliseconds"] < 60_000


def test_no_two_workers_give_the_same_id(redis_url: str, tmp_path: Path):
    with running(redis_url, tmp_path, "--workers", "2") as (client, _):
        ids: list[str] = []

        def ask(_: int) -> str:
            answer = client.get("/health/live", headers={"Connection": "close"})
            return answer.headers["x-request-id"]

        def both_have_answered() -> bool:
            with ThreadPoolExecutor(16) as threads:
                ids.extend(threads.map(ask, range(100)))
            return len({id_.partition("-")[0] for id_ in ids}) == 2

        eventually(both_have_answered, "an answer of each worker")
    assert len(set(ids)) == len(ids)


def test_concurrent_requests_are_not_taken_for_each_other(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    for name, value in JSON.items():
        monkeypatch.setenv(name, value)
    with running(redis_url, tmp_path, "--workers", "1") as (client, _):

        def ask(number: int) -> None:
            path = f"/api/recommendations/bought-together/{number}/"
            query = {"explain": "true"} if number % 2 else {}
            client.get(path, params=query, headers={"X-Request-ID": f"r-{number}"})

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(ask, range(200)))
    told = {
        event["request_id"]: event["path"]
        for event in events_of(capfd.readouterr().out)
        if event["logger"] == "serving.access" and event["request_id"].startswith("r-")
    }
    expected = {
        f"r-{number}": f"/api/recommendations/bought-together/{number}/" for number in range(200)
    }
    assert told == expected


def test_nothing_is_logged_of_requests_unless_asked_for(
    redis_url: str, tmp_path: Path, capfd: pytest.CaptureFixture
):
    with running(redis_url, tmp_path, "--workers", "1") as (client, _):
        client.get(TOP_BUYS)
        client.get("/none")
    output = capfd.readouterr().out
    assert "[INFO] Started worker-1" in output
    assert "top-buys" not in output
    assert "/none" not in output
