"""Baskets, itemsets, rules and lists, against numbers worked out by hand and against mlxtend."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.learn.baskets import Baskets, baskets_from_lines
from recsys_assets.learn.itemsets import Engine, Itemsets, frequent_itemsets
from recsys_assets.learn.rules import rules_from_itemsets, top_consequents

# Five orders. Orders per product: bread 4, butter 4, jam 2, milk 2.
BREAKFASTS = [
    ["bread", "butter"],
    ["jam", "bread", "butter"],
    ["jam", "bread"],
    ["milk", "butter"],
    ["milk", "bread", "butter"],
]
BREAD, BUTTER, JAM, MILK = range(4)
PAIR_ORDERS: dict[tuple[int, ...], int] = {
    (BREAD, BUTTER): 3,
    (BREAD, JAM): 2,
    (BREAD, MILK): 1,
    (BUTTER, JAM): 1,
    (BUTTER, MILK): 2,
}


def gathered(orders: Sequence[Sequence[str | int]], **sizes: int) -> Baskets:
    lines = [(number, product) for number, order in enumerate(orders) for product in order]
    order_ids = np.array([number for number, _ in lines], np.int64)
    product_ids = pa.array([product for _, product in lines], None if lines else pa.int64())
    return baskets_from_lines(order_ids, product_ids, **sizes)[0]


def as_dict(itemsets: Itemsets) -> dict[tuple[int, ...], int]:
    return {
        tuple(row): count
        for members, orders in zip(itemsets.members, itemsets.orders, strict=True)
        for row, count in zip(members.tolist(), orders.tolist(), strict=True)
    }


# --- Baskets


def test_lines_become_baskets_of_distinct_products() -> None:
    orders = pa.chunked_array([[7, 7, 7, 9], [9, 8, 7, 5, 5, 5]])
    products = pa.chunked_array([["b", "a", "b", "c"], ["a", "a", "b", "a", "b", "c"]])

    baskets, counts = baskets_from_lines(orders, products, min_products=2, max_products=2)

    assert baskets.product_ids.tolist() == ["a", "b", "c"]
    assert baskets.matrix.toarray().tolist() == [[1, 1, 0], [1, 0, 1]]
    assert baskets.matrix.dtype == np.int8
    assert (counts.lines, counts.repeated_lines) == (10, 2)
    assert (counts.orders, counts.baskets, counts.too_small, counts.too_large) == (4, 2, 1, 1)


@pytest.mark.parametrize(
    "ids",
    [
        np.array([30, 10, 30, 20]),
        pa.array([30, 10, 30, 20]),
        np.array(["y", "é", "y", "x"]),
        np.array(["y", "é", "y", "x"], dtype=object),
        pa.array(["y", "é", "y", "x"]),
        pa.array(["y", "é", "y", "x"], pa.large_string()),
    ],
    ids=lambda ids: f"{type(ids).__module__}-{getattr(ids, 'dtype', None) or ids.type}",
)
def test_ids_come_back_as_they_went_in(ids: Any) -> None:
    baskets, _ = baskets_from_lines(np.array([1, 1, 2, 2]), ids)
    expected = [10, 20, 30] if baskets.product_ids.dtype == np.int64 else ["x", "y", "é"]
    assert baskets.product_ids.tolist() == expected


def test_text_order_ids_group_lines_too() -> None:
    baskets, _ = baskets_from_lines(pa.array(["o2", "o1", "o2"]), np.array([1, 1, 2]))
    assert baskets.matrix.toarray().tolist() == [[1, 1]]


def test_more_repeats_of_a_line_than_an_int8_holds_are_one_product() -> None:
    baskets, counts = baskets_from_lines(np.ones(513, np.int64), np.r_[np.full(512, 4), 6])
    assert baskets.matrix.toarray().tolist() == [[1, 1]]
    assert counts.repeated_lines == 511


@pytest.mark.parametrize(
    ("orders", "products", "sizes", "message"),
    [
        ([1, 2], [1], {}, "2 order ids for 1 product ids"),
        ([1, None], [1, 2], {}, "1 lines have no order id"),
        ([1, 1], [None, None], {}, "2 lines have no product id"),
        ([1, 1], [1, 2], {"min_products": 3, "max_products": 2}, "no basket has 3 to 2 products"),
    ],
)
def test_bad_lines_are_named(
    orders: list[int], products: list[int], sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        baskets_from_lines(pa.array(orders), pa.array(products), **sizes)


def test_baskets_check_their_matrix() -> None:
    matrix = gathered(BREAKFASTS).matrix
    with pytest.raises(ValueError, match="4 columns for 3 product ids"):
        Baskets(matrix, np.arange(3))


# --- Itemsets


@pytest.mark.parametrize("engine", get_args(Engine))
def test_pairs_of_the_breakfasts(engine: Engine) -> None:
    found = frequent_itemsets(gathered(BREAKFASTS), min_orders=1, engine=engine)
    assert as_dict(found) == {(BREAD,): 4, (BUTTER,): 4, (JAM,): 2, (MILK,): 2, **PAIR_ORDERS}
    assert found.product_orders.tolist() == [4, 4, 2, 2]
    assert found.n_orders == 5
    assert all(members.dtype == np.int32 for members in (*found.members, *found.orders))


@given(
    orders=st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=25),
    min_orders=st.integers(1, 5),
    max_size=st.integers(1, 2),
)
def test_both_engines_find_the_same(
    orders: list[list[int]], min_orders: int, max_size: int
) -> None:
    baskets = gathered(orders, min_products=0)  # repeated lines and empty results are among them

    def found(engine: Engine) -> dict[tuple[int, ...], int]:
        return as_dict(
            frequent_itemsets(
                baskets, min_orders=min_orders, engine=engine, max_itemset_size=max_size
            )
        )

    assert found("sparse") == found("mlxtend")


@pytest.mark.parametrize(
    ("n_orders", "min_support", "least"),
    [(100, 0.07, 7), (100, 0.071, 8), (3, 1.0, 3), (3, 1e-9, 1), (3, 1 / 3, 1), (3, 0.34, 2)],
)
def test_min_support_is_the_least_count_with_that_share(
    n_orders: int, min_support: float, least: int
) -> None:
    baskets = gathered([[1, 2]] * n_orders)
    assert frequent_itemsets(baskets, min_support=min_support).min_orders == least


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_itemset_size": 2}, "exactly one of min_orders"),
        ({"min_orders": 1, "min_support": 0.5}, "exactly one of min_orders"),
        ({"min_orders": 0}, "min_orders is 0"),
        ({"min_support": 0.0}, "min_support is 0.0"),
        ({"min_support": 1.5}, "min_support is 1.5"),
        ({"min_orders": 1, "max_itemset_size": 0}, "max_itemset_size is 0"),
        ({"min_orders": 1, "max_itemset_size": 3}, 'engine="mlxtend" does'),
        ({"min_orders": 1, "engine": "spark"}, "engine is 'spark'; there are sparse, mlxtend"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frequent_itemsets(gathered(BREAKFASTS), **arguments)  # type: ignore[arg-type]


# --- Rules


def test_measures_of_the_breakfasts() -> None:
    rules = rules_from_itemsets(frequent_itemsets(gathered(BREAKFASTS), min_orders=2))
    by_name = {
        (rules.antecedents[row].tolist()[0], int(rules.consequent[row])): (
            int(rules.orders[row]),
            float(rules.support[row]),
            float(rules.confidence[row]),
            float(rules.lift[row]),
            float(rules.strength[row]),
        )
        for row in range(len(rules.orders))
    }
    # Expected by chance: bread and butter 4 * 4 / 5 = 3.2; bread and jam 4 * 2 / 5 = 1.6.
    assert by_name == {
        (BREAD, BUTTER): pytest.approx((3, 0.6, 0.75, 3 / 3.2, 3 / 13.2)),
        (BUTTER, BREAD): pytest.approx((3, 0.6, 0.75, 3 / 3.2, 3 / 13.2)),
        (BREAD, JAM): pytest.approx((2, 0.4, 0.5, 1.25, 2 / 11.6)),
        (JAM, BREAD): pytest.approx((2, 0.4, 1.0, 1.25, 2 / 11.6)),
        (BUTTER, MILK): pytest.approx((2, 0.4, 0.5, 1.25, 2 / 11.6)),
        (MILK, BUTTER): pytest.approx((2, 0.4, 1.0, 1.25, 2 / 11.6)),
    }
    assert rules.antecedents.shape == (6, 1)
    assert (rules.n_orders, rules.shrinkage) == (5, 10.0)


def test_rules_with_several_antecedents() -> None:
    itemsets = frequent_itemsets(
        gathered(BREAKFASTS), min_orders=1, engine="mlxtend", max_itemset_size=3
    )
    rules = rules_from_itemsets(itemsets, shrinkage=2.0)
    rows = {
        (tuple(antecedents), consequent): row
        for row, (antecedents, consequent) in enumerate(
            zip(rules.antecedents.tolist(), rules.consequent.tolist(), strict=True)
        )
    }
    assert len(rows) == len(rules.orders) == 2 * 5 + 3 * 2
    # Bread and butter: 3 orders, one of them with jam; by chance 3 * 2 / 5 = 1.2.
    row = rows[(BREAD, BUTTER), JAM]
    assert rules.orders[row] == 1
    assert rules.support[row] == pytest.approx(0.2)
    assert rules.confidence[row] == pytest.approx(1 / 3)
    assert rules.lift[row] == pytest.approx(1 / 1.2)
    assert rules.strength[row] == pytest.approx(1 / 3.2)
    # Butter and jam: 1 order, with bread; by chance 1 * 4 / 5 = 0.8.
    row = rows[(BUTTER, JAM), BREAD]
    assert rules.confidence[row] == pytest.approx(1.0)
    assert rules.lift[row] == pytest.approx(1.25)
    # One antecedent stands beside these, padded.
    assert rules.lift[rows[(BREAD, -1), JAM]] == pytest.approx(1.25)


def test_no_itemsets_give_no_rules_and_no_lists() -> None:
    rules = rules_from_itemsets(frequent_itemsets(gathered(BREAKFASTS), min_orders=5))
    assert rules.antecedents.shape == (0, 1)
    assert top_consequents(rules, 3).indptr.tolist() == [0, 0, 0, 0, 0]


def test_nothing_at_all_gives_no_rules() -> None:
    rules = rules_from_itemsets(frequent_itemsets(gathered([]), min_orders=1))
    assert len(rules.orders) == 0
    assert top_consequents(rules, 3).indptr.tolist() == [0]


def test_negative_shrinkage_is_refused() -> None:
    with pytest.raises(ValueError, match="shrinkage is -1"):
        rules_from_itemsets(frequent_itemsets(gathered(BREAKFASTS), min_orders=1), shrinkage=-1)


# --- Lists


def test_strongest_consequents_come_first() -> None:
    rules = rules_from_itemsets(frequent_itemsets(gathered(BREAKFASTS), min_orders=1))
    lists = top_consequents(rules, top_n=2)
    # Strengths: bread-butter 3/13.2, bread-jam and butter-milk 2/11.6, the others 1/11.6.
    assert [
        lists.consequents[a:b].tolist() for a, b in np.c_[lists.indptr[:-1], lists.indptr[1:]]
    ] == [
        [BUTTER, JAM],
        [BREAD, MILK],
        [BREAD, BUTTER],
        [BUTTER, BREAD],
    ]
    assert lists.strengths[:2] == pytest.approx([3 / 13.2, 2 / 11.6])
    assert np.array_equal(rules.strength[lists.rules], lists.strengths)
    assert np.array_equal(rules.consequent[lists.rules], lists.consequents)


def test_ties_go_to_more_orders_and_then_to_the_lower_product() -> None:
    # Product 0 is in all 6 orders, so that every rule from it has lift 1: with no shrinkage, a
    # four-way tie. Orders with 0: product 1 in one, 2 in two, 3 in two, 4 in one.
    orders = [[0, 1], [0, 2], [0, 2], [0, 3], [0, 3], [0, 4]]
    rules = rules_from_itemsets(frequent_itemsets(gathered(orders), min_orders=1), shrinkage=0)
    assert rules.lift.tolist() == [1.0] * 8
    lists = top_consequents(rules, top_n=3)
    assert lists.consequents[: lists.indptr[1]].tolist() == [2, 3, 1]
    assert top_consequents(rules, 9, min_orders=2).consequents[:2].tolist() == [2, 3]
    assert np.diff(top_consequents(rules, 9, min_orders=2).indptr).tolist() == [2, 0, 1, 1, 0]


def test_rules_with_several_antecedents_make_no_lists() -> None:
    baskets = gathered(BREAKFASTS)
    pairs = rules_from_itemsets(frequent_itemsets(baskets, min_orders=1))
    triples = rules_from_itemsets(
        frequent_itemsets(baskets, min_orders=1, engine="mlxtend", max_itemset_size=3)
    )
    ours, theirs = top_consequents(pairs, 3), top_consequents(triples, 3)
    assert theirs.consequents.tolist() == ours.consequents.tolist()
    assert theirs.indptr.tolist() == ours.indptr.tolist()
