"""What backtests have found, as tables: from the headers of the artifacts in the data folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recsys_assets.evaluate.report import cuts, scopes, table
from recsys_assets.learn.artifacts import ArtifactError, Header, load_artifact, load_candidate

BACKTESTS: Mapping[str, str] = {
    "als_model": "top_buys_backtest",
    "basket_rules": "bought_together_backtest",
}
"""Each artifact and the asset that decides about it."""

WIDTH = 100  # characters that the tables want
MOST_COLUMNS = 8
"""How many columns a terminal of a hundred characters shows side by side."""


def evaluated_last(folder: Path, name: str) -> Header | None:
    """The header of the candidate if it was evaluated, else of the current version if that was."""
    for load in (load_candidate, load_artifact):
        with suppress(ArtifactError):
            artifact = load(folder, name)
            if artifact and artifact[0].evaluation:
                return artifact[0]
    return None


def refused_candidate(folder: Path, name: str) -> Header | None:
    """The header of the candidate, if it is there because its backtest has refused it."""
    header = evaluated_last(folder, name)
    if header is None or header.evaluation["verdict"] != "refused" or header.evaluation["forced"]:
        return None
    return header


def backtest_tables(header: Header) -> Iterator[RenderableType]:
    """A table for each scope that was measured, and one of what followed, each with its title.

    A scope with more columns than fit side by side has a table for each length of list.
    """
    evaluation = header.evaluation
    rows = evaluation["rows"]
    for scope in scopes(rows):
        lines = table(rows, scope)
        for title, columns in _parts(list(lines[0]), cuts(rows)):
            shown = [{shorter: line[name] for shorter, name in columns.items()} for line in lines]
            yield _table(f"{scope.capitalize()}{title}", shown)
    gates = evaluation["gates"]
    if gates:
        yield _table(f"{header.name} {header.version}: {verdict(header)}", list(map(_held, gates)))
    else:
        yield Text(f"\n{header.name} {header.version}: {verdict(header)}", style="bold")


def outcome(header: Header) -> str:
    """In a few words what a backtest has found: ``refused: worse than own frequency``."""
    if header.evaluation["verdict"] != "refused":
        return verdict(header)
    worse = [
        f"{gate['against']} ({gate['scope']})"
        for gate in header.evaluation["gates"]
        if gate["verdict"] == "refused"
    ]
    return f"{verdict(header)}: worse than {', '.join(worse)}"


def verdict(header: Header) -> str:
    """What has become of a candidate, and by how many users or baskets that is known."""
    evaluation = header.evaluation
    forced = ", accepted by force" if evaluation["forced"] else ""
    refused = evaluation["verdict"] == "refused"
    measured = "" if refused else f" by {evaluation['users']:,} measured"
    return f"{evaluation['verdict']}{measured}{forced}"


def _parts(columns: Sequence[str], lengths: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Columns of one table or of several: what its title says of it, and names by header."""
    if len(columns) <= MOST_COLUMNS:
        yield "", {name: name for name in columns}
        return
    first, *measures = columns
    for cut in lengths:
        whole = cut == lengths[0]  # where that stands which is not of a certain length
        chosen = [name for name in measures if name.endswith(cut) or (whole and "@" not in name)]
        if chosen:
            shorter = {name.removesuffix(cut): name for name in [first, *chosen]}
            yield f", the first {cut[1:]} of each list", shorter


def _held(gate: Mapping[str, Any]) -> dict[str, str]:
    """A gate as a line: what the candidate was held against by its metric, and what came of it."""
    difference, low, high = gate["difference"]
    return {
        "held against": f"{gate['against']}, {gate['scope']}",
        gate["metric"]: f"{gate['candidate']:.4f}",
        "theirs": f"{gate['baseline']:.4f}",
        "difference": f"{difference:+.4f}",
        "95 % interval": f"{low:+.4f} to {high:+.4f}",
        "": gate["verdict"],
    }


def _table(title: str, rows: Sequence[Mapping[str, str]]) -> RenderableType:
    shown = Table(box=SIMPLE_HEAD)
    for place, column in enumerate(rows[0]):
        shown.add_column(column, no_wrap=place == 0, justify="right" if place else "left")
    for row in rows:
        shown.add_row(*row.values())
    return Group(Text(f"\n{title}", style="bold"), shown)  # a table would break its own title
