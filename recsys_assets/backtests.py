"""What backtests have found, as tables: from the headers of the artifacts in the data folder."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from recsys_assets.evaluate.report import cuts, scopes, table
from recsys_assets.learn.artifacts import ArtifactError, Header, load_artifact, load_candidate

BACKTESTS: Mapping[str, str] = {
    "als_model": "top_buys_backtest",
    "basket_rules": "bought_together_backtest",
}
"""Each artifact and the asset that decides about it."""


def evaluated_last(folder: Path, name: str) -> Header | None:
    """The header of the candidate, or without one of the current version, if it was evaluated."""
    with suppress(ArtifactError):
        header, _ = load_candidate(folder, name) or load_artifact(folder, name)
        return header if header.evaluation else None
    return None


def refused_candidate(folder: Path, name: str) -> Header | None:
    """The header of the candidate, if it is there because its backtest has refused it."""
    header = evaluated_last(folder, name)
    if header is None or header.evaluation["verdict"] != "refused" or header.evaluation["forced"]:
        return None
    return header


def backtest_tables(header: Header) -> Iterator[Table]:
    """A table for each scope that was measured, and what followed."""
    evaluation = header.evaluation
    rows = evaluation["rows"]
    for scope in scopes(rows):
        for cut in cuts(rows):
            measured = [
                {name.removesuffix(cut): cell for name, cell in line.items()}
                for line in table(rows, scope, cut=cut)
            ]
            if measured and len(measured[0]) > 1:
                title = f"{scope.capitalize()}, the first {cut[1:]} of each list"
                yield _table(title, measured)
    yield _table(
        f"{header.name} {header.version}: {outcome(header)}",
        [
            {
                "held against": f"{gate['against']}, {gate['scope']}",
                gate["metric"]: f"{gate['candidate']:.4f}",
                "theirs": f"{gate['baseline']:.4f}",
                "difference": "{:+.4f}".format(gate["difference"][0]),
                "95 % interval": "{1:+.4f} to {2:+.4f}".format(*gate["difference"]),
                "": gate["verdict"],
            }
            for gate in evaluation["gates"]
        ],
    )


def outcome(header: Header) -> str:
    """In a few words what a backtest has found: ``refused: worse than own frequency``."""
    evaluation = header.evaluation
    worse = [
        f"{gate['against']} ({gate['scope']})"
        for gate in evaluation["gates"]
        if gate["verdict"] == "refused"
    ]
    forced = ", accepted by force" if evaluation["forced"] else ""
    if evaluation["verdict"] == "refused":
        return f"refused{forced}: worse than {', '.join(worse)}"
    return f"{evaluation['verdict']}{forced} by {evaluation['users']:,} measured"


def _table(title: str, rows: list[dict[str, str]]) -> Table:
    shown = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for place, column in enumerate(rows[0] if rows else ()):
        shown.add_column(column, no_wrap=place == 0, justify="right" if place else "left")
    for row in rows:
        shown.add_row(*row.values())
    return shown
