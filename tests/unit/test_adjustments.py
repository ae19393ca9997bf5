"""Scores and lists as the shop wants them, by hand and against plain Python."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.learn.matrix import Ids
from recsys_assets.publish.adjustments import (
    Adjustments,
    adjust_scores,
    adjustments,
    as_ids,
    place_pins,
)
from recsys_assets.publish.merchandising import Action, Rule, Rules, Scope

TOP = Scope.TOP_BUYS
EVERY_PRODUCT = [2, 3, 5, 7, 11]
NONE = as_ids([])


def rules(
    blocked: Collection[Any] = (),
    pinned: Collection[Any] = (),
    boosts: dict[Any, float] | None = None,
) -> Rules:
    """Rules for Top Buys, the pins best first."""
    return Rules(
        (
            *(Rule(TOP, None, product, Action.BLOCK, 0) for product in blocked),
            *(Rule(TOP, None, product, Action.PIN, 0) for product in pinned),
            *(Rule(TOP, None, product, Action.BOOST, w) for product, w in (boosts or {}).items()),
        )
    )


def test_wishes_by_position() -> None:
    wanted = rules(blocked=[3, 4], pinned=[11, 2], boosts={5: 2, 6: 3})
    adjusted = adjustments(wanted, TOP, as_ids([7, 8]), as_ids(EVERY_PRODUCT))
    assert adjusted.product_ids.tolist() == EVERY_PRODUCT
    assert adjusted.excluded.tolist() == [False, True, False, True, False]
    assert adjusted.multiplier.tolist() == [1, 1, 2, 1, 1]
    assert adjusted.multiplier.dtype == np.float32
    assert adjusted.pinned.tolist() == [4, 0]
    assert not adjusted.is_empty


def test_ids_may_be_texts_in_any_order() -> None:
    wanted = rules(blocked=["b"], pinned=["d", "c"], boosts={"a": 2})
    adjusted = adjustments(wanted, TOP, as_ids(["z"]), as_ids(["c", "z", "a", "b", "d"]))
    assert adjusted.excluded.tolist() == [False, True, False, True, False]
    assert adjusted.multiplier.tolist() == [1, 1, 2, 1, 1]
    assert adjusted.pinned.tolist() == [4, 0]


def test_what_nobody_has_bought_can_be_pinned() -> None:
    adjusted = adjustments(rules(pinned=[9, 3, 4]), TOP, as_ids([4]), as_ids(EVERY_PRODUCT))
    assert adjusted.product_ids.tolist() == [*EVERY_PRODUCT, 9]
    assert adjusted.pinned.tolist() == [5, 1]
    assert len(adjusted.excluded) == len(adjusted.multiplier) == 5


def test_pins_that_are_blocked_or_unavailable_are_none() -> None:
    adjusted = adjustments(
        rules(blocked=[3], pinned=[3, 5, 2]), TOP, as_ids([5]), as_ids(EVERY_PRODUCT)
    )
    assert adjusted.pinned.tolist() == [0]


@pytest.mark.parametrize(
    ("wanted", "unavailable"),
    [
        (rules(), []),
        (rules(blocked=[4], boosts={4: 2, 3: 1}), [4, 12]),
        (Rules((Rule(Scope.BUY_AGAIN, None, 3, Action.BLOCK, 0),)), []),
    ],
)
def test_where_nothing_is_wanted_of_the_products(wanted: Rules, unavailable: list[int]) -> None:
    assert adjustments(wanted, TOP, as_ids(unavailable), as_ids(EVERY_PRODUCT)).is_empty


@pytest.mark.parametrize(
    ("wanted", "unavailable"),
    [
        (rules(blocked=[3]), []),
        (rules(pinned=[99]), []),
        (rules(boosts={3: 0.5}), []),
        (rules(), [3]),
    ],
)
def test_where_something_is_wanted(wanted: Rules, unavailable: list[int]) -> None:
    assert not adjustments(wanted, TOP, as_ids(unavailable), as_ids(EVERY_PRODUCT)).is_empty


def test_without_products_there_are_only_pins() -> None:
    empty = np.empty(0, np.int64)
    assert adjustments(rules(blocked=[1], boosts={2: 2}), TOP, as_ids([3]), empty).is_empty
    assert adjustments(rules(pinned=["a"]), TOP, NONE, empty).product_ids.tolist() == ["a"]


# --- Scores


def test_scores_are_boosted_and_excluded() -> None:
    scores = np.array(
        [[1, 1, 4, 4, 1], [-1, -1, -4, -4, 0], [0, -np.inf, -np.inf, 2, 2]], np.float32
    )
    adjusted = Adjustments(
        as_ids(EVERY_PRODUCT),
        np.array([True, False, False, False, False]),
        np.array([1, 1, 2, 0.5, 2], np.float32),
        np.empty(0, np.int64),
    )
    adjust_scores(scores, adjusted)
    assert scores.tolist() == [
        [-np.inf, 1, 8, 2, 2],
        [-np.inf, -1, -2, -8, 0],
        [-np.inf, -np.inf, -np.inf, 1, 4],
    ]


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=8),
    st.floats(1, 1000, width=32),
    st.booleans(),
)
def test_a_boost_above_one_makes_no_product_worse(
    values: list[float], boost: float, below: bool
) -> None:
    scores = np.array([values], np.float32)
    before = scores.copy()
    multiplier = np.full(len(values), 1 / boost if below else boost, np.float32)
    adjusted = Adjustments(
        np.arange(len(values)), np.zeros(len(values), bool), multiplier, np.empty(0, np.int64)
    )
    adjust_scores(scores, adjusted)
    worse, better = (before, scores) if not below else (scores, before)
    assert (worse <= better).all()


# --- Pins


def test_pins_come_first_and_the_length_stays() -> None:
    products = np.array([[4, 2, 7, 1], [1, 7, 2, 9]])
    scores = np.array([[5, 4, 3, 2], [1, 0.5, -1, -2]], np.float32)
    placed, values = place_pins(products, scores, np.array([7, 8]))
    assert placed.tolist() == [[7, 8, 4, 2], [7, 8, 1, 2]]
    assert values.tolist() == [[7, 6, 5, 4], [3, 2, 1, -1]]
    assert values.dtype == np.float32
    assert products[0].tolist() == [4, 2, 7, 1]


def test_pins_come_into_lists_that_have_ended() -> None:
    products = np.array([[4, 0, 0], [0, 0, 0]])
    scores = np.array([[5, -np.inf, -np.inf], [-np.inf] * 3], np.float32)
    placed, values = place_pins(products, scores, np.array([0]))
    assert placed[:, 0].tolist() == [0, 0]
    assert placed[0, 1] == 4
    assert values.tolist() == [[6, 5, -np.inf], [1, -np.inf, -np.inf]]


def test_a_pin_is_in_a_list_once_whatever_stands_behind_its_end() -> None:
    products, scores = np.array([[0, 1, 0]]), np.array([[2, 1, -np.inf]], np.float32)
    placed, values = place_pins(products, scores, np.array([0]))
    assert placed[0, :2].tolist() == [0, 1]
    assert values.tolist() == [[2, 1, -np.inf]]


@st.composite
def ranked_lists(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    n = draw(st.integers(1, 6))
    one = st.permutations(range(9)).map(lambda order: order[:n])
    return draw(st.lists(one, min_size=1, max_size=4)), draw(st.permutations(range(9)))[
        : draw(st.integers(0, 8))
    ]


@given(ranked_lists())
def test_pins_as_plain_python_places_them(given_: tuple[list[list[int]], list[int]]) -> None:
    lists, pinned = given_
    n = len(lists[0])
    products = np.array(lists)
    scores = np.tile(np.arange(n, 0, -1, dtype=np.float32), (len(lists), 1))
    placed, values = place_pins(products, scores, np.array(pinned, np.int64))
    expected = [(pinned + [p for p in best if p not in pinned])[:n] for best in lists]
    assert placed.tolist() == expected
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=1) < 0).all()


def test_ids_keep_their_order_and_kind() -> None:
    cases: list[tuple[list[Any], Any]] = [([3, 1], np.int64), (["b", "a"], object)]
    for values, dtype in cases:
        ids: Ids = as_ids(values)
        assert (ids.tolist(), ids.dtype) == (values, dtype)
