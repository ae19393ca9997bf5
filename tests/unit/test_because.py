"""Why products are in lists: by hand, against a naive reference, and as Redis gets it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from recsys_assets.learn.als import AlsModel
from recsys_assets.learn.blending import TopLists
from recsys_assets.learn.explain import explain, user_explainer
from recsys_assets.learn.matrix import Histories
from recsys_assets.publish.because import ExplainScores, explanations
from recsys_assets.publish.redis_writer import Edition
from serving.contract import decode_explanations

EDITION = Edition("v1", datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 2, 28, tzinfo=UTC))
JANUARY, FEBRUARY = np.datetime64("2025-01-31T10:00:00.5"), np.datetime64("2025-02-27T18:30:00")

# Factors (1, 0), (0, 1), (1, 1) and (-1, 0); the model knows nothing of the fifth product.
MODEL = AlsModel(
    product_factors=np.array([[1, 0], [0, 1], [1, 1], [-1, 0]], np.float32),
    product_ids=np.array([11, 12, 13, 14], np.int64),
    popularity=np.ones(4, np.float32),
    user_count=1,
    alpha=1.0,
    regularization=1.0,
)
# Anna has bought products 0 and 1, Ben product 4 alone, Clara product 3.
WEIGHTS = [[1, 3, 0, 0, 0], [0, 0, 0, 0, 2], [0, 0, 0, 1, 0]]
COUNTS = [[2, 3, 0, 0, 0], [0, 0, 0, 0, 4], [0, 0, 0, 1, 0]]


def histories(
    user_ids: Any = (7, 8, 9),
    product_ids: Any = (11, 12, 13, 14, 15),
    weights: Any = WEIGHTS,
    counts: Any = COUNTS,
) -> Histories:
    """Whatever was bought twice was last bought in January, all else in February."""
    purchases = csr_matrix(np.array(weights, np.float32))
    at = purchases.nonzero()
    number = np.array(counts, np.int32)[at]
    last = np.where(number == 2, JANUARY, FEBRUARY)
    users, products = (
        np.array(ids, np.int64 if isinstance(ids[0], int) else object)
        for ids in (user_ids, product_ids)
    )
    return Histories(purchases, number, last, last, users, products)


def by_als(bought: Histories, model: AlsModel = MODEL) -> ExplainScores:
    """What contributes to the scores of users by their purchases of what the model knows."""
    known = bought.weights[:, : len(model.product_factors)]
    return lambda users, products: explain(model, known[users], products)


def lists(*products: list[int], first_row: int = 0, lengths: list[int] | None = None) -> TopLists:
    """Lists of these products, of which the first ``lengths`` count."""
    scores = np.ones((len(products), len(products[0])), np.float32)
    for row, length in zip(scores, lengths or [], strict=False):
        row[length:] = -np.inf
    return TopLists(first_row, np.array(products, np.int64), scores)


REPEAT_JANUARY = {
    "kind": "repeat",
    "purchases": 2,
    "last_purchased_at": "2025-01-31T10:00:00.500000Z",
}
REPEATS = {
    number: {"kind": "repeat", "purchases": number, "last_purchased_at": "2025-02-27T18:30:00Z"}
    for number in (1, 3, 4)
}
POPULAR, PINNED = {"kind": "popular"}, {"kind": "pinned"}


def similar(*purchases: tuple[int | str, float]) -> dict[str, Any]:
    return {
        "kind": "similar",
        "purchases": [{"product_id": product, "weight": weight} for product, weight in purchases],
    }


def published(
    block: TopLists,
    bought: Histories,
    model: AlsModel | None = MODEL,
    more_ids: Sequence[int | str] = (),
    pinned: Sequence[int] = (),
) -> dict[str, Any]:
    """What Redis gets, decoded."""
    values = explanations(
        [block],
        bought,
        np.r_[bought.product_ids, more_ids] if more_ids else bought.product_ids,
        EDITION,
        explain=by_als(bought, model) if model else None,
        pinned=np.array(pinned, np.int64),
    )
    return {key: json.loads(value) for key, value in values}


def why(*arguments: Any, **options: Any) -> dict[str, Any]:
    """The reasons of each key by product, in the order of the list."""
    return {
        key: {each["product_id"]: each["because"] for each in value["because"]}
        for key, value in published(*arguments, **options).items()
    }


def test_reasons_worked_out_by_hand() -> None:
    found = why(lists([0, 2, 3], [4, 1, 0], [3, 0, 1]), histories())
    assert found == {
        "user:7:top_buys_because": {
            11: REPEAT_JANUARY,
            # Contributions 9/19 by product 1 and 4/19 by product 0, of 13/19.
            13: similar((12, 0.692), (11, 0.308)),
            # 3/19 by product 1, and -5/19 by product 0, which speaks against it.
            14: similar((12, 1.0)),
        },
        # Ben has bought nothing that the model knows.
        "user:8:top_buys_because": {15: REPEATS[4], 12: POPULAR, 11: POPULAR},
        # Clara's product 3 points away from product 0 and hardly towards product 1: A is
        # [[4, 1], [1, 3]], W [[3, -1], [-1, 4]] / 11, so that it contributes -3/11 and 1/11.
        "user:9:top_buys_because": {14: REPEATS[1], 11: POPULAR, 12: similar((14, 1.0))},
    }


def test_reasons_as_redis_gets_them() -> None:
    found = published(lists([2, 0, 3]), histories())
    assert found["user:7:top_buys_because"] == {
        "schema": 1,
        "model_version": "v1",
        "generated_at": "2025-03-01T00:00:00Z",
        "because": [
            {"product_id": 13, "because": similar((12, 0.692), (11, 0.308))},
            {"product_id": 11, "because": REPEAT_JANUARY},
            {"product_id": 14, "because": similar((12, 1.0))},
        ],
    }


def test_what_is_pinned_is_there_for_that_whatever_else_speaks_for_it() -> None:
    assert why(lists([0, 2, 1], [4, 1, 0]), histories(), pinned=[2, 0]) == {
        "user:7:top_buys_because": {11: PINNED, 13: PINNED, 12: REPEATS[3]},
        "user:8:top_buys_because": {15: REPEATS[4], 12: POPULAR, 11: PINNED},
    }


def test_products_that_nobody_has_bought() -> None:
    """Position 9 of the first user is not position 4, which the next has bought, five later."""
    block, more = lists([9, 6, 0], [9, 6, 4]), [16, 17, 18, 19, 20]
    assert why(block, histories(), more_ids=more, pinned=[6]) == {
        "user:7:top_buys_because": {20: POPULAR, 17: PINNED, 11: REPEAT_JANUARY},
        "user:8:top_buys_because": {20: POPULAR, 17: PINNED, 15: REPEATS[4]},
    }


def test_without_a_model_what_was_never_bought_is_popular() -> None:
    assert why(lists([0, 2, 3]), histories(), model=None) == {
        "user:7:top_buys_because": {11: REPEAT_JANUARY, 13: POPULAR, 14: POPULAR}
    }


def test_ids_of_text_and_users_whose_ids_no_key_can_hold() -> None:
    bought = histories(("", "ben", "clara"), ("a", "b", "c", "d", "e"))
    assert why(lists([0, 2, 3], [4, 1, 0], [3, 0, 1]), bought) == {
        "user:ben:top_buys_because": {"e": REPEATS[4], "b": POPULAR, "a": POPULAR},
        "user:clara:top_buys_because": {"d": REPEATS[1], "a": POPULAR, "b": similar(("d", 1.0))},
    }


def test_reasons_are_of_the_products_that_the_list_has() -> None:
    found = why(lists([0, 2, 3], [4, 1, 0], lengths=[2, 1]), histories())
    assert {key: list(reasons) for key, reasons in found.items()} == {
        "user:7:top_buys_because": [11, 13],
        "user:8:top_buys_because": [15],
    }


def test_a_purchase_that_rounds_to_nothing_is_not_named() -> None:
    """Factors at nearly right angles: product 1 says less than a thousandth of product 2."""
    factors = np.array([[1, 0], [1e-4, 1], [1, 0]], np.float32)
    model = replace(MODEL, product_factors=factors, regularization=10.0)
    bought = histories((1, 2), (1, 2, 3), [[1, 1, 0], [0, 0, 1]], [[1, 1, 0], [0, 0, 1]])
    assert explain(model, bought.weights[:1], np.array([[2]])).purchases.tolist() == [[[0, 1, -1]]]
    assert why(lists([2]), bought, model)["user:1:top_buys_because"] == {3: similar((1, 1.0))}


def test_no_lists_and_empty_lists() -> None:
    bought = histories()
    assert list(explanations([], bought, bought.product_ids, EDITION)) == []
    empty = TopLists(0, np.empty((3, 0), np.int64), np.empty((3, 0), np.float32))
    assert [value["because"] for value in published(empty, bought).values()] == [[]] * 3


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_times_may_be_of_any_unit(unit: str) -> None:
    bought = histories()
    bought = replace(bought, last=bought.last.astype(f"datetime64[{unit}]"))
    assert why(lists([1, 2]), bought)["user:7:top_buys_because"][12] == REPEATS[3]


# --- Any lists of many users, in any blocks

_random = np.random.default_rng(5)
USERS, KNOWN, COLUMNS, LENGTH = 700, 60, 66, 50
MANY = AlsModel(
    _random.normal(0, 0.3, (KNOWN, 8)).astype(np.float32),
    np.arange(KNOWN, dtype=np.int64),
    np.ones(KNOWN, np.float32),
    USERS,
    1.0,
    2.0,
)
_counts = np.ceil(4 * random_array((USERS, COLUMNS), density=0.1, rng=_random).toarray())
MANY_BOUGHT = histories(
    list(range(USERS)), list(range(COLUMNS)), _counts / 2, _counts.astype(np.int32)
)
MANY_LISTS = np.argsort(_random.random((USERS, COLUMNS)), axis=1)[:, :LENGTH]


def expected(user: int, pinned: set[int]) -> list[Any]:
    """The reasons for a user's list, by the definition."""
    listed = MANY_LISTS[user]
    top = explain(MANY, MANY_BOUGHT.weights[[user], :KNOWN], listed[np.newaxis])
    found: list[Any] = []
    for place, product in enumerate(listed.tolist()):
        count = int(_counts[user, product])
        shares = top.contributions[0, place] / max(top.support[0, place], 1e-300)
        by = zip(top.purchases[0, place].tolist(), shares.round(3).tolist(), strict=True)
        if product in pinned:
            found.append(("pinned",))
        elif count:
            found.append(("repeat", count, JANUARY if count == 2 else FEBRUARY))
        elif purchases := [(other, share) for other, share in by if share > 0]:
            found.append(("similar", purchases))
        else:
            found.append(("popular",))
    return found


def as_found(value: bytes) -> list[Any]:
    """The same of what Redis gets."""
    found: list[Any] = []
    for each in decode_explanations(value).because:
        kind, because = each.because.__struct_config__.tag, each.because
        match kind:
            case "repeat":
                moment = np.datetime64(because.last_purchased_at.replace(tzinfo=None))
                found.append((kind, because.purchases, moment))
            case "similar":
                found.append((kind, [(p.product_id, p.weight) for p in because.purchases]))
            case _:
                found.append((kind,))
    return found


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.lists(st.integers(1, USERS - 1), unique=True, max_size=4).map(sorted),
    pinned=st.sets(st.integers(0, COLUMNS - 1), max_size=5),
)
def test_reasons_are_those_of_the_definition_in_whatever_blocks(
    cuts: list[int], pinned: set[int]
) -> None:
    explainer, known = user_explainer(MANY), MANY_BOUGHT.weights[:, :KNOWN]
    ends = [0, *cuts, USERS]
    blocks = [
        lists(*MANY_LISTS[start:end].tolist(), first_row=start) for start, end in pairwise(ends)
    ]
    found = list(
        explanations(
            blocks,
            MANY_BOUGHT,
            MANY_BOUGHT.product_ids,
            EDITION,
            explain=lambda users, products: explainer(known[users], products),
            pinned=np.array(sorted(pinned), np.int64),
        )
    )
    assert [key for key, _ in found] == [f"user:{user}:top_buys_because" for user in range(USERS)]
    for user in range(0, USERS, 23):
        value = found[user][1]
        assert as_found(value) == expected(user, pinned)
        listed = [each.product_id for each in decode_explanations(value).because]
        assert listed == MANY_LISTS[user].tolist()


def test_the_many_have_every_kind_of_reason() -> None:
    kinds = {reason[0] for user in range(USERS) for reason in expected(user, set())}
    assert kinds == {"repeat", "similar", "popular"}
