"""Results of a backtest as plain values and as tables of text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys_assets.evaluate.metrics import Interval
from recsys_assets.evaluate.report import cuts, scopes, table, to_rows

NOBODY: Mapping[str, NDArray[np.float64]] = {}


@dataclass(frozen=True)
class Result:
    """What was scored."""

    name: str
    scope: str
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=lambda: NOBODY)


ROWS = to_rows(
    [
        Result(
            "ours",
            "all purchases",
            {"recall@10": Interval(0.12345, 0.11, 0.13), "recall@20": Interval(0.2, 0.19, 0.21)},
            {"coverage@10": 0.5, "popularity rank@10": 12345.678, "with a list": 1.0},
        ),
        Result("theirs", "all purchases", {"recall@10": Interval(0.04, 0.03, 0.05)}),
        Result("ours", "new products", {"recall@10": Interval(0.02, 0.01, 0.03)}),
        Result("nobody's", "new products"),
    ]
)


def test_rows_are_plain_values() -> None:
    assert ROWS[1] == {
        "name": "theirs",
        "scope": "all purchases",
        "intervals": {"recall@10": [0.04, 0.03, 0.05]},
        "figures": {},
    }
    assert json.loads(json.dumps(ROWS)) == ROWS
    assert to_rows([]) == []


def test_scopes_and_cuts_in_their_order() -> None:
    assert scopes(ROWS) == ["all purchases", "new products"]
    assert cuts(ROWS) == ["@10", "@20"]
    assert scopes([]) == cuts([]) == []


def test_a_table_has_a_line_for_each_kind_of_list_and_a_column_for_each_metric() -> None:
    assert table(ROWS, "all purchases") == [
        {
            "lists": "ours",
            "recall@10": "0.1235",
            "recall@20": "0.2000",
            "coverage@10": "0.5",
            "popularity rank@10": "12,346",
            "with a list": "1",
        },
        {
            "lists": "theirs",
            "recall@10": "0.0400",
            "recall@20": "",
            "coverage@10": "",
            "popularity rank@10": "",
            "with a list": "",
        },
    ]
    assert table(ROWS, "new products") == [
        {"lists": "ours", "recall@10": "0.0200"},
        {"lists": "nobody's", "recall@10": ""},
    ]
    assert table(ROWS, "the past") == []


def test_a_table_of_one_length_of_list() -> None:
    columns = [list(line) for line in table(ROWS, "all purchases", cut="@10")]
    assert columns == [["lists", "recall@10", "coverage@10", "popularity rank@10"]] * 2
    assert table(ROWS, "all purchases", cut="@20")[0] == {"lists": "ours", "recall@20": "0.2000"}


def test_intervals_stand_beside_the_metrics_that_are_detailed() -> None:
    ours, theirs = table(ROWS, "all purchases", cut="@20", detailed=["recall@20"])
    assert ours["recall@20"] == "0.2000 (0.1900-0.2100)"
    assert theirs["recall@20"] == ""
    ours, _ = table(ROWS, "all purchases", detailed=["recall@20"])
    assert ours["recall@10"] == "0.1235"
