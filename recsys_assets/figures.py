"""What people would rather look at than read, as Markdown: tables and small pictures.

The Dagster UI renders both in an asset's metadata. Pictures are PNG data URIs; nothing is fetched.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table of rows with the same keys; numbers are right-aligned."""
    if not rows:
        return "*nothing*"
    columns = list(rows[0])
    align = ["---:" if isinstance(rows[0][c], int | float) else "---" for c in columns]
    lines = [map(_cell, columns), align, *([_cell(row[c]) for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def histogram(values: "NDArray[Any]", *, title: str, x: str, y: str) -> str:
    """A picture of a distribution over powers of ten (values above 0), as Markdown."""
    import numpy as np

    figure, axes = _axes(title, x, y)
    positive = values[values > 0]
    if len(positive):
        low, high = float(positive.min()), float(positive.max())
        axes.hist(positive, bins=np.geomspace(low, high * 1.0001, 40).tolist(), color="#4f6bed")
        axes.set_xscale("log")
    return _picture(figure)


def ranking(values: "NDArray[Any]", *, title: str, x: str, y: str) -> str:
    """A picture of values above 0 against their rank, largest first, both axes logarithmic."""
    import numpy as np

    figure, axes = _axes(title, x, y)
    positive = np.sort(values[values > 0])[::-1]
    axes.loglog(np.arange(1, len(positive) + 1), positive, color="#4f6bed")
    return _picture(figure)


def scatter(
    xs: "NDArray[Any]", ys: "NDArray[Any]", *, title: str, x: str, y: str, most: int = 5000
) -> str:
    """A picture of points above 0, both axes logarithmic; at most ``most``, evenly selected."""
    figure, axes = _axes(title, x, y)
    positive = (xs > 0) & (ys > 0)
    step = max(1, math.ceil(positive.sum() / most))
    axes.loglog(
        xs[positive][::step], ys[positive][::step], ".", markersize=2, color="#4f6bed", alpha=0.5
    )
    return _picture(figure)


def intervals(rows: Mapping[str, tuple[float, float, float]], *, title: str, x: str) -> str:
    """A picture of named intervals (mean, low, high), a line each from the top, as Markdown.

    The first is ours: it stands out, and a dotted line carries its mean to the others.
    """
    figure, axes = _axes("", x, "", height=1.1 + 0.24 * max(1, len(rows)))
    figure.suptitle(title)  # over the names too, which may be long
    for line, (mean, low, high) in enumerate(rows.values()):
        color = "#777777" if line else "#4f6bed"
        axes.plot([low, high], [line, line], color=color, linewidth=1.5)
        axes.plot(mean, line, "o", color=color, markersize=5)
        if not line:
            axes.axvline(mean, color=color, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in rows])
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    return _picture(figure)


def _axes(title: str, x: str, y: str, height: float = 2.8) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, height), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _picture(figure: "Figure") -> str:
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            # Over decades they are many, without numbers, and take most of the time.
            if axis.get_scale() == "log" and high >= 100 * low:
                axis.minorticks_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return f"![]({_data_uri(buffer.getvalue())})"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return str(value).replace("|", "\\|").replace("\n", " ")
