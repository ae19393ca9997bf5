"""Bought Together as the shop wants it, by hand and against plain Python."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys_assets.learn.rules import TopConsequents
from recsys_assets.publish.adjusted_pairings import adjust_pairings
from recsys_assets.publish.adjustments import as_ids
from recsys_assets.publish.diversity import CategoryCap
from recsys_assets.publish.merchandising import Action, Rule, Rules, Scope

TOGETHER, EVERYWHERE = Scope.BOUGHT_TOGETHER, Scope.EVERYWHERE
Lists = dict[Any, list[tuple[Any, float]]]

PRODUCTS = as_ids([10, 20, 30, 40])
MINED: Lists = {
    10: [(20, 8.0), (30, 4.0), (40, 2.0)],
    20: [(10, 8.0)],
    40: [(10, 2.0), (30, 1.0)],
}


def top_of(lists: Lists, ids: Any) -> TopConsequents:
    position = {product: at for at, product in enumerate(ids.tolist())}
    rows = [lists.get(product, []) for product in ids.tolist()]
    flat = [pairing for row in rows for pairing in row]
    return TopConsequents(
        np.cumsum([0, *map(len, rows)]),
        np.array([position[product] for product, _ in flat], np.int32),
        np.array([strength for _, strength in flat], np.float64),
        100 + np.arange(len(flat)),
    )


def lists_of(top: TopConsequents, ids: Any) -> Lists:
    return {
        ids[product]: [
            (ids[top.consequents[row]], top.strengths[row])
            for row in range(top.indptr[product], top.indptr[product + 1])
        ]
        for product in range(len(ids))
        if top.indptr[product] < top.indptr[product + 1]
    }


def adjust(*rules: Rule, unavailable: Any = (), n: int = 9, **options: Any) -> Lists:
    top, ids = adjust_pairings(
        top_of(MINED, PRODUCTS), Rules(rules), as_ids(unavailable), PRODUCTS, n, **options
    )
    return lists_of(top, ids)


def test_without_rules_lists_are_cut() -> None:
    assert adjust() == MINED
    assert adjust(n=1) == {10: [(20, 8)], 20: [(10, 8)], 40: [(10, 2)]}


def test_what_is_blocked_or_unavailable_is_in_no_list() -> None:
    assert adjust(Rule(EVERYWHERE, None, 10, Action.BLOCK, 0), unavailable=[30]) == {
        10: [(20, 8), (40, 2)]
    }


def test_a_boost_changes_the_order() -> None:
    boost = Rule(TOGETHER, None, 30, Action.BOOST, 4)
    assert adjust(boost, n=2) == {
        10: [(30, 16), (20, 8)],
        20: [(10, 8)],
        40: [(30, 4), (10, 2)],
    }


def test_a_pin_comes_first_in_every_list_but_its_own() -> None:
    assert adjust(
        Rule(TOGETHER, None, 20, Action.PIN, 1), Rule(EVERYWHERE, None, 99, Action.PIN, 2), n=3
    ) == {
        10: [(99, 6), (20, 5), (30, 4)],
        20: [(99, 10), (10, 8)],  # place 0 of 2, of which the other would be 20 itself
        40: [(99, 4), (20, 3), (10, 2)],
    }


def test_rules_for_one_list_change_that_list() -> None:
    assert adjust(
        Rule(TOGETHER, 10, 20, Action.BLOCK, 0),
        Rule(TOGETHER, 10, 40, Action.BOOST, 8),
        Rule(TOGETHER, 40, 20, Action.PIN, 0),
        Rule(TOGETHER, 30, 20, Action.PIN, 0),
        Rule(TOGETHER, 77, 20, Action.PIN, 0),
        Rule(TOGETHER, 78, 20, Action.BLOCK, 0),
    ) == {
        10: [(40, 16), (30, 4)],
        20: [(10, 8)],
        30: [(20, 1)],
        40: [(20, 3), (10, 2), (30, 1)],
        77: [(20, 1)],
    }


def test_pins_keep_the_rule_they_were_mined_by() -> None:
    pins = Rules(
        (
            Rule(TOGETHER, 10, 40, Action.PIN, 1),
            Rule(TOGETHER, 10, 77, Action.PIN, 0),
        )
    )
    top, ids = adjust_pairings(top_of(MINED, PRODUCTS), pins, as_ids([]), PRODUCTS, 4)
    assert ids.tolist() == [10, 20, 30, 40, 77]
    assert top.indptr.tolist() == [0, 4, 5, 5, 7, 7]
    assert top.rules.tolist() == [102, -1, 100, 101, 103, 104, 105]


def test_pins_that_are_unavailable_are_left_out() -> None:
    assert adjust(Rule(TOGETHER, None, 99, Action.PIN, 0), unavailable=[99]) == MINED


def test_pins_do_not_count_to_their_category() -> None:
    cap = CategoryCap(np.array([0, 0, 0, 0]), 1)
    assert adjust(Rule(TOGETHER, 10, 40, Action.PIN, 0), cap=cap) == {
        10: [(40, 9), (20, 8)],
        20: [(10, 8)],
        40: [(10, 2)],
    }


def test_ids_may_be_texts() -> None:
    ids = as_ids(["a", "b"])
    pins = Rules(
        (Rule(TOGETHER, "zz", "a", Action.PIN, 0), Rule(TOGETHER, None, "c", Action.PIN, 0))
    )
    top, all_ids = adjust_pairings(top_of({"a": [("b", 2.0)]}, ids), pins, as_ids(["x"]), ids, 5)
    assert lists_of(top, all_ids) == {"a": [("c", 3), ("b", 2)], "zz": [("c", 2), ("a", 1)]}


def test_no_lists_at_all() -> None:
    empty = np.empty(0, np.int64)
    top, ids = adjust_pairings(top_of({}, empty), Rules(), as_ids([]), empty, 5)
    assert (lists_of(top, ids), top.indptr.tolist()) == ({}, [0])


products = st.integers(0, 5)
rule = st.builds(
    Rule,
    st.sampled_from([EVERYWHERE, TOGETHER]),
    st.none(),
    st.integers(0, 7),
    st.sampled_from(Action),
    st.sampled_from([0.5, 2.0, 4.0]),
)
own_rule = st.builds(
    Rule,
    st.just(TOGETHER),
    st.integers(0, 7),
    st.integers(0, 7),
    st.sampled_from(Action),
    st.sampled_from([0.5, 2.0, 4.0]),
)


def plain(
    mined: Lists, rules: Rules, unavailable: set[int], n: int, categories: list[int], most: int
) -> Lists:
    """The lists that are wanted, in plain Python."""
    lists = {}
    for product in {*mined, *rules.owners}:
        wishes = rules.of(TOGETHER, product)
        if product not in mined and product not in rules.owners:
            continue
        pins = [p for p in wishes.pinned if p not in unavailable and p != product]
        others = [
            (p, strength * wishes.boosts.get(p, 1))
            for p, strength in mined.get(product, [])
            if p not in unavailable and p not in wishes.blocked and p not in pins
        ]
        others.sort(key=lambda pairing: -pairing[1])
        seen: Counter[int] = Counter()
        kept = []
        for p, strength in others:
            seen[categories[p]] += 1
            if categories[p] == -1 or seen[categories[p]] <= most:
                kept.append((p, strength))
        best = [p for p, _ in kept]
        if (pins + best)[:n]:
            lists[product] = (pins + best)[:n]
    return lists


@example(  # an owner without pins, and not among the products
    mined={5: {0: 1.0, 1: 2.0}},
    rules=[
        Rule(Scope.EVERYWHERE, None, 0, Action.PIN, 0.5),
        Rule(Scope.BOUGHT_TOGETHER, 6, 0, Action.BLOCK, 0.5),
    ],
    unavailable=set(),
    n=1,
    categories=[0] * 6,
    most=1,
)
@given(
    st.dictionaries(products, st.dictionaries(products, st.sampled_from([1.0, 2.0, 3.0, 5.0]))),
    st.lists(rule | own_rule, max_size=6),
    st.sets(st.integers(0, 7), max_size=3),
    st.integers(1, 6),
    st.lists(st.integers(-1, 1), min_size=6, max_size=6),
    st.integers(1, 3),
)
@pytest.mark.parametrize("texts", [False, True])
def test_lists_as_plain_python_makes_them(
    texts: bool,
    mined: dict[int, dict[int, float]],
    rules: list[Rule],
    unavailable: set[int],
    n: int,
    categories: list[int],
    most: int,
) -> None:
    lists = {
        product: sorted(
            ((p, s) for p, s in pairings.items() if p != product), key=lambda pairing: -pairing[1]
        )
        for product, pairings in mined.items()
    }
    lists = {product: pairings for product, pairings in lists.items() if pairings}
    expected = plain(lists, Rules(tuple(rules)), unavailable, n, categories, most)

    def id_(product: Any) -> Any:
        return str(product) if texts and product is not None else product

    ids = as_ids([id_(product) for product in range(6)])
    named = {id_(p): [(id_(q), s) for q, s in pairings] for p, pairings in lists.items()}
    top, all_ids = adjust_pairings(
        top_of(named, ids),
        Rules(tuple(r._replace(owner=id_(r.owner), product_id=id_(r.product_id)) for r in rules)),
        as_ids([id_(product) for product in sorted(unavailable)]),
        ids,
        n,
        CategoryCap(np.array(categories), most),
    )
    got = lists_of(top, all_ids)
    assert {p: [q for q, _ in pairings] for p, pairings in got.items()} == {
        id_(p): [id_(q) for q in best] for p, best in expected.items()
    }
    for pairings in got.values():
        strengths = [strength for _, strength in pairings]
        assert strengths == sorted(strengths, reverse=True)
        assert np.isfinite(strengths).all()
