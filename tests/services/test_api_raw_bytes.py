"""Whatever comes in over the socket, the API answers, refuses or hangs up; it never fails."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from time import sleep
from typing import NamedTuple

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.local.redis import RedisServer
from serving.metrics import FLUSH_SECONDS
from tests.serving_processes import running

FULL = os.environ.get("RECSYS_TEST_API") == "full"
USUAL = settings(
    max_examples=5000 if FULL else 150, derandomize=not FULL, deadline=None, database=None
)
SECONDS_TO_ANSWER = 10
REFUSED = {200, 304, 400, 404, 405, 413, 414, 431}

ROUTES = [
    b"/api/recommendations/top-buys",
    b"/api/recommendations/buy-again",
    b"/api/recommendations/bought-together",
    b"/api/recommendations/bought-together/1",
    b"/api/explorer/products",
    b"/health/live",
    b"/health/ready",
    b"/metrics",
    b"/schema/openapi.json",
    b"/static/style.css",
    b"/",
    b"/nowhere",
]
NAMES = [b"user_id", b"product_id", b"limit", b"exclude", b"explain", b"q", b""]
VALUES = {
    "empty": b"",
    "long": b"x" * 5000,
    "a long number": b"9" * 5000,
    "negative": b"-1",
    "beyond 64 bits": b"18446744073709551616",
    "a fraction": b"1e400",
    "control": b"%01%0d%0a%1b%7f",
    "NUL": b"%00",
    "not UTF-8": b"%ff%fe",
    "a lone surrogate": b"%ED%A0%80",
    "overlong": b"%c0%af",
    "unfinished percent": b"%",
    "no hexadecimal": b"%zz%u0041",
    "dots": b"..%2f..%2fetc",
    "other scripts": "مرحبا漢字🙂".encode(),
    "written right to left": "\u202e\u200f".encode(),
    "Redis": b"*%0d%0a$1%0d%0aFLUSHALL%0d%0a",
    "JSON": b'{"$ne":1}',
}


class Api(NamedTuple):
    """A running API."""

    http: httpx.Client
    port: int

    def send(self, data: bytes, wait: float) -> bytes:
        """What it sends back for raw bytes until it hangs up, or sends nothing for a while."""
        with socket.create_connection(("127.0.0.1", self.port), wait) as connection:
            answer = b""
            with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                connection.sendall(data)
            with suppress(ConnectionResetError, TimeoutError):
                while piece := connection.recv(65_536):
                    answer += piece
        return answer

    def status(self, target: bytes, *headers: bytes, method: bytes = b"GET") -> int | None:
        """The status of the answer to a request; None where it hangs up."""
        lines = [method + b" " + target + b" HTTP/1.1", b"Host: a", b"Connection: close", *headers]
        answer = self.send(b"\r\n".join(lines) + b"\r\n\r\n", SECONDS_TO_ANSWER)
        return int(answer[9:12]) if answer else None


@pytest.fixture(scope="module")
def api(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """For all tests of this module; no request of theirs may have failed."""
    folder = tmp_path_factory.mktemp("serving")
    with running(redis_server.url, folder, "--workers", "1") as (http, _):
        port = http.base_url.port
        assert port is not None
        yield Api(http, port)
        sleep(2 * FLUSH_SECONDS)
        statuses = set(re.findall(r'requests_total{.*status="(\d+)"', http.get("/metrics").text))
        assert "200" in statuses
        assert {status for status in statuses if status >= "500"} == set()


@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_a_parameter_makes_it_fail(api: Api, value: str):
    data = VALUES[value]
    for route in ROUTES:
        for name in NAMES:
            assert api.status(b"%b?%b=%b" % (route, name, data)) in REFUSED
        assert api.status(b"%b/%b" % (route, data)) in REFUSED
        assert api.status(route, b"If-None-Match: " + data) in REFUSED


@pytest.mark.parametrize(
    "query",
    [
        b"&".join([b"exclude=1"] * 3000),
        b"&".join(b"exclude=%d" % number for number in range(3000)),
        b"&".join([b"product_id=1"] * 51),
        b"user_id=1&user_id=2&limit=1&limit=2",
        b"limit=1&limit=x",
        b"limit=2&user_id=1&nobody=knows",
        b"limit[]=1&limit[0]=1",
        b"&&&===;;;",
        b"limit=+1",
        b"limit=1.0",
        b"explain=perhaps",
        b"a" * 6000,
        b"?" * 100,
    ],
    ids=lambda query: query[:30].decode(),
)
def test_no_query_makes_it_fail(api: Api, query: bytes):
    for route in ROUTES:
        assert api.status(b"%b?%b" % (route, query)) in REFUSED


@pytest.mark.parametrize(
    "method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND"]
)
def test_no_method_makes_it_fail(api: Api, method: bytes):
    for route in ROUTES:
        assert api.status(route, method=method) in REFUSED | {204}
        body = b"Content-Length: 3\r\n\r\n{}}"
        assert api.status(route, body, method=method) in REFUSED | {204}


@pytest.mark.parametrize(
    "target",
    [
        b"/..",
        b"/../../etc/passwd",
        b"/static/../app.py",
        b"/static/..%2f..%2fapp.py",
        b"/static/%2e%2e/%2e%2e/app.py",
        b"//",
        b"//api//recommendations//top-buys",
        b"/api/recommendations/top-buys//",
        b"/api/recommendations/bought-together/..",
        b"/api/recommendations/bought-together/.",
        b"/api/recommendations/bought-together//",
        b"/api/recommendations/bought-together/%2F",
        b"/api/recommendations/bought-together/%2F%2F1",
        b"/api/recommendations/bought-together/" + b"a/" * 300,
        b"/static/" + b"a" * 5000,
        b"/static/%00",
        b"/schema/../schema",
        b"http://elsewhere/health/live",
        b"*",
        b"",
        b"/" + b"a" * 70_000,
    ],
    ids=lambda target: target[:40].decode(),
)
def test_no_path_makes_it_fail(api: Api, target: bytes):
    assert api.status(target) in REFUSED | {None}


def test_no_file_outside_of_the_static_ones_is_shown(api: Api):
    for path in [b"../app.py", b"..%2fapp.py", b"%2e%2e/app.py", b"..%5capp.py", b"/etc/passwd"]:
        assert api.status(b"/static/" + path) in {400, 404}


@pytest.mark.parametrize(
    "headers",
    [
        [b"A: " + b"x" * 60_000],
        [b"H%d: x" % number for number in range(2000)],
        [b"Host: b"],
        [b"Content-Length: -1"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: nonsense"],
        [b"Accept: " + b"a/b," * 2000],
        [b"Accept: \xff\xfe"],
        [b"Accept-Encoding: \xff"],
        [b"Cookie: " + b"a=b;" * 2000],
        [b"X-Request-ID: \xff" + b"x" * 500],
        [b"If-None-Match: *"],
        [b'If-None-Match: "' + b"a" * 5000],
        [b"Range: bytes=9999999999-1"],
        [b"Expect: 100-continue"],
        [b"Upgrade: websocket", b"Connection: Upgrade"],
        [b"Authorization: Bearer \xff"],
        [b"Origin: null"],
        [b"no colon"],
        [b": no name"],
    ],
    ids=lambda headers: headers[0][:30].decode("latin-1"),
)
def test_no_header_makes_it_fail(api: Api, headers: list[bytes]):
    for route in ROUTES:
        assert api.status(route, *headers) in REFUSED | {None}


pieces = st.sampled_from(
    [
        b"GET ",
        b"POST ",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"Host: a\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: 10\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01",
        b"?",
        b"&",
        b"=",
        b"%",
        b"user_id=",
        b"limit=",
        *ROUTES,
    ]
)
requests = st.builds(
    lambda route, rest: b"GET " + route + rest + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    st.sampled_from(ROUTES),
    st.binary(max_size=40) | st.lists(pieces, max_size=6).map(b"".join),
)
raw = st.binary(max_size=200) | st.lists(pieces | st.binary(max_size=8), max_size=12).map(b"".join)


@USUAL
@given(data=raw | requests)
def test_no_bytes_make_it_fail(api: Api, data: bytes):
    answer = api.send(data, 0.02)
    assert re.findall(rb"HTTP/1.[01] 5\d\d", answer) == []
    assert api.http.get("/health/live").status_code == 200
