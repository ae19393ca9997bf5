"""Stored lists cut up without being parsed, for bodies to be spliced from.

What :mod:`serving.contract.codecs` encodes is compact JSON, in which a quotation mark inside of a
string has a backslash before it. So none of the marks below, each of which has a quotation mark
after another sign, can be part of an id.
"""

from typing import NamedTuple

_HEAD, _LIST = b'{"schema":', b'"products":['
_FIRST, _NEXT, _LAST = b'{"product_id":', b'},{"product_id":', b"}"
_SCORE, _PINNED, _END = b',"score":', b'],"pinned":[', b"]}"


class ReadyList(NamedTuple):
    """A Top Buys list in pieces: what stands before its products, and the JSON of each.

    The pieces of products lack what is the same for all: their braces, and the name of the id.
    """

    head: bytes
    products: list[bytes]


def cut_top_buys(data: bytes, number: int) -> ReadyList | None:
    """The first ``number`` products of a stored list; None when it is not in this form.

    Where the list is longer, what follows them is one piece more.
    """
    start = data.find(_LIST)
    if start < 0 or not data.startswith(_HEAD) or not data.endswith(_END):
        return None
    first, end = start + len(_LIST), len(data) - len(_END)
    if not data.startswith(_LAST, end - 1):  # after the last product's brace come those pinned
        pinned = data.find(_PINNED, start)
        end = pinned if pinned > 0 else end
    if first == end:
        return ReadyList(data[:start], [])
    if not data.startswith(_FIRST, first) or not data.endswith(_LAST, first, end):
        return None
    return ReadyList(
        data[:start], data[first + len(_FIRST) : end - len(_LAST)].split(_NEXT, number)
    )


def empty_top_buys(head: bytes) -> bytes:
    """A stored list of no products, with the head of another."""
    return head + _LIST + _END


def id_of_product(product: bytes) -> bytes:
    """The id's JSON in a piece of :func:`cut_top_buys`."""
    return product[: product.index(_SCORE)]


def join_products(products: list[bytes]) -> bytes:
    """JSON of such pieces, without the brackets around all of them."""
    return _FIRST + _NEXT.join(products) + _LAST if products else b""
