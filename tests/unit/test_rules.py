"""Rules and ranked lists, worked out by hand."""

from dataclasses import fields

import numpy as np
import pytest

from recsys_assets.learn.itemsets import frequent_itemsets
from recsys_assets.learn.rules import (
    BasketRules,
    rules_from_itemsets,
    strongest_rules,
    top_consequents,
)
from tests.breakfasts import BREAD, BREAKFASTS, BUTTER, JAM, MILK, gathered


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


def test_shrinkage_that_grows_with_the_antecedent() -> None:
    itemsets = frequent_itemsets(gathered(BREAKFASTS), min_orders=2)
    rules = rules_from_itemsets(itemsets, shrinkage=1, antecedent_shrinkage=0.25)
    strengths = {
        (int(antecedent), int(consequent)): float(strength)
        for antecedent, consequent, strength in zip(
            rules.antecedents[:, 0], rules.consequent, rules.strength, strict=True
        )
    }
    # Bread is in 4 orders, jam in 2: n / (E + 1 + 4 / 4), and n / (E + 1 + 2 / 4).
    assert strengths[BREAD, JAM] == pytest.approx(2 / 3.6)
    assert strengths[JAM, BREAD] == pytest.approx(2 / 3.1)
    assert (rules.shrinkage, rules.antecedent_shrinkage) == (1, 0.25)


def test_negative_shrinkage_by_the_antecedent_is_refused() -> None:
    itemsets = frequent_itemsets(gathered(BREAKFASTS), min_orders=1)
    with pytest.raises(ValueError, match="antecedent_shrinkage is -1"):
        rules_from_itemsets(itemsets, antecedent_shrinkage=-1)


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


def test_the_strongest_rules_of_each_set_of_antecedents() -> None:
    itemsets = frequent_itemsets(
        gathered(BREAKFASTS), min_orders=1, engine="mlxtend", max_itemset_size=3
    )
    rules = rules_from_itemsets(itemsets)
    kept = strongest_rules(rules, 1)
    # Every product with its strongest consequent, and every two products with theirs. By chance
    # bread and butter come with jam in 3 * 2 / 5 orders, with milk in as many: jam is the lower.
    assert dict(
        zip(map(tuple, kept.antecedents.tolist()), kept.consequent.tolist(), strict=True)
    ) == {
        (BREAD, -1): BUTTER,
        (BUTTER, -1): BREAD,
        (JAM, -1): BREAD,
        (MILK, -1): BUTTER,
        (BREAD, BUTTER): JAM,
        (BREAD, JAM): BUTTER,
        (BREAD, MILK): BUTTER,
        (BUTTER, JAM): BREAD,
        (BUTTER, MILK): BREAD,
    }
    lists, of_all = top_consequents(kept, 1), top_consequents(rules, 1)
    assert lists.consequents.tolist() == of_all.consequents.tolist()
    assert np.array_equal(kept.strength[lists.rules], of_all.strengths)
    everything = strongest_rules(rules, 9)
    assert all(
        np.array_equal(getattr(everything, f.name), getattr(rules, f.name))
        for f in fields(BasketRules)
    )
