"""What products without a rule get from their category: by hand, and beside plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.learn.borrowing import Borrowed, borrow
from recsys_assets.learn.rules import TopConsequents

APPLE, PEAR, QUINCE, CHEESE, WINE, TEA = range(6)
FRUIT, DRINK = 0, 1
CATEGORIES = np.array([FRUIT, FRUIT, FRUIT, -1, DRINK, DRINK])
ORDERS = np.array([9, 8, 1, 7, 0, 2])

Pairings = list[tuple[int, float]]


def top_of(lists: list[Pairings]) -> TopConsequents:
    """The lists as rules would give them, each from a rule of its own."""
    pairings = [pairing for each in lists for pairing in each]
    return TopConsequents(
        indptr=np.cumsum([0, *map(len, lists)]),
        consequents=np.array([product for product, _ in pairings], np.int32),
        strengths=np.array([strength for _, strength in pairings], np.float64),
        rules=np.arange(len(pairings)),
    )


def lists_of(borrowed: Borrowed) -> list[Pairings]:
    top = borrowed.top
    pairings = list(zip(top.consequents.tolist(), top.strengths.tolist(), strict=True))
    return [pairings[a:b] for a, b in zip(top.indptr[:-1], top.indptr[1:], strict=True)]


def test_a_quince_gets_what_goes_with_fruit() -> None:
    lists: list[Pairings] = [
        [(CHEESE, 0.9), (PEAR, 0.4)],  # apple
        [(APPLE, 0.4), (CHEESE, 0.3), (QUINCE, 0.2)],  # pear
        [],  # quince
        [(APPLE, 0.9), (PEAR, 0.3)],  # cheese
        [],  # wine, which was not sold
        [],  # tea, in whose category nothing has a list
    ]
    found = borrow(top_of(lists), CATEGORIES, ORDERS, 3)
    # Fruit: cheese (0.9 + 0.3) / 2, apple and pear 0.4 / 2, and the quince itself 0.2 / 2.
    assert lists_of(found) == [
        *lists[:2],
        [(CHEESE, pytest.approx(0.6)), (APPLE, pytest.approx(0.2)), (PEAR, pytest.approx(0.2))],
        *lists[3:],
    ]
    assert found.borrowed.tolist() == [False, False, True, False, False, False]
    assert found.top.rules.tolist() == [0, 1, 2, 3, 4, -1, -1, -1, 5, 6]
    assert lists_of(borrow(top_of(lists), CATEGORIES, ORDERS, 1))[QUINCE] == [
        (CHEESE, pytest.approx(0.6))
    ]


def test_a_product_is_not_in_its_own_list() -> None:
    lists: list[Pairings] = [[(QUINCE, 0.9), (CHEESE, 0.1)], [], [], [], [], []]
    found = lists_of(borrow(top_of(lists), CATEGORIES, ORDERS, 1))
    assert found[QUINCE] == [(CHEESE, 0.1)]
    assert found[PEAR] == [(QUINCE, 0.9)]


def test_what_is_excluded_makes_room_for_others() -> None:
    lists: list[Pairings] = [[(CHEESE, 0.9), (TEA, 0.5), (WINE, 0.1)], [], [], [], [], []]
    excluded = np.isin(np.arange(6), [CHEESE, TEA])
    found = lists_of(borrow(top_of(lists), CATEGORIES, ORDERS, 1, excluded))
    assert found[APPLE] == lists[APPLE]
    assert found[PEAR] == [(WINE, 0.1)]


def test_who_would_only_find_itself_gets_no_list() -> None:
    lists: list[Pairings] = [[(QUINCE, 0.9)], [], [], [], [], []]
    found = borrow(top_of(lists), CATEGORIES, ORDERS, 5)
    assert lists_of(found)[QUINCE] == []
    assert found.borrowed.tolist() == [False, True, False, False, False, False]


def test_without_categories_or_lists_nothing_is_borrowed() -> None:
    lists: list[Pairings] = [[(CHEESE, 0.9)], [], [], [], [], []]
    none = np.full(6, -1)
    for top, categories in ((top_of(lists), none), (top_of([[]] * 6), CATEGORIES)):
        found = borrow(top, categories, ORDERS, 5)
        assert not found.borrowed.any()
        assert found.top.indptr.tolist() == top.indptr.tolist()
        assert found.top.consequents.tolist() == top.consequents.tolist()


def test_a_category_for_each_product_is_needed() -> None:
    with pytest.raises(ValueError, match="5 categories and 6 numbers of orders for 6 products"):
        borrow(top_of([[]] * 6), CATEGORIES[:5], ORDERS, 5)


@st.composite
def shops(draw: st.DrawFn) -> tuple[list[Pairings], list[int], list[int], int, list[bool]]:
    n = draw(st.integers(1, 9))
    lists = []
    for product in range(n):
        others = [other for other in range(n) if other != product]
        chosen = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
        # Powers of two, so that equal means are equal in floating point.
        strengths = sorted((2.0 ** draw(st.integers(-3, 3)) for _ in chosen), reverse=True)
        lists.append(list(zip(chosen, strengths, strict=True)) * draw(st.integers(0, 1)))
    numbers = st.lists(st.integers(-1, 2), min_size=n, max_size=n)
    orders = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    excluded = st.lists(st.booleans(), min_size=n, max_size=n)
    return lists, draw(numbers), draw(orders), draw(st.integers(1, 4)), draw(excluded)


@settings(max_examples=200, deadline=None)
@given(shop=shops())
def test_borrowed_lists_are_those_of_a_plain_implementation(
    shop: tuple[list[Pairings], list[int], list[int], int, list[bool]],
) -> None:
    lists, categories, orders, top_n, excluded = shop
    found = borrow(top_of(lists), np.array(categories), np.array(orders), top_n, np.array(excluded))
    for product, borrowed in enumerate(lists_of(found)):
        category = categories[product]
        if lists[product] or not orders[product] or category < 0:
            assert borrowed == lists[product]
            assert not found.borrowed[product]
            continue
        members = [
            dict(each) for each, c in zip(lists, categories, strict=True) if each and c == category
        ]
        means = {
            other: sum(member.get(other, 0.0) for member in members) / len(members)
            for other in {other for member in members for other in member} - {product}
            if not excluded[other]
        }
        expected = sorted(means.values(), reverse=True)[:top_n]
        assert [strength for _, strength in borrowed] == pytest.approx(expected)
        for other, strength in borrowed:
            assert strength == pytest.approx(means[other])
        assert len(dict(borrowed)) == len(borrowed)
        assert found.borrowed[product] == bool(expected)
