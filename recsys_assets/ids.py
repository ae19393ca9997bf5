"""Ids of any type in SQL: as they are read, and as ranges of them are compared."""

from psycopg import sql


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
    return column_type in ("bigint", "integer", "smallint")
