"""A backtest's results as people read them: tables, and plain values for an artifact's header."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_assets.evaluate.metrics import Interval


class Scored(Protocol):
    """Lists of one kind, measured in one scope."""

    @property
    def name(self) -> str:
        """Whose lists they are."""

    @property
    def scope(self) -> str:
        """What they were held against."""

    @property
    def values(self) -> Mapping[str, NDArray[np.float64]]:
        """Every metric by its name, of every user or basket."""

    @property
    def intervals(self) -> Mapping[str, Interval]:
        """Means over users or baskets, by the metric's name."""

    @property
    def figures(self) -> Mapping[str, float]:
        """What is said of all lists together."""


Row = dict[str, Any]
"""Plain values of what was scored: name, scope, intervals (three numbers each), figures."""


def to_rows(scores: Iterable[Scored]) -> list[Row]:
    """The scores in plain values, for the header of an artifact."""
    return [
        {
            "name": score.name,
            "scope": score.scope,
            "intervals": {name: list(interval) for name, interval in score.intervals.items()},
            "figures": dict(score.figures),
        }
        for score in scores
    ]


def scopes(rows: Sequence[Row]) -> list[str]:
    """The scopes there are, in their order."""
    return list(dict.fromkeys(row["scope"] for row in rows))


def cuts(rows: Sequence[Row]) -> list[str]:
    """The lengths of list that were measured, as they end the names of metrics: ``@10``."""
    names = (name for row in rows for name in _columns(row))
    return list(dict.fromkeys(f"@{name.partition('@')[2]}" for name in names if "@" in name))


def table(
    rows: Sequence[Row], scope: str, *, cut: str = "", detailed: Sequence[str] = ()
) -> list[dict[str, str]]:
    """What was scored in a scope, a line for each kind of list, as text.

    With ``cut`` that of lists of this length alone. The metrics named in ``detailed`` have their
    interval beside them.
    """
    measured = [row for row in rows if row["scope"] == scope]
    names = dict.fromkeys(name for row in measured for name in _columns(row))
    columns = [name for name in names if name.endswith(cut)]
    return [
        {"lists": row["name"]} | {name: _cell(row, name, name in detailed) for name in columns}
        for row in measured
    ]


def _columns(row: Row) -> Iterable[str]:
    yield from row["intervals"]
    yield from row["figures"]


def _cell(row: Row, name: str, with_interval: bool) -> str:
    if name in row["figures"]:
        figure = row["figures"][name]
        return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.4g}"
    if name not in row["intervals"]:
        return ""
    mean, low, high = row["intervals"][name]
    return f"{mean:.4f} ({low:.4f}-{high:.4f})" if with_interval else f"{mean:.4f}"
