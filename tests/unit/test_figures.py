"""Markdown tables to the letter; pictures as PNG for whatever numbers come."""

import base64
import struct
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from recsys_assets.figures import histogram, markdown_table, ranking, scatter

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
