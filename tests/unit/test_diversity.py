"""The cap on categories, by hand and against plain Python."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.publish.diversity import cap_per_category, within_cap

INF = np.inf


def test_no_more_than_so_many_of_a_category() -> None:
    categories = np.array([0, 0, 0, 1, 1, -1, -1, -1])
    products = np.array([[0, 1, 2, 3, 5, 6], [5, 6, 7, 4, 3, 0]])
    scores = np.array([[6, 5, 4, 3, 2, 1]] * 2, np.float32)
    capped = cap_per_category(products, scores, categories, most=1, n=4)
    assert capped.products.tolist() == [[0, 3, 5, 6], [5, 6, 7, 4]]
    assert capped.scores.tolist() == [[6, 3, 2, 1], [6, 5, 4, 3]]
    assert capped.scores.dtype == np.float32
    assert capped.is_short.tolist() == [False, False]


def test_a_list_that_wants_more_candidates_is_told_from_one_that_has_ended() -> None:
    categories = np.array([0, 0, 0, 1])
    products = np.array([[0, 1, 2], [0, 1, 0], [0, 3, 1]])
    scores = np.array([[3, 2, 1], [3, 2, -INF], [3, 2, 1]])
    capped = cap_per_category(products, scores, categories, most=1, n=2)
    assert capped.scores.tolist() == [[3, -INF], [3, -INF], [3, 2]]
    assert capped.products[:, 0].tolist() == [0, 0, 0]
    assert capped.is_short.tolist() == [True, False, False]


def test_what_is_no_candidate_takes_no_place() -> None:
    """Lists end in products of score minus infinity, which may repeat one that is in the list."""
    products, scores = np.array([[1, 0, 0]]), np.array([[1, -INF, -INF]])
    capped = cap_per_category(products, scores, np.array([0, 0]), most=2, n=3)
    assert capped.scores.tolist() == [[1, -INF, -INF]]


def test_no_entries_and_no_categories() -> None:
    empty = np.empty(0, np.int64)
    assert within_cap(empty, empty, 1).tolist() == []
    assert within_cap(np.array([0, 0]), np.array([-1, -1]), 1).tolist() == [True, True]
    assert cap_per_category(
        np.empty((0, 3), np.int64), np.empty((0, 3)), empty, 1, 2
    ).products.shape == (0, 2)


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[int]]:
    """Ranked candidates, how many of each list there are, and the products' categories."""
    size = draw(st.integers(1, 8))
    one = st.permutations(range(10)).map(lambda order: order[:size])
    lists = draw(st.lists(one, min_size=1, max_size=4))
    lengths = [draw(st.integers(0, size)) for _ in lists]
    return lists, lengths, draw(st.lists(st.integers(-1, 3), min_size=10, max_size=10))


@given(candidates(), st.integers(1, 4), st.data())
def test_the_cap_as_plain_python_applies_it(
    given_: tuple[list[list[int]], list[int], list[int]], most: int, data: st.DataObject
) -> None:
    lists, lengths, categories = given_
    size = len(lists[0])
    n = data.draw(st.integers(1, size))
    scores = np.tile(np.arange(size, 0, -1.0), (len(lists), 1))
    for scored, length in zip(scores, lengths, strict=True):
        scored[length:] = -INF
    capped = cap_per_category(np.array(lists), scores, np.array(categories), most, n)
    for row, (best, length) in enumerate(zip(lists, lengths, strict=True)):
        seen: Counter[int] = Counter()
        expected = []
        for product in best[:length]:
            category = categories[product]
            seen[category] += 1
            if category == -1 or seen[category] <= most:
                expected.append(product)
        got = capped.products[row][np.isfinite(capped.scores[row])].tolist()
        assert got == expected[:n]
        assert capped.is_short[row] == (len(expected) < n and length == size)
        assert [scores[row][best.index(product)] for product in got] == [
            score for score in capped.scores[row] if np.isfinite(score)
        ]
