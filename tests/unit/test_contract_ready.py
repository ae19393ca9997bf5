"""Stored lists that are cut up without being parsed."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from serving.contract import ScoredProduct, TopBuys, decode_top_buys, encode_top_buys, is_id
from serving.contract.ready import cut_top_buys, empty_top_buys, id_of_product, join_products

HEAD = b'{"schema":1,"source":"personal","model_version":"als-7",'
LIST = HEAD + b'"products":[{"product_id":5,"score":1.5},{"product_id":"a,\\"b","score":-2e-9}]'

ids = st.integers(-(2**63), 2**63 - 1) | (
    st.sampled_from(['},{"product_id":', '],"pinned":[', '"products":[', ',"score":', "]}"])
    | st.text('a{}[],:"\\é🙂', min_size=1)
    | st.text(min_size=1)
).filter(is_id)
scores = st.floats(allow_nan=False, allow_infinity=False)
products = st.lists(st.builds(ScoredProduct, ids, scores), max_size=12)
lists = st.builds(
    TopBuys,
    source=st.sampled_from(["personal", "own_purchases", "global"]),
    model_version=st.text(),
    generated_at=st.just(datetime(2025, 3, 1, tzinfo=UTC)),
    orders_through=st.none(),
    products=products,
    pinned=st.just(UNSET) | st.lists(ids, max_size=4),
)


def parsed(pieces: list[bytes]) -> list[dict[str, Any]]:
    """The products in some pieces."""
    products: list[dict[str, Any]] = msgspec.json.decode(b"[%b]" % join_products(pieces))
    return products


@pytest.mark.parametrize("end", [b"}", b',"pinned":[]}', b',"pinned":[5,"]}"]}'])
def test_a_list_is_cut_into_its_products(end: bytes):
    cut = cut_top_buys(LIST + end, 10)
    assert cut == (HEAD, [b'5,"score":1.5', b'"a,\\"b","score":-2e-9'])
    assert [id_of_product(piece) for piece in cut.products] == [b"5", b'"a,\\"b"']
    assert empty_top_buys(cut.head) == HEAD + b'"products":[]}'
    assert join_products(cut.products[:1]) == b'{"product_id":5,"score":1.5}'
    assert join_products([]) == b""


def test_what_follows_is_one_piece_more():
    data = HEAD + b'"products":[' + b",".join([b'{"product_id":1,"score":1}'] * 4) + b"]}"
    for number, pieces in [(1, 2), (2, 3), (3, 4), (4, 4), (5, 4)]:
        cut = cut_top_buys(data, number)
        assert cut is not None
        assert len(cut.products) == pieces
        assert parsed(cut.products[:number]) == [{"product_id": 1, "score": 1}] * min(number, 4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff\x00",
        LIST,  # its end is missing
        b" " + LIST + b"}",
        LIST.replace(b'"score":', b'"score": ').replace(b'{"product_id"', b'{ "product_id"') + b"}",
        HEAD + b'"products":[{"score":1,"product_id":2}]}',
        HEAD + b'"products":null}',
        b'{"schema":1}',
    ],
)
def test_what_is_in_another_form_is_left_to_a_parser(data: bytes):
    assert cut_top_buys(data, 10) is None


@given(stored=lists, number=st.integers(1, 14))
def test_the_pieces_are_what_parsing_gives(stored: TopBuys, number: int):
    data = encode_top_buys(stored)
    cut = cut_top_buys(data, number)
    assert cut is not None
    first = msgspec.json.decode(data)["products"][:number]
    assert parsed(cut.products[:number]) == first
    assert (len(cut.products) > number) == (len(stored.products) > number)
    assert [msgspec.json.decode(id_of_product(piece)) for piece in cut.products[:number]] == [
        product["product_id"] for product in first
    ]
    head = decode_top_buys(empty_top_buys(cut.head))
    assert head == msgspec.structs.replace(stored, products=[], pinned=UNSET)


@given(st.binary(max_size=60).map(lambda tail: HEAD + b'"products":[' + tail), st.integers(1, 3))
def test_no_bytes_make_it_fail(data: bytes, number: int):
    cut = cut_top_buys(data, number)
    assert cut is None or cut.head == HEAD
