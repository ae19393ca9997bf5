"""The lines of a shop's CSV files: what each column holds, and what is wrong with a line by itself.

No database here: what concerns more than one line is the import's.
"""

import codecs
import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from recsys_assets.local.errors import CsvError
from recsys_assets.local.shop_tables import Progress, no_progress

logger = logging.getLogger(__name__)

MAX_REPORTED = 20
PROGRESS_LINES = 50_000
INTEGER_BITS = {"smallint": 16, "integer": 32, "bigint": 64}

Parse = Callable[[str], str | None]
"""Turn a field into PostgreSQL's text of it, None for NULL; ValueError says what is wrong."""


class Ids:
    """The ids of one kind, of which it learns in passing which SQL type holds them all."""

    def __init__(self, existing_type: str | None = None) -> None:
        """``existing_type`` is the SQL type in the tables, where these exist already."""
        self._existing_type = existing_type
        self._all_integers = True

    @property
    def sql_type(self) -> str:
        """The tables' type, else ``bigint`` or ``text``, whichever fits the ids parsed so far."""
        return self._existing_type or ("bigint" if self._all_integers else "text")

    def parse(self, text: str) -> str:
        """Check an id, which stays in the form it has."""
        if not text.strip():
            raise ValueError("is empty")
        if self._existing_type is not None:
            _check_type(text, self._existing_type)
        elif self._all_integers:
            self._all_integers = _is_integer(text, bits=64)
        return text


@dataclass(frozen=True)
class Column:
    """A column of a file. One that is not ``required`` may be missing: then its fields are empty.

    ``ids`` are those a column of ids belongs to.
    """

    name: str
    parse: Parse
    required: bool = False
    value_type: str = "text"
    ids: Ids | None = None

    @property
    def sql_type(self) -> str:
        """The type of the table's column; of ids known once all are parsed."""
        return self.ids.sql_type if self.ids else self.value_type


class BadLines:
    """The first bad lines, and how many there are."""

    def __init__(self) -> None:
        self._total = 0
        self._first: list[str] = []

    def add(self, path: Path, line: int, reason: str) -> None:
        """Note what is wrong with a line, which is counted from 1."""
        self._total += 1
        if len(self._first) < MAX_REPORTED:
            self._first.append(f"{path}:{line}: {reason}")

    def raise_if_any(self) -> None:
        """Raise CsvError if a bad line was noted."""
        if self._total == 0:
            return
        more = self._total - len(self._first)
        head = f"nothing was loaded, for {self._total} error(s) in the files:"
        raise CsvError("\n".join([head, *self._first, *([f"... and {more} more"] if more else [])]))


def shop_columns(ids: Mapping[str, Ids]) -> Mapping[str, Sequence[Column]]:
    """The columns of the three files by table; ``ids`` are those of the three kinds."""
    order, user, product = ids["order"], ids["user"], ids["product"]
    return {
        "orders": (
            Column("id", order.parse, required=True, ids=order),
            Column("user_id", _optional(user.parse), required=True, ids=user),
            Column("status", _optional(_text, "completed")),
            Column("created_at", _timestamp, required=True, value_type="timestamptz"),
            Column("updated_at", _optional(_timestamp), value_type="timestamptz"),
        ),
        "order_items": (
            Column("order_id", order.parse, required=True, ids=order),
            Column("product_id", product.parse, required=True, ids=product),
            Column("quantity", _optional(_quantity, "1"), value_type="integer"),
            Column("price", _optional(_price), value_type="numeric"),
        ),
        "products": (
            Column("id", product.parse, required=True, ids=product),
            Column("name", _text, required=True),
            Column("department", _optional(_text)),
            Column("category", _optional(_text)),
            Column("brand", _optional(_text)),
        ),
    }


def read_lines(
    path: Path, columns: Sequence[Column], bad: BadLines, progress: Progress = no_progress
) -> Iterator[tuple[int, list[str | None]]]:
    """Yield each good line's number and its values in the order of ``columns``; note the others.

    ``progress`` is told bytes. Raises CsvError if the header lacks a required column.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        rows = _rows(_decoded(file, path, bad), path, bad)
        _, header = next(rows, (1, []))
        positions = _positions(path, header, columns)
        for count, (line, row) in enumerate(rows):
            if count % PROGRESS_LINES == 0:
                progress(file.tell(), size, path.name)
            try:
                values = _values(row, len(header), columns, positions)
            except ValueError as error:
                bad.add(path, line, str(error))
            else:
                yield line, values
    progress(size, size, path.name)


def _decoded(file: BinaryIO, path: Path, bad: BadLines) -> Iterator[str]:
    for line, content in enumerate(file, start=1):
        text = content.removeprefix(codecs.BOM_UTF8) if line == 1 else content
        if b"\0" in text:
            bad.add(path, line, "has a NUL character")
            text = text.replace(b"\0", b"")
        try:
            yield text.decode()
        except UnicodeDecodeError:
            bad.add(path, line, "is not UTF-8")
            yield text.decode(errors="replace")


def _rows(lines: Iterator[str], path: Path, bad: BadLines) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of its first line; blank lines are no rows."""
    reader = csv.reader(lines, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad.add(path, line, str(error))
            continue
        if row:
            yield line, row


def _positions(path: Path, header: Sequence[str], columns: Sequence[Column]) -> Sequence[int]:
    """Where in a row each column is; -1 for one that the file does not have."""
    names = [column.name for column in columns]
    missing = [column.name for column in columns if column.required and column.name not in header]
    if missing:
        raise CsvError(f"{path}:1: no column {', '.join(missing)}, only {', '.join(header)}")
    repeated = [name for name in names if header.count(name) > 1]
    if repeated:
        raise CsvError(f"{path}:1: more than one column {', '.join(repeated)}")
    unknown = [name for name in header if name not in names]
    if unknown:
        logger.warning("%s: ignored the columns %s", path, ", ".join(unknown))
    return [header.index(name) if name in header else -1 for name in names]


def _values(
    row: Sequence[str], width: int, columns: Sequence[Column], positions: Sequence[int]
) -> list[str | None]:
    if len(row) != width:
        raise ValueError(f"has {len(row)} fields, the header has {width}")
    fields = [*row, ""]  # position -1 is thus an empty field
    values = []
    for column, position in zip(columns, positions, strict=True):
        try:
            values.append(column.parse(fields[position]))
        except ValueError as error:
            raise ValueError(f"{column.name} {error}") from None
    return values


def _optional(parse: Parse, default: str | None = None) -> Parse:
    return lambda text: parse(text) if text else default


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def _timestamp(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 timestamp") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _quantity(text: str) -> str:
    _check_type(text, "integer")
    return text


def _price(text: str) -> str:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise ValueError(f"{text!r} is not a number")
    return str(number)


def _check_type(text: str, sql_type: str) -> None:
    """Check that the text is of the type; every text is of a type not named here."""
    bits = INTEGER_BITS.get(sql_type)
    if bits is not None and not _is_integer(text, bits):
        raise ValueError(f"{text!r} is not an integer of {bits} bits")
    if sql_type == "uuid" and not _is_uuid(text):
        raise ValueError(f"{text!r} is not a UUID")


def _is_integer(text: str, bits: int) -> bool:
    """Whether PostgreSQL would print such an integer just so: no sign or zeros in front."""
    try:
        number = int(text)
    except ValueError:
        return False
    return str(number) == text and -(2 ** (bits - 1)) <= number < 2 ** (bits - 1)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
