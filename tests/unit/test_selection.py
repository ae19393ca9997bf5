"""Lists taken from scores as the shop wants them, by hand and against plain Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.learn.blending import top_n
from recsys_assets.publish.adjustments import as_ids
from recsys_assets.publish.merchandising import Action, Rule, Rules, Scope
from recsys_assets.publish.selection import Assortment, selection

TOP = Scope.TOP_BUYS
PRODUCTS = np.arange(9)


def assortment(
    blocked: set[int],
    pinned: list[int],
    boosts: dict[int, float],
    categories: list[int] | None,
    most: int,
    unavailable: set[int] = frozenset(),  # type: ignore[assignment]
) -> Assortment:
    rules = (
        *(Rule(TOP, None, product, Action.BLOCK, 0) for product in blocked),
        *(Rule(TOP, None, product, Action.PIN, 0) for product in pinned),
        *(Rule(TOP, None, product, Action.BOOST, weight) for product, weight in boosts.items()),
    )
    return Assortment(
        Rules(rules),
        as_ids(sorted(unavailable)),
        None if categories is None else most,
        lambda product_ids: np.array(categories)[product_ids],
    )


def test_where_nothing_is_wanted_the_best_are_taken() -> None:
    select, adjusted = selection(assortment(set(), [], {}, None, 1), TOP, PRODUCTS)
    assert select is top_n
    assert adjusted.product_ids is PRODUCTS


def test_lists_are_filled_from_further_down() -> None:
    wanted = assortment({0}, [8], {}, [0, 0, 0, 0, 0, 0, 1, 2, 2], 1)
    select, _ = selection(wanted, TOP, PRODUCTS)
    scores = np.array([[9, 8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8, 9]], np.float32)
    products, best = select(scores, 3, PRODUCTS)
    assert products.tolist() == [[8, 1, 6], [8, 7, 6]]
    assert best.tolist() == [[9, 8, 3], [9, 8, 7]]


def test_a_pin_takes_no_place_of_its_category() -> None:
    wanted = assortment(set(), [1], {}, [0, 0, 0, 0, 0, 1, 1, 1, 1], 2)
    select, _ = selection(wanted, TOP, PRODUCTS)
    scores = np.array([[9, 8, 7, 6, 5, 4, 3, 2, 1]], np.float32)
    products, _ = select(scores, 5, PRODUCTS)
    assert products.tolist() == [[1, 0, 2, 5, 6]]


@given(
    st.lists(st.lists(st.integers(-4, 4), min_size=9, max_size=9), max_size=4),
    st.sets(st.integers(0, 8)),
    st.sets(st.integers(0, 11)),
    st.permutations(range(12)),
    st.integers(0, 3),
    st.dictionaries(st.integers(0, 8), st.sampled_from([0.5, 2.0])),
    st.permutations(range(9)),
    st.none() | st.lists(st.integers(-1, 1), min_size=9, max_size=9),
    st.integers(1, 9),
)
def test_lists_as_plain_python_makes_them(
    values: list[list[int]],
    blocked: set[int],
    unavailable: set[int],
    pins: list[int],
    n_pins: int,
    boosts: dict[int, float],
    order: list[int],
    categories: list[int] | None,
    n: int,
) -> None:
    wanted = assortment(blocked, pins[:n_pins], boosts, categories, 2, unavailable)
    select, adjusted = selection(wanted, TOP, PRODUCTS)
    scores = np.array(values, np.float32).reshape(len(values), 9)
    products, best = select(scores, n, np.array(order))
    assert products.shape == best.shape == (len(values), n)
    left_out = blocked | unavailable
    pinned = [p for p in pins[:n_pins] if p not in left_out]
    for row, plain in enumerate(values):
        boosted = {
            p: s * boosts.get(p, 1) if s > 0 else s / boosts.get(p, 1)
            for p, s in enumerate(plain)
            if p not in left_out
        }
        ranked = sorted(boosted, key=lambda p: (-boosted[p], order.index(p)))
        if categories is not None:
            of = categories
            ranked = [p for p in ranked if p not in pinned]  # which do not count
            ranked = [
                p
                for at, p in enumerate(ranked)
                if of[p] == -1 or sum(of[q] == of[p] for q in ranked[:at]) < 2
            ]
        got = adjusted.product_ids[products[row][np.isfinite(best[row])]].tolist()
        assert got == (pinned + [p for p in ranked[:n] if p not in pinned])[:n]
        assert (np.diff(best[row][: len(got)]) <= 0).all()
