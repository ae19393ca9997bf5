"""The backtest of Bought Together, by hand on the breakfasts and beside a plain implementation."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.evaluate import bought_together
from recsys_assets.evaluate.bought_together import (
    CART,
    CONFIDENCE,
    LIFT,
    ONE_PRODUCT,
    OURS,
    POPULARITY,
    Bestsellers,
    HeldOut,
    Lists,
    RuleLists,
    Score,
    backtest,
    cart_lists,
    hold_out,
    orderings,
    score,
)
from recsys_assets.learn.itemsets import frequent_itemsets
from recsys_assets.learn.rules import BasketRules, rules_from_itemsets, top_consequents
from tests.breakfasts import BREAD, BREAKFASTS, BUTTER, JAM, MILK, gathered


def rules_of(orders: list[list[str]] | list[list[int]], min_orders: int = 1) -> BasketRules:
    return rules_from_itemsets(frequent_itemsets(gathered(orders), min_orders=min_orders), 10.0)


def carts(*products: list[int], n_products: int = 4) -> csr_matrix:
    indptr = np.cumsum([0, *map(len, products)])
    columns = np.array([p for basket in products for p in sorted(basket)], np.int32)
    shape = (len(products), n_products)
    return csr_matrix((np.ones(len(columns), np.int8), columns, indptr), shape=shape)


def by_scope(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(each.name, each.scope): each for each in scores}


# --- By hand ------------------------------------------------------------------------------------

# Strengths n / (E + 10) of the breakfasts: bread-butter 3/13.2 = 0.227, bread-jam and butter-milk
# 2/11.6 = 0.172, bread-milk and butter-jam 1/11.6 = 0.086. So the lists are:
#   bread: butter, jam, milk     butter: bread, milk, jam
#   jam: bread, butter           milk: butter, bread


def test_lists_of_the_breakfasts_by_every_ordering() -> None:
    every = np.arange(4)
    lists = {name: of.of(every, 3)[0].tolist() for name, of in orderings(rules_of(BREAKFASTS))}
    assert lists[OURS] == [
        [BUTTER, JAM, MILK],
        [BREAD, MILK, JAM],
        [BREAD, BUTTER, -1],
        [BUTTER, BREAD, -1],
    ]
    # Bread and butter are in 4 orders, jam and milk in 2.
    assert lists[POPULARITY] == [
        [BUTTER, JAM, MILK],
        [BREAD, JAM, MILK],
        [BREAD, BUTTER, MILK],
        [BREAD, BUTTER, JAM],
    ]
    # Lifts: bread-butter 3/3.2, bread-jam and butter-milk 2/1.6, bread-milk and butter-jam 1/1.6.
    assert lists[LIFT] == [
        [JAM, BUTTER, MILK],
        [MILK, BREAD, JAM],
        [BREAD, BUTTER, -1],
        [BUTTER, BREAD, -1],
    ]
    assert lists[CONFIDENCE] == lists[OURS]


def test_what_nobody_bought_is_no_bestseller() -> None:
    lists, strengths = Bestsellers(np.array([0, 5, 0, 7])).of(np.array([0, 1]), 3)
    assert lists.tolist() == [[3, 1, -1], [3, -1, -1]]
    assert strengths.tolist() == [[7, 5, 0], [7, 0, 0]]


def test_strengths_stand_beside_the_lists() -> None:
    lists = dict(orderings(rules_of(BREAKFASTS)))
    _, strengths = lists[OURS].of(np.array([JAM]), 3)
    assert strengths == pytest.approx(np.array([[2 / 11.6, 1 / 11.6, 0]]))
    _, orders = lists[POPULARITY].of(np.array([JAM]), 4)
    assert orders.tolist() == [[4, 4, 2, 0]]


def test_one_product_of_held_out_baskets() -> None:
    # With min_orders=2 jam's list is bread alone, milk's butter alone, and bread and butter have
    # butter, jam and bread, milk.
    held_out = HeldOut(carts([JAM, MILK], [BREAD, JAM], [BREAD, BUTTER, MILK]), np.zeros(3), 3)
    scores = backtest(
        rules_of(BREAKFASTS, 2), replace(held_out, hidden=np.array([2, 2, 3])), seed=0
    )
    ours = by_scope(scores)[OURS, ONE_PRODUCT]
    # Jam and milk name neither other. Bread names jam second, jam bread first. In the third bread
    # names butter first, butter bread first, milk butter first.
    assert ours.values["hit rate@5"].tolist() == [0, 1, 1]
    assert ours.values["MRR@10"].tolist() == pytest.approx([0, (1 / 2 + 1) / 2, 1])
    assert ours.intervals["hit rate@5"].mean == pytest.approx(2 / 3)
    assert ours.intervals["hit rate@5"].low <= 2 / 3 <= ours.intervals["hit rate@5"].high


def test_a_cart_is_completed() -> None:
    held_out = HeldOut(
        carts([BREAD, BUTTER, JAM], [BUTTER, MILK], [JAM, MILK]), np.array([JAM, MILK, MILK]), 3
    )
    scores = by_scope(backtest(rules_of(BREAKFASTS), held_out, seed=0))
    # Bread and butter lead to jam and milk alike: sqrt(0.172**2 + 0.086**2); jam is the lower one.
    # Butter leads to bread, then to milk. Jam does not lead to milk.
    assert scores[OURS, CART].values["hit rate@10"].tolist() == [1, 1, 0]
    assert scores[OURS, CART].values["MRR@10"].tolist() == [1, 1 / 2, 0]
    # By popularity: jam, milk; bread, jam, milk; bread, butter, milk.
    assert scores[POPULARITY, CART].values["MRR@10"].tolist() == pytest.approx([1, 1 / 3, 1 / 3])
    assert scores[OURS, CART].figures == {}


def test_strengths_in_a_cart_are_joined_by_their_squares() -> None:
    top = top_consequents(rules_of(BREAKFASTS), 3)
    # A strong tie weighs more than two weak ones of the same sum: 3**2 > 2 * 2**2 > 1.5**2 * 2.
    weights = {(0, 2): 3.0, (0, 3): 2.0, (1, 3): 2.0, (0, 4): 1.5, (1, 4): 1.5}
    pairs = sorted(weights, key=lambda pair: (pair[0], -weights[pair]))
    lists = RuleLists(
        replace(
            top,
            indptr=np.array([0, 3, 5, 5, 5, 5]),
            consequents=np.array([c for _, c in pairs], np.int32),
            strengths=np.array([weights[pair] for pair in pairs]),
        )
    )
    assert cart_lists(lists, carts([0, 1], n_products=5), 4).tolist() == [[2, 3, 4, -1]]
    # The list of a cart of one is its own, and nothing in the cart is recommended.
    assert cart_lists(lists, carts([0], [0, 2], n_products=5), 2).tolist() == [[2, 3], [3, 4]]


def test_what_is_said_of_all_lists() -> None:
    # Tea was bought alone: it is in no basket.
    orders = [BREAKFASTS[0]] * 16 + BREAKFASTS + [["tea"]]
    scores = by_scope(
        backtest(
            rules_of(orders, 2), HeldOut(carts(n_products=5), np.array([], np.int64), 0), seed=0
        )
    )
    figures = scores[OURS, ONE_PRODUCT].figures
    # Lists: bread has butter and jam, butter has bread and milk, jam bread, milk butter. Of the
    # products in 20 orders, bread and butter, all have 2 of 10 places filled.
    assert figures["with a list"] == 1.0
    assert figures["fill rate@10"] == pytest.approx(0.2)
    assert figures["coverage@10"] == 1.0
    # Ranks: bread and butter 1.5, jam and milk 3.5; bread and butter are named twice each, jam and
    # milk once: (4 * 1.5 + 2 * 3.5) / 6, of 4 products.
    assert figures["popularity percentile"] == pytest.approx(100 * (1 - (13 / 6 - 1) / 4))
    assert scores[OURS, ONE_PRODUCT].intervals == scores[OURS, CART].intervals == {}


def test_products_without_a_list_are_misses_and_lower_the_fill_rate() -> None:
    rules = rules_of([["tea", "rusk"]] * 25 + [["egg", "salt"]] * 22, 23)
    egg, rusk, salt, tea = range(4)
    held_out = HeldOut(carts([rusk, tea], [egg, salt]), np.array([tea, salt]), 2)
    scores = by_scope(backtest(rules, held_out, seed=0))
    assert scores[OURS, ONE_PRODUCT].values["hit rate@5"].tolist() == [1, 0]
    assert scores[OURS, CART].values["hit rate@10"].tolist() == [1, 0]
    assert scores[OURS, ONE_PRODUCT].figures["with a list"] == pytest.approx(2 / 4)
    assert scores[OURS, ONE_PRODUCT].figures["fill rate@10"] == pytest.approx(2 / 40)


def test_no_rules_say_nothing() -> None:
    rules = rules_of(BREAKFASTS, 5)
    held_out = HeldOut(carts([BREAD, JAM]), np.array([JAM]), 1)
    scores = by_scope(backtest(rules, held_out, seed=0))
    assert scores[OURS, ONE_PRODUCT].values["hit rate@5"].tolist() == [0]
    assert scores[OURS, ONE_PRODUCT].figures == {}


# --- Held-out baskets ---------------------------------------------------------------------------


def test_held_out_baskets_keep_what_the_past_knows() -> None:
    later = gathered(
        [["butter", "tea", "jam"], ["tea", "bread"], ["milk", "jam"], ["bread", "butter", "milk"]]
    )
    held_out = hold_out(later, gathered(BREAKFASTS), seed=1)
    # Tea was never sold: the second basket has a single product left.
    assert held_out.baskets.toarray().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 1]]
    assert held_out.count == 3
    rows = np.arange(3)
    assert np.asarray(held_out.baskets[rows, held_out.hidden]).ravel().tolist() == [1, 1, 1]
    # Bread and butter were sold in four orders, jam and milk in two.
    often = hold_out(later, gathered(BREAKFASTS), min_orders=4, seed=1)
    assert often.baskets.toarray().tolist() == [[1, 1, 0, 0]]


def test_nothing_to_hold_out() -> None:
    past = gathered(BREAKFASTS)
    held_out = hold_out(gathered([["tea", "rusk"]]), past, seed=1)
    assert (held_out.baskets.shape, held_out.count, len(held_out.hidden)) == ((0, 4), 0, 0)


def test_a_sample_is_drawn_by_its_seed() -> None:
    past = gathered(BREAKFASTS)
    later = gathered([["bread", "butter", "jam"], ["milk", "jam"]] * 100)
    some = [hold_out(later, past, max_baskets=50, seed=seed) for seed in (1, 1, 2)]
    assert [(each.baskets.shape, each.count) for each in some] == [((50, 4), 200)] * 3
    assert np.array_equal(some[0].hidden, some[1].hidden)
    assert np.array_equal(some[0].baskets.toarray(), some[1].baskets.toarray())
    assert not np.array_equal(some[0].baskets.toarray(), some[2].baskets.toarray())
    # Every product of a basket is hidden now and then.
    assert set(some[0].hidden.tolist()) == {BREAD, BUTTER, JAM, MILK}


# --- Beside a plain implementation --------------------------------------------------------------

Orders = list[list[int]]


def plain_lists(rules: BasketRules, name: str, length: int) -> list[list[tuple[int, float]]]:
    """Each product's list: products and strengths."""
    n_products = len(rules.product_ids)
    if name == POPULARITY:
        orders = rules.product_orders.tolist()
        ranked = sorted((p for p in range(n_products) if orders[p]), key=lambda p: -orders[p])
        return [
            [(p, float(orders[p])) for p in ranked if p != product][:length]
            for product in range(n_products)
        ]
    strengths = {OURS: rules.strength, LIFT: rules.lift, CONFIDENCE: rules.confidence}[name]
    found: list[list[tuple[float, int, int]]] = [[] for _ in range(n_products)]
    for row, strength in enumerate(strengths.tolist()):
        antecedent, consequent = int(rules.antecedents[row, 0]), int(rules.consequent[row])
        found[antecedent].append((-strength, -int(rules.orders[row]), consequent))
    return [[(p, -minus) for minus, _, p in sorted(each)[:length]] for each in found]


def plain_cart_strengths(lists: list[list[tuple[int, float]]], cart: list[int]) -> dict[int, float]:
    squares: dict[int, list[float]] = defaultdict(list)
    for member in cart:
        for product, strength in lists[member]:
            if product not in cart:
                squares[product].append(strength**2)
    return {product: math.sqrt(math.fsum(each)) for product, each in squares.items()}


def plain_reciprocal_rank(ranked: list[int], truth: set[int], k: int) -> float:
    return next((1 / rank for rank, p in enumerate(ranked[:k], start=1) if p in truth), 0.0)


def some_orders(most: int) -> st.SearchStrategy[Orders]:
    basket = st.lists(st.integers(0, 14), min_size=2, max_size=7, unique=True)
    return st.lists(basket, min_size=1, max_size=most)


@settings(max_examples=60, deadline=None)
@given(
    past=some_orders(30), later=some_orders(8), length=st.integers(2, 12), seed=st.integers(0, 9)
)
def test_every_ordering_scores_as_by_a_plain_implementation(
    past: Orders, later: Orders, length: int, seed: int
) -> None:
    rules = rules_of(past)
    held_out = hold_out(gathered(later), gathered(past), seed=seed)
    scores = by_scope(backtest(rules, held_out, length=length, seed=seed))
    baskets = [np.flatnonzero(row).tolist() for row in held_out.baskets.toarray()]
    for name in (OURS, POPULARITY, LIFT, CONFIDENCE):
        lists = plain_lists(rules, name, max(length, 10) if name == POPULARITY else length)
        hit, reciprocal = [], []
        for basket in baskets:
            ranked = [[p for p, _ in lists[product]] for product in basket]
            ranks = [plain_reciprocal_rank(each, set(basket), 10) for each in ranked]
            hit.append(sum(rank >= 1 / 5 for rank in ranks) / len(basket))
            reciprocal.append(math.fsum(ranks) / len(basket))
        one = scores[name, ONE_PRODUCT]
        assert one.values["hit rate@5"].tolist() == pytest.approx(hit)
        assert one.values["MRR@10"].tolist() == pytest.approx(reciprocal)
        cart = scores[name, CART].values
        for row, basket in enumerate(baskets):
            hidden = int(held_out.hidden[row])
            shown = [p for p in basket if p != hidden]
            lists_of_length = [each[:length] for each in lists]
            strengths = plain_cart_strengths(lists_of_length, shown)
            stronger = [s for s in strengths.values() if s > strengths.get(hidden, 0) + 1e-12]
            equal = [s for s in strengths.values() if abs(s - strengths.get(hidden, 0)) <= 1e-12]
            best, worst = len(stronger) + 1, len(stronger) + len(equal)
            found = hidden in strengths
            value = float(cart["MRR@10"][row])
            assert value in (
                [1 / r for r in range(best, worst + 1) if r <= 10] if found else []
            ) or (value == 0 and (not found or worst > 10))
            assert cart["hit rate@10"][row] == (value > 0)


@settings(max_examples=60, deadline=None)
@given(past=some_orders(30), shown=some_orders(6), length=st.integers(1, 12))
def test_carts_in_chunks_of_any_size_get_the_same(past: Orders, shown: Orders, length: int) -> None:
    rules = rules_of(past)
    baskets = hold_out(gathered(shown), gathered(past), seed=0).baskets
    lists: Lists = RuleLists(top_consequents(rules, length))
    at_once = cart_lists(lists, baskets, 5, length=length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bought_together, "ENTRIES_AT_ONCE", 1)
        one_by_one = cart_lists(lists, baskets, 5, length=length)
    assert np.array_equal(at_once, one_by_one)
    for row, cart in zip(at_once, baskets.toarray(), strict=True):
        kept = row[row >= 0]
        assert len(set(kept.tolist())) == len(kept)
        assert not cart[kept].any()
        assert (row[len(kept) :] == -1).all()


def test_the_same_seed_gives_the_same_numbers() -> None:
    later = gathered([["bread", "butter", "jam"], ["milk", "jam"], ["milk", "bread"]] * 30)
    rules, past = rules_of(BREAKFASTS), gathered(BREAKFASTS)
    first, again, other = (
        backtest(rules, hold_out(later, past, seed=seed), seed=seed) for seed in (1, 1, 2)
    )
    assert [s.intervals for s in first] == [s.intervals for s in again]
    assert [s.intervals for s in first] != [s.intervals for s in other]


def test_lists_of_any_kind_can_be_measured() -> None:
    held_out = HeldOut(carts([JAM, MILK]), np.array([MILK]), 1)
    one, cart = score("mine", Bestsellers(np.array([4, 4, 2, 2])), held_out, np.ones(4), seed=0)
    assert (one.name, one.scope, cart.scope) == ("mine", ONE_PRODUCT, CART)
    assert one.values["MRR@10"].tolist() == pytest.approx([1 / 3])
