"""What a backtest has found, as the command line prints it."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recsys_assets.backtests import backtest_tables, evaluated_last, outcome, refused_candidate
from recsys_assets.learn.artifacts import Header
from tests import artifacts

MADE = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)


def row(name: str, scope: str, intervals: dict[str, float], **figures: float) -> dict[str, Any]:
    """The means of some lists, each with an interval of a hundredth on either side."""
    around = {metric: [mean, mean - 0.01, mean + 0.01] for metric, mean in intervals.items()}
    return {"name": name, "scope": scope, "intervals": around, "figures": figures}


def gate(against: str, scope: str, *, ours: float, theirs: float, verdict: str) -> dict[str, Any]:
    difference = ours - theirs
    return {
        "against": against,
        "scope": scope,
        "metric": "NDCG@10",
        "candidate": ours,
        "baseline": theirs,
        "difference": [difference, difference - 0.01, difference + 0.01],
        "verdict": verdict,
    }


def evaluation(
    verdict: str,
    *rows: dict[str, Any],
    gates: Sequence[dict[str, Any]] = (),
    forced: bool = False,
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "users": 1234,
        "rows": list(rows),
        "gates": list(gates),
        "forced": forced,
    }


def header(*args: Any, **more: Any) -> Header:
    return Header("als_model", MADE, None, evaluation=evaluation(*args, **more))


def printed(of: Header) -> list[list[str]]:
    """The lines that are printed on a hundred columns, each as its cells, without rules."""
    console = Console(file=StringIO(), width=100)
    for table in backtest_tables(of):
        console.print(table)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    return [
        re.split(r"\s{2,}", line.strip()) for line in lines if line.strip() and "──" not in line
    ]


def test_a_scope_whose_columns_fit_is_one_table_with_all_of_them() -> None:
    found = header(
        "proven",
        row("ours", "cart", {"hit rate@5": 0.3, "MRR@10": 0.2}, listed=1, **{"fill rate@10": 0.95}),
        row("lift", "cart", {"hit rate@5": 0.1, "MRR@10": 0.05}, listed=0.5),
    )
    assert printed(found) == [
        ["Cart"],
        ["lists", "hit rate@5", "MRR@10", "listed", "fill rate@10"],
        ["ours", "0.3000", "0.2000", "1", "0.95"],
        ["lift", "0.1000", "0.0500", "0.5"],
        ["als_model 20250301T030000.000000Z: proven by 1,234 measured"],
    ]


def test_a_scope_with_more_columns_has_a_table_for_each_length_of_list() -> None:
    metrics = ["recall", "NDCG", "hit rate", "MRR"]
    means = {f"{metric}@{cut}": cut / 100 for cut in (10, 20) for metric in metrics}
    found = header("proven", row("ours", "all purchases", means, novelty=3.5))
    assert printed(found)[:-1] == [
        ["All purchases, the first 10 of each list"],
        ["lists", *metrics, "novelty"],  # what is of no length is told once
        ["ours", *["0.1000"] * 4, "3.5"],
        ["All purchases, the first 20 of each list"],
        ["lists", *metrics],
        ["ours", *["0.2000"] * 4],
    ]


def test_every_gate_is_told_with_both_means_and_the_interval() -> None:
    found = header(
        "refused",
        gates=(
            gate("global popularity", "all purchases", ours=0.4, theirs=0.2, verdict="proven"),
            gate("incumbent", "new products", ours=0.02, theirs=0.05, verdict="refused"),
        ),
    )
    title, _, popularity, incumbent = printed(found)
    assert title == ["als_model 20250301T030000.000000Z: refused"]
    assert popularity == [
        "global popularity, all purchases",
        *["0.4000", "0.2000", "+0.2000", "+0.1900 to +0.2100", "proven"],
    ]
    assert incumbent == [
        "incumbent, new products",
        *["0.0200", "0.0500", "-0.0300", "-0.0400 to -0.0200", "refused"],
    ]


@pytest.mark.parametrize(
    ("verdict", "forced", "text"),
    [
        ("proven", False, "proven by 1,234 measured"),
        ("unproven", False, "unproven by 1,234 measured"),
        ("unproven", True, "unproven by 1,234 measured, accepted by force"),
        ("refused", False, "refused: worse than incumbent (new products)"),
        ("refused", True, "refused, accepted by force: worse than incumbent (new products)"),
    ],
)
def test_an_outcome_in_a_few_words(verdict: str, forced: bool, text: str) -> None:
    worse = gate("incumbent", "new products", ours=0.02, theirs=0.05, verdict="refused")
    assert outcome(header(verdict, gates=(worse,), forced=forced)) == text


def test_the_candidate_is_what_was_evaluated_last(tmp_path: Path) -> None:
    assert evaluated_last(tmp_path, "model") is None
    artifacts.save(tmp_path, 1)
    assert evaluated_last(tmp_path, "model") is None  # it never was
    artifacts.save(tmp_path, 2, evaluation=evaluation("proven"))
    found = evaluated_last(tmp_path, "model")
    assert found is not None
    assert found.version == artifacts.version(2)
    assert refused_candidate(tmp_path, "model") is None

    artifacts.propose(tmp_path, 3, evaluation=evaluation("refused"))
    refused = refused_candidate(tmp_path, "model")
    assert refused is not None
    assert refused == evaluated_last(tmp_path, "model")
    assert refused.version == artifacts.version(3)
    artifacts.propose(tmp_path, 4, evaluation=evaluation("refused", forced=True))
    assert refused_candidate(tmp_path, "model") is None
