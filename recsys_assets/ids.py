"""Ids of any type in SQL: as they are read and written, and as ranges of them are compared."""

import re

from psycopg import sql

_BITS = {"smallint": 16, "integer": 32, "bigint": 64}
_INTEGER = re.compile("-?[0-9]{1,19}")
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def plain_id(column: str, column_type: str) -> sql.Composed:
    """A column of ids as bigint where it holds integers, as text otherwise (uuid, text)."""
    return sql.SQL("{}::{}").format(
        sql.Identifier(column), sql.SQL("bigint" if is_integer(column_type) else "text")
    )


def id_range(
    column: sql.Composable, id_type: str, after: str | None, last: str | None
) -> sql.Composable:
    """The ids above ``after`` up to ``last``, both texts of ids; None: without that bound."""
    bounds = [
        sql.SQL("{} {} {}::{}").format(
            comparable_id(column, id_type), sql.SQL(operator), sql.Literal(bound), sql.SQL(id_type)
        )
        for operator, bound in ((">", after), ("<=", last))
        if bound is not None
    ]
    return sql.SQL(" AND ").join(bounds) if bounds else sql.SQL("true")


def comparable_id(column: sql.Composable, id_type: str) -> sql.Composable:
    """A column of ids for comparisons which come out alike in the shop's table and in ours."""
    is_text = id_type == "text" or id_type.startswith("character")
    return sql.SQL('{} COLLATE "C"').format(column) if is_text else column


def is_integer(column_type: str) -> bool:
    """Whether ids of this type are numbers in the API."""
    return column_type in _BITS


def parse_id(text: str, column_type: str) -> int | str | None:
    """The id that a text stands for in a column of this type, as it is read; None: it is no id."""
    if is_integer(column_type):
        most = 2 ** (_BITS[column_type] - 1)
        return int(text) if _INTEGER.fullmatch(text) and -most <= int(text) < most else None
    if column_type == "uuid":
        return text.lower() if _UUID.fullmatch(text.lower()) else None
    return text or None
