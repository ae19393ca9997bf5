"""How what was read becomes an answer."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answers import bought_together_answer, cart_answer, combine, due_first, top_buys_answer
from serving.contract import (
    Evidence,
    Family,
    Id,
    PairCount,
    Pairing,
    Publication,
    Repeat,
    ScoredProduct,
    TopBuys,
)
from serving.readings import BoughtTogetherRead, ProductRead, TopBuysRead, without

MOMENT = datetime(2025, 3, 1, tzinfo=UTC)
RECORD = Publication(
    family=Family.BOUGHT_TOGETHER,
    model_version="rules-3",
    generated_at=MOMENT,
    orders_through=None,
    finished_at=MOMENT,
    keys=1,
    id_kind="integer",
)

# Halves, so that sums are exact in any order, and few products, so that lists share some.
halves = st.integers(1, 12).map(lambda n: n / 2)
numbers, texts = st.integers(1, 12), st.sampled_from(["9", "10", "a:b", "a", "é", "Z"])


def lists_of(ids: st.SearchStrategy[Id]) -> st.SearchStrategy[list[list[Pairing]]]:
    pairings = st.dictionaries(ids, halves).map(lambda d: [Pairing(*item) for item in d.items()])
    return st.lists(pairings, max_size=6)


# combine


@given(lists_of(numbers) | lists_of(texts))
def test_strengths_are_combined_to_their_norm(lists: list[list[Pairing]]):
    expected: Counter[Id] = Counter()
    for pairings in lists:
        for pairing in pairings:
            expected[pairing.product_id] += pairing.strength**2
    combined = combine(lists)
    assert {p.product_id: p.strength for p in combined} == {
        product_id: math.sqrt(squares) for product_id, squares in expected.items()
    }
    assert len(combined) == len(expected)


@given(lists_of(numbers) | lists_of(texts))
def test_the_strongest_come_first_and_equals_by_the_text_of_their_ids(lists: list[list[Pairing]]):
    combined = combine(lists)
    for one, other in pairwise(combined):
        assert one.strength >= other.strength
        if one.strength == other.strength:
            assert str(one.product_id) < str(other.product_id)


@given(
    st.lists(st.lists(st.floats(0, 1e6), max_size=4), min_size=1, max_size=6).flatmap(
        lambda strengths: st.tuples(st.just(strengths), st.permutations(strengths))
    )
)
def test_the_order_of_the_lists_makes_no_difference(
    orders: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]],
):
    one, other = (
        combine([[Pairing(i, strength) for i, strength in enumerate(each)] for each in lists])
        for lists in orders
    )
    assert one == other


def test_one_strong_rule_outdoes_many_weak_ones_and_several_of_a_kind_outdo_one():
    lists = [[Pairing(1, 3.0), Pairing(2, 1.0), Pairing(3, 2.0)]] + [[Pairing(2, 1.0)]] * 3
    lists += [[Pairing(3, 2.5)]]
    assert [p.product_id for p in combine(lists)] == [3, 1, 2]


def test_nothing_is_combined_to_nothing():
    assert combine([]) == combine([[], []]) == []


# Carts


@given(
    lists_of(numbers).map(lambda lists: dict(enumerate(lists, start=1))),
    st.sets(numbers, max_size=4),
    st.integers(1, 8),
    st.booleans(),
)
def test_a_cart_is_answered_what_is_neither_in_it_nor_excluded(lists, exclude, limit, explain):
    members = {str(product_id): ProductRead(pairings) for product_id, pairings in lists.items()}
    answer = cart_answer(
        list(members),
        BoughtTogetherRead(members, {}, RECORD),
        limit=limit,
        exclude=frozenset(map(str, exclude)),
        explain=explain,
    )
    left_out = exclude | set(lists)
    expected = [p for p in combine(lists.values()) if p.product_id not in left_out][:limit]
    assert [(p.product_id, p.strength) for p in answer.products] == [
        (p.product_id, p.strength) for p in expected
    ]
    assert answer.product_ids == list(lists)
    for product in answer.products:
        if not explain:
            assert product.contributions is msgspec.UNSET
            continue
        parts = [
            ([member], pairing.strength)
            for member, pairings in lists.items()
            for pairing in pairings
            if pairing.product_id == product.product_id
        ]
        assert [(each.product_ids, each.strength) for each in product.contributions] == sorted(
            parts, key=lambda part: -part[1]
        )


# Evidence


@given(st.data())
def test_support_confidence_and_lift_are_those_of_the_counts(data):
    baskets = data.draw(st.integers(1, 10**9))
    orders, of_product = data.draw(st.tuples(*[st.integers(1, baskets)] * 2))
    both = data.draw(st.integers(0, min(orders, of_product)))
    evidence = Evidence(
        model_version="rules-3",
        baskets=baskets,
        orders=orders,
        products=[PairCount(7, both, of_product)],
        borrowed=False,
    )
    members = {"5": ProductRead([Pairing(7, 1.0)], evidence=evidence)}
    answer = bought_together_answer(
        "5",
        BoughtTogetherRead(members, {}, RECORD),
        limit=1,
        exclude=frozenset(),
        explain=True,
    )
    measures = answer.products[0].evidence
    assert measures.orders == both
    assert measures.support == pytest.approx(float(Fraction(both, baskets)))
    assert measures.confidence == pytest.approx(float(Fraction(both, orders)))
    of_chance = Fraction(orders, baskets) * Fraction(of_product, baskets)
    assert measures.lift == pytest.approx(float(Fraction(both, baskets) / of_chance))


# What is left out


@given(st.lists(numbers | texts, unique_by=str), st.sets(numbers | texts))
def test_what_is_left_out_is_compared_as_text_and_the_order_kept(ids, left_out):
    texts_left_out = {str(each) for each in left_out}
    products = [ScoredProduct(each, 1.0) for each in ids]
    remaining = without(products, texts_left_out)
    assert [p.product_id for p in remaining] == [i for i in ids if str(i) not in texts_left_out]


def test_an_ordinary_answer_has_no_field_for_reasons():
    stored = TopBuys(
        source="global",
        model_version="v1",
        generated_at=MOMENT,
        orders_through=None,
        products=[ScoredProduct(7, 1.5)],
    )
    answer = top_buys_answer(None, TopBuysRead(stored, {}), limit=1, exclude=frozenset())
    assert msgspec.json.encode(answer) == (
        b'{"user_id":null,"source":"global","model_version":"v1",'
        b'"generated_at":"2025-03-01T00:00:00Z","orders_through":null,'
        b'"products":[{"product_id":7,"score":1.5}]}'
    )


@pytest.mark.parametrize(
    ("hours", "order"),
    [(0, [1, 2, 3, 4]), (2, [3, 1, 2, 4]), (4, [2, 3, 1, 4])],
    ids=["nothing due", "one", "two"],
)
def test_what_is_due_by_now_comes_first_each_in_its_order(hours: int, order: list[int]):
    due = {1: None, 2: 3, 3: 1, 4: 9}  # hours from the moment
    products = [
        Repeat(
            product_id=product,
            score=1.0,
            purchases=2,
            last_purchased_at=MOMENT,
            due_at=None if later is None else MOMENT + timedelta(hours=later),
        )
        for product, later in due.items()
    ]
    now = MOMENT + timedelta(hours=hours)
    assert [product.product_id for product in due_first(products, now)] == order
