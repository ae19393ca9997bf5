"""Ids to positions and back, and the matrix of interactions, on columns small enough to see."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix

from recsys_assets.learn.matrix import (
    Ids,
    Interactions,
    beside,
    encode_ids,
    interactions_from_arrow,
    positions,
)


def text(*ids: str) -> Ids:
    return np.array(ids, dtype=object)


def table(rows: list[tuple[object, object, float]], id_type: pa.DataType) -> pa.Table:
    users, products, weights = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, id_type),
            "product_id": pa.array(products, id_type),
            "weight": pa.array(weights, pa.float32()),
        }
    )


def test_integer_ids_are_encoded_in_ascending_order_across_chunks() -> None:
    codes, ids = encode_ids(pa.chunked_array([[30, -1], [30, 7]]))
    assert_array_equal(ids, [-1, 7, 30])
    assert_array_equal(codes, [2, 0, 2, 1])
    assert (codes.dtype, ids.dtype) == (np.int32, np.int64)


def test_text_ids_are_encoded_as_str_objects() -> None:
    codes, ids = encode_ids(pa.chunked_array([["b", "a"], ["ü", "b"]]))
    assert ids.tolist() == ["a", "b", "ü"]
    assert_array_equal(codes, [1, 0, 2, 1])
    assert ids.dtype == object


@pytest.mark.parametrize("chunks", [[], [[]]])
@pytest.mark.parametrize(("id_type", "dtype"), [(pa.int64(), np.int64), (pa.string(), object)])
def test_an_empty_column_keeps_its_type(
    chunks: list[list[object]], id_type: pa.DataType, dtype: type
) -> None:
    codes, ids = encode_ids(pa.chunked_array(chunks, type=id_type))
    assert (len(codes), codes.dtype) == (0, np.int32)
    assert (len(ids), ids.dtype) == (0, dtype)


@given(st.lists(st.integers(-(2**63), 2**63 - 1)) | st.lists(st.text()))
def test_codes_lead_back_to_the_values(values: list[int] | list[str]) -> None:
    column = pa.array(values, pa.string() if values and isinstance(values[0], str) else pa.int64())
    codes, ids = encode_ids(pa.chunked_array([column]))
    assert ids[codes].tolist() == values
    assert ids.tolist() == sorted(set(values))


@given(
    st.lists(st.lists(st.integers(-9, 9)), max_size=5)
    | st.lists(st.lists(st.text("abü")), max_size=5),
    st.booleans(),
)
def test_chunks_make_no_difference(chunks: list[list[Any]], is_text: bool) -> None:
    """Chunks with other values each, the same ones in another order, or none at all."""
    values = [value for chunk in chunks for value in chunk]
    is_text = isinstance(values[0], str) if values else is_text
    column = pa.chunked_array(chunks, type=pa.string() if is_text else pa.int64())
    codes, ids = encode_ids(column)
    assert ids.tolist() == sorted(set(values))
    assert codes.tolist() == [sorted(set(values)).index(value) for value in values]
    assert (codes.dtype, ids.dtype) == (np.int32, object if is_text else np.int64)


def test_positions_of_integers() -> None:
    ids = np.array([2, 5, 9], np.int64)
    assert_array_equal(
        positions(ids, np.array([9, 1, 5, 6, 10, 2], np.int64)), [2, -1, 1, -1, -1, 0]
    )


def test_positions_of_text() -> None:
    assert_array_equal(positions(text("a", "c"), text("c", "b", "a", "", "d")), [1, -1, 0, -1, -1])


def test_positions_where_nothing_is_known_or_wanted() -> None:
    assert_array_equal(positions(text(), text("a", "b")), [-1, -1])
    assert len(positions(text("a"), text())) == 0


def test_positions_refuse_ids_of_another_type() -> None:
    with pytest.raises(ValueError, match="int64 cannot be looked up among object"):
        positions(np.array([1], np.int64), text("1"))


def test_interactions_of_integer_ids() -> None:
    interactions = interactions_from_arrow(
        table([(9, 20, 0.5), (4, 30, 1.0), (9, 10, 2.0)], pa.int64())
    )
    assert_array_equal(interactions.user_ids, [4, 9])
    assert_array_equal(interactions.product_ids, [10, 20, 30])
    assert_array_equal(interactions.matrix.toarray(), [[0, 0, 1], [2, 0.5, 0]])
    assert interactions.matrix.dtype == np.float32
    assert interactions.matrix.has_sorted_indices


def test_interactions_of_text_ids() -> None:
    interactions = interactions_from_arrow(table([("u", "q", 1.0), ("u", "p", 3.0)], pa.string()))
    assert interactions.product_ids.tolist() == ["p", "q"]
    assert_array_equal(interactions.matrix.toarray(), [[3, 1]])


def test_no_interactions_are_an_empty_matrix() -> None:
    assert interactions_from_arrow(table([], pa.int64())).matrix.shape == (0, 0)


def test_a_matrix_of_another_shape_than_its_ids_is_refused() -> None:
    ids = np.array([1], np.int64)
    with pytest.raises(ValueError, match="1 user ids and 1 product ids"):
        Interactions(csr_matrix((2, 1), dtype=np.float32), ids, ids)


# --- Beside the products of a model


def matrix_beside(
    product_ids: Ids, rows: list[tuple[object, object, float]], id_type: pa.DataType
) -> tuple[list[list[float]], list[object]]:
    interactions = interactions_from_arrow(table(rows, id_type))
    before = interactions.matrix.copy()
    matrix, ids = beside(interactions, product_ids)
    assert matrix.has_sorted_indices
    assert matrix.dtype == np.float32
    assert (interactions.matrix != before).nnz == 0
    return matrix.toarray().tolist(), ids.tolist()


def test_columns_of_the_model_come_first_then_those_of_other_products() -> None:
    rows = [(9, 20, 0.5), (4, 30, 1.0), (9, 10, 2.0), (9, 40, 4.0)]
    model = np.array([5, 20, 40], np.int64)
    matrix, ids = matrix_beside(model, rows, pa.int64())
    assert ids == [5, 20, 40, 10, 30]
    assert matrix == [[0, 0, 0, 0, 1], [0, 0.5, 4, 2, 0]]


def test_text_ids_beside_those_of_a_model() -> None:
    matrix, ids = matrix_beside(text("b", "c"), [("u", "a", 1.0), ("u", "c", 3.0)], pa.string())
    assert ids == ["b", "c", "a"]
    assert matrix == [[0, 3, 1]]


def test_nobody_beside_a_model() -> None:
    assert matrix_beside(text("b", "c"), [], pa.string()) == ([], ["b", "c"])


@given(
    known=st.sets(st.integers(-5, 5)),
    weights=st.dictionaries(st.tuples(st.integers(1, 3), st.integers(-5, 5)), st.integers(1, 9)),
)
def test_no_weight_is_lost_beside_a_model(
    known: set[int], weights: dict[tuple[int, int], int]
) -> None:
    rows = [(user, product, float(weight)) for (user, product), weight in weights.items()]
    others = {product for _, product in weights} - known
    matrix, ids = matrix_beside(np.array(sorted(known), np.int64), rows, pa.int64())
    assert ids == sorted(known) + sorted(others)
    users = sorted({user for user, _ in weights})
    found = {
        (user, product): weight
        for user, row in zip(users, matrix, strict=True)
        for product, weight in zip(ids, row, strict=True)
        if weight
    }
    assert found == weights
