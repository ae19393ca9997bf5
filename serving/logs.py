"""The log: a line for people or a JSON object for each event, with the id of its request.

Of a request, its method and path are logged, never the query, which says who asks for what, nor
headers or the client's address.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from math import inf
from secrets import token_hex
from time import monotonic
from typing import Any, Literal

LogFormat = Literal["text", "json"]

REQUEST_ID = b"x-request-id"

request_id: ContextVar[bytes] = ContextVar("request_id", default=b"")
"""The id of the request at work; empty outside of any."""

access_logger = logging.getLogger("serving.access")

_LEVEL = "INFO"
_KINDS = 1_000
_Kind = tuple[str, str, type[BaseException] | None]
_SANE_ID = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_numbers = count(1)
_process: bytes


def _begin_process() -> None:
    global _process
    _process = token_hex(6).encode()


_begin_process()
os.register_at_fork(after_in_child=_begin_process)


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The id that the client has given by X-Request-ID, if it is a sane one, or a new one.

    Sane are up to 128 letters, digits and ``._:=+/-``. A new id is the process' and a number.
    """
    for name, value in headers:
        if name == REQUEST_ID:
            if _SANE_ID.fullmatch(value):
                return value
            break
    return b"%b-%d" % (_process, next(_numbers))


def log_access(method: str, path: str, status: int, seconds: float) -> None:
    """Log that a request was answered."""
    ms = round(1000 * seconds, 3)
    fields = {"method": method, "path": path, "status": status, "milliseconds": ms}
    access_logger.info("%s %s %d %.3f ms", method, path, status, ms, extra={"fields": fields})


class Throttle(logging.Filter):
    """Lets a warning or an error of one kind through once in some seconds, and then tells how many.

    A kind is a logger's message before its arguments are filled in, with the same exception if any.
    Without this a Redis that refuses would be told of by every request.
    """

    def __init__(self, seconds: float = 10.0, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._told: dict[_Kind, float] = {}
        self._kept: Counter[_Kind] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the event is to be told; if so it says how many of its kind were not."""
        if record.levelno < logging.WARNING:
            return True
        exception = record.exc_info[0] if record.exc_info else None
        kind, now = (record.name, str(record.msg), exception), self._clock()
        if now < self._told.get(kind, -inf) + self._seconds:
            self._kept[kind] += 1
            return False
        if len(self._told) >= _KINDS:
            self._told.clear()
            self._kept.clear()
        self._told[kind] = now
        if kept := self._kept.pop(kind, 0):
            record.msg, record.args = f"{record.getMessage()} (and {kept:,} more like it)", None
        return True


class TextFormatter(logging.Formatter):
    """One line for each event, and the lines of its traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, in which control characters, which clients can send, are escaped."""
        line = f"[{record.levelname}] {record.message}"
        if id_ := request_id.get():
            line += f" ({id_.decode()})"
        return _CONTROL.sub(lambda match: repr(match[0])[1:-1], line)


class JsonFormatter(logging.Formatter):
    """One JSON object for each event, on a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The object; ``time`` is UTC."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.strip("_"),
            "message": record.getMessage(),
        }
        if id_ := request_id.get():
            event["request_id"] = id_.decode()
        event |= getattr(record, "fields", {})
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event)


_FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def log_config(log_format: LogFormat) -> dict[str, Any]:
    """The configuration of all loggers, the server's included, for logging.config.dictConfig."""
    handler = {
        "class": "logging.StreamHandler",
        "stream": "ext://sys.stdout",
        "formatter": "line",
        "filters": ["throttle"],
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": _FORMATTERS[log_format]}},
        "filters": {"throttle": {"()": Throttle}},
        "handlers": {"console": handler},
        "root": {"handlers": ["console"], "level": "WARNING"},
        "loggers": {"_granian": {"level": _LEVEL}, "serving": {"level": _LEVEL}},
    }
