"""Rules as the shop's people write them: which rows are rules, and what they want of a list."""

from typing import Any

import pytest

from recsys_assets.publish.merchandising import (
    Action,
    BadRow,
    Row,
    Rule,
    Rules,
    Scope,
    Wishes,
    parse_rules,
)


def row(
    number: int = 1,
    scope: str | None = "everywhere",
    product_id: str | None = "5",
    action: str | None = "block",
    weight: float | None = None,
    **marks: bool,
) -> Row:
    return Row(
        number, scope, product_id, action, weight, **({"is_valid": True, "is_never": False} | marks)
    )


def reason(*values: Any, id_type: str = "bigint", **marks: bool) -> str:
    """Why a row is skipped."""
    rules, (bad,) = parse_rules([row(1, *values, **marks)], id_type)
    assert rules == Rules()
    assert str(bad) == f"recommendation_rules row 1 is skipped: {bad.reason}"
    return bad.reason


def test_rows_become_rules() -> None:
    rows = [
        row(1, "everywhere", "5", "block"),
        row(2, "top_buys", " 6 ", "pin"),
        row(3, "bought_together:7", "8", "boost", 1.5),
        row(4, "buy_again", "9", "pin", -2),
        row(5, "bought_together", "9", "pin", is_valid=False),
    ]
    rules, bad = parse_rules(rows, "integer")
    assert bad == []
    assert rules.rules == (
        Rule(Scope.EVERYWHERE, None, 5, Action.BLOCK, 0),
        Rule(Scope.TOP_BUYS, None, 6, Action.PIN, 0),
        Rule(Scope.BOUGHT_TOGETHER, 7, 8, Action.BOOST, 1.5),
        Rule(Scope.BUY_AGAIN, None, 9, Action.PIN, -2),
    )


@pytest.mark.parametrize("scope", [None, "", "Everywhere", "top_buys:5", "everywhere:", "cart"])
def test_an_unknown_scope_is_told(scope: str | None) -> None:
    assert reason(scope).startswith(
        f"unknown scope {scope!r} (there are everywhere, top_buys, bought_together, buy_again,"
    )


@pytest.mark.parametrize("action", [None, "", "hide", "BLOCK"])
def test_an_unknown_action_is_told(action: str | None) -> None:
    assert reason("everywhere", "5", action) == (
        f"unknown action {action!r} (there are block, pin, boost)"
    )


@pytest.mark.parametrize(
    ("id_type", "text"),
    [
        ("bigint", "tea"),
        ("bigint", ""),
        ("bigint", "9" * 19),
        ("smallint", "40000"),
        ("uuid", "5"),
        ("text", " "),
    ],
)
def test_what_is_no_id_of_the_shop_is_told(id_type: str, text: str) -> None:
    expected = f"{text!r} is no id of a product, which here are of type {id_type}"
    assert reason("everywhere", text, "block", id_type=id_type) == expected
    assert reason(f"bought_together:{text}", text, "block", id_type=id_type) == expected


def test_a_missing_product_is_told() -> None:
    assert reason("everywhere", None) == "no product_id"


@pytest.mark.parametrize("weight", [None, 0.0, -1.0, float("nan"), float("inf"), 1e-9, 1e9])
def test_a_boost_without_a_weight_above_zero_is_told(weight: float | None) -> None:
    told = reason("top_buys", "5", "boost", weight)
    assert told == f"a boost has a weight above 0, from 1e-06 to 1000000, not {weight}"


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_pin_of_no_finite_weight_is_told(weight: float) -> None:
    assert reason("top_buys", "5", "pin", weight) == (
        f"a pin has a finite weight or none, not {weight}"
    )


@pytest.mark.parametrize("is_valid", [True, False])
def test_a_rule_that_ends_before_it_begins_is_told(is_valid: bool) -> None:
    assert reason(is_never=True, is_valid=is_valid) == "valid_until is not after valid_from"


def test_bad_rows_do_not_keep_others_from_being_rules() -> None:
    rules, bad = parse_rules([row(1, "x"), row(2), row(3, "everywhere", "y")], "bigint")
    assert [rule.product_id for rule in rules.rules] == [5]
    assert [(type(b), b.id) for b in bad] == [(BadRow, 1), (BadRow, 3)]


@pytest.mark.parametrize(
    ("id_type", "text", "product_id"),
    [
        ("text", "Tea 1", "Tea 1"),
        ("character varying(20)", "7", "7"),
        (
            "uuid",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
    ],
)
def test_ids_are_those_of_the_lists(id_type: str, text: str, product_id: str) -> None:
    rules, _ = parse_rules([row(1, f"bought_together:{text}", text, "block")], id_type)
    assert [(rule.owner, rule.product_id) for rule in rules.rules] == [(product_id, product_id)]


# --- Wishes


def rules(*rows: tuple[str, str, str, float | None]) -> Rules:
    parsed, bad = parse_rules([row(n, *values) for n, values in enumerate(rows)], "bigint")
    assert bad == []
    return parsed


SOME = rules(
    ("everywhere", "1", "block", None),
    ("bought_together", "2", "block", None),
    ("bought_together:9", "3", "block", None),
    ("everywhere", "4", "pin", 1),
    ("top_buys", "5", "pin", 2),
    ("bought_together:9", "6", "boost", 3),
)


def test_rules_of_a_scope_are_those_for_everywhere_too() -> None:
    assert SOME.of(Scope.TOP_BUYS) == Wishes(frozenset({1}), (5, 4), {})
    assert SOME.of(Scope.EVERYWHERE) == SOME.of(Scope.BUY_AGAIN) == Wishes(frozenset({1}), (4,), {})
    assert SOME.of(Scope.BOUGHT_TOGETHER) == Wishes(frozenset({1, 2}), (4,), {})


def test_rules_for_one_products_list_come_in_for_that_list() -> None:
    assert SOME.owners == [9]
    assert SOME.of(Scope.BOUGHT_TOGETHER, 9) == Wishes(frozenset({1, 2, 3}), (4,), {6: 3})
    assert SOME.of(Scope.BOUGHT_TOGETHER, 8) == SOME.of(Scope.BOUGHT_TOGETHER)


def test_blocked_is_blocked_and_heavier_pins_come_first() -> None:
    wishes = rules(
        ("top_buys", "1", "pin", 9),
        ("top_buys", "1", "boost", 9),
        ("everywhere", "1", "block", None),
        ("top_buys", "2", "pin", None),
        ("top_buys", "3", "pin", 1),
        ("top_buys", "4", "pin", 0),
        ("everywhere", "2", "pin", -1),
        ("everywhere", "4", "pin", 2),
        ("top_buys", "3", "boost", 0.5),
    ).of(Scope.TOP_BUYS)
    assert wishes == Wishes(frozenset({1}), (4, 3, 2), {3: 0.5})


def test_boosts_multiply_within_bounds() -> None:
    wishes = rules(
        ("top_buys", "1", "boost", 2),
        ("everywhere", "1", "boost", 3),
        ("top_buys", "2", "boost", 1e6),
        ("everywhere", "2", "boost", 1e6),
        ("top_buys", "3", "boost", 1e-6),
        ("everywhere", "3", "boost", 1e-6),
    ).of(Scope.TOP_BUYS)
    assert wishes.boosts == {1: 6, 2: 1e6, 3: 1e-6}
