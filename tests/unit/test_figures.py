"""Markdown tables to the letter; pictures as PNG for whatever numbers come."""

import base64
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from recsys_assets.figures import histogram, intervals, markdown_table, ranking, scatter

LABELS = {"title": "Title", "x": "x", "y": "y"}


def size_of(markdown: str) -> tuple[int, int]:
    """Width and height of the PNG in a Markdown picture."""
    prefix = "![](data:image/png;base64,"
    assert markdown.startswith(prefix)
    assert markdown.endswith(")")
    png = base64.b64decode(markdown[len(prefix) : -1], validate=True)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_a_table() -> None:
    rows = [
        {"product": "tea", "orders": 12345, "lift": 1.23456, "new": True},
        {"product": "milk | cream\n1 l", "orders": 2, "lift": 10.0, "new": False},
    ]
    assert markdown_table(rows) == "\n".join(
        [
            "| product | orders | lift | new |",
            "| --- | ---: | ---: | ---: |",
            "| tea | 12345 | 1.235 | True |",
            "| milk \\| cream 1 l | 2 | 10 | False |",
        ]
    )


def test_a_column_may_have_any_name() -> None:
    assert markdown_table([{"with a|b": 1}]).splitlines()[0] == "| with a\\|b |"


def test_a_table_without_rows() -> None:
    assert markdown_table([]) == "*nothing*"


@pytest.mark.parametrize("values", [[2, 3, 5, 8], [20, 30, 120], [1, 10, 300, 10_000]], ids=str)
@pytest.mark.parametrize("picture", [histogram, lambda v, **labels: scatter(v, v, **labels)])
def test_an_axis_has_numbers(
    picture: Callable[..., str], values: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[str] = []
    save = Figure.savefig

    def look(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        (axes,) = figure.axes
        low, high = axes.get_xlim()
        ticks = axes.xaxis.get_major_ticks() + axes.xaxis.get_minor_ticks()
        numbers.extend(t.label1.get_text() for t in ticks if low <= t.get_loc() <= high)

    monkeypatch.setattr(Figure, "savefig", look)
    picture(np.array(values), **LABELS)
    assert len(list(filter(None, numbers))) > 1


@pytest.mark.parametrize(
    "values",
    [[], [0, 0], [1], [3, 3, 3], [0, 1, 10, 10_000], [1e-30, 1.0], [2**40, 2**40 + 1]],
    ids=str,
)
@pytest.mark.parametrize(
    "picture", [histogram, ranking, lambda v, **labels: scatter(v, v, **labels)]
)
def test_a_picture_of_any_numbers(picture: Callable[..., str], values: list[float]) -> None:
    assert size_of(picture(np.array(values), **LABELS)) == (400, 224)


def test_pictures_show_the_numbers() -> None:
    for picture in (histogram, ranking, partial(scatter, np.array([1, 2, 4]))):
        assert picture(np.array([1, 2, 4]), **LABELS) == picture(np.array([1, 2, 4]), **LABELS)
        assert picture(np.array([1, 2, 4]), **LABELS) != picture(np.array([1, 2, 9]), **LABELS)


def test_a_scatter_draws_no_more_points_than_most() -> None:
    points = np.geomspace(1, 1000, 19)
    all_points = scatter(points, points, most=19, **LABELS)
    every_second = scatter(points[::2], points[::2], **LABELS)
    assert scatter(points, points, most=10, **LABELS) == every_second != all_points


INTERVALS = {
    "ours": (0.11, 0.10, 0.12),
    "own frequency": (0.10, 0.09, 0.11),
    "ALS": (0.03, 0.02, 0.04),
}


@pytest.mark.parametrize(
    ("rows", "height"),
    [
        ({}, 107),
        ({"one $user_id$": (0.0, 0.0, 0.0)}, 107),
        (INTERVALS, 145),
        ({f"list {i}": (1e-9 * i, 0.0, 1e9) for i in range(20)}, 472),
    ],
    ids=["none", "one", "three", "many"],
)
def test_a_picture_of_any_intervals(
    rows: dict[str, tuple[float, float, float]], height: int
) -> None:
    assert size_of(intervals(rows, title="Title", x="x")) == (400, height)


@pytest.mark.parametrize("place", range(3), ids=["mean", "low", "high"])
@pytest.mark.parametrize("name", INTERVALS)
def test_intervals_show_each_number(name: str, place: int) -> None:
    changed = list(INTERVALS[name])
    changed[place] += 0.003
    mean, low, high = changed
    rows = INTERVALS | {name: (mean, low, high)}
    picture = intervals(INTERVALS, title="Title", x="x")
    assert picture == intervals(INTERVALS, title="Title", x="x")
    assert picture != intervals(rows, title="Title", x="x")


def test_the_first_interval_stands_out() -> None:
    alike = (0.2, 0.1, 0.3)
    first = intervals({"a": alike, "b": alike}, title="Title", x="x")
    assert first != intervals({"b": alike, "a": alike}, title="Title", x="x")
