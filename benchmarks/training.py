"""Training and Top Buys of the sample shop: our assets beside bare implicit on a ready matrix.

    .venv/bin/python benchmarks/training.py          two minutes

Starts its own PostgreSQL and Redis in a temporary folder, loads the sample shop and refreshes the
interactions; then, in every round, one after the other:

- als_model: the asset (read, build the matrix, fit, save) as it times itself, beside `fit` of
  implicit with the same parameters on a matrix that is ready, plus the read of the same rows;
- blended lists: of all users, whose factors are folded in from their interactions, by the model and
  blended with their own purchases, beside the batch `recommend` of implicit for the same users and
  length, with `recalculate_user`, which computes the same factors from the same matrix (but
  blends nothing);
- top_buys_backtest: the asset, which trains once or twice more, on the past, and measures;
- folding in: what both sides of the row before spend on these factors;
- user_top_buys: the whole asset, from reading the rows to the last key in Redis;
- loading the pickle back from the file.

A table gives the medians and the ratios.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psycopg
from implicit.cpu.als import AlternatingLeastSquares
from rich import box
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from recsys_assets import tables
from recsys_assets.database import connect, read_arrow
from recsys_assets.definitions import build_definitions
from recsys_assets.ingest.watermark import orders_watermark
from recsys_assets.learn.als import AlsParameters, fold_in
from recsys_assets.learn.artifacts import load_artifact
from recsys_assets.learn.matrix import histories_from_arrow
from recsys_assets.local.sample_shop import load_sample
from recsys_assets.local.services import export_urls, running_services
from recsys_assets.publish.changed_users import Lengths
from recsys_assets.publish.list_making import list_maker
from recsys_assets.settings import Settings
from recsys_assets.shop import inspect_shop


@contextmanager
def timed(taken: list[float]) -> Iterator[None]:
    """Append the seconds that the block takes."""
    started = time.perf_counter()
    yield
    taken.append(time.perf_counter() - started)


def bare_implicit(parameters: AlsParameters) -> AlternatingLeastSquares:
    """A model of implicit with our parameters."""
    return AlternatingLeastSquares(
        factors=parameters.factors,
        alpha=parameters.alpha,
        regularization=parameters.regularization,
        iterations=parameters.iterations,
        random_state=parameters.seed,
    )


def measure(settings: Settings, rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, one entry a round."""
    definitions = build_definitions(settings)
    job = definitions.resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    url = settings.database_url or ""

    def materialize(asset: str) -> dict[str, Any]:
        run = job.execute_in_process(quiet, asset_selection=[dg.AssetKey(asset)])
        (event,) = run.get_asset_materialization_events()
        return dict(event.materialization.metadata)

    with psycopg.connect(url) as connection:
        load_sample(connection)
    materialize("user_product_interactions")
    with connect(url) as connection:
        shop = inspect_shop(connection, settings)
        watermark = orders_watermark(connection, shop)
    assert watermark is not None
    query = tables.weights(shop, watermark, settings.half_life)
    parameters = AlsParameters()
    taken = defaultdict(list)
    for _ in range(rounds):
        with timed(taken["read"]):
            rows = read_arrow(url, query)
        histories = histories_from_arrow(rows)
        with threadpool_limits(1, "blas"):
            bare = bare_implicit(parameters)
            with timed(taken["bare implicit: fit"]):
                bare.fit(histories.weights, show_progress=False)
        taken["als_model"].append(materialize("als_model")["seconds"].value)
        taken["top_buys_backtest"].append(materialize("top_buys_backtest")["seconds"].value)

        with timed(taken["loading the pickle"]):
            header, arrays = load_artifact(settings.data_dir, "als_model")
        maker = list_maker((header, arrays), Lengths())
        users = np.arange(len(histories.user_ids))
        with threadpool_limits(1, "blas"), timed(taken["bare implicit: recommend"]):
            bare.recommend(
                users,
                histories.weights,
                N=Lengths().top_buys,
                filter_already_liked_items=False,
                recalculate_user=True,
            )
        with timed(taken["folding in"]):
            fold_in(maker.model, histories.weights)
        with timed(taken["blended lists"]):
            for _lists in maker.ranker.lists(histories, n=Lengths().top_buys):
                pass
        taken["user_top_buys"].append(materialize("user_top_buys")["seconds"].value)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    console = Console()
    with tempfile.TemporaryDirectory(prefix="recsys-training-") as folder:
        settings = Settings(state_dir=Path(folder) / "state", data_dir=Path(folder) / "data")
        with running_services(settings) as running:
            export_urls(running)
            taken = {name: statistics.median(s) for name, s in measure(running, rounds).items()}
    taken["bare implicit: read + fit"] = taken["read"] + taken["bare implicit: fit"]
    table = Table("ours", "s", "peer", "s", "ratio", box=box.MARKDOWN)
    for ours, peer in (
        ("als_model", "bare implicit: read + fit"),
        ("top_buys_backtest", None),
        ("blended lists", "bare implicit: recommend"),
        ("folding in", None),
        ("user_top_buys", None),
        ("loading the pickle", None),
    ):
        beside = (peer, f"{taken[peer]:.2f}", f"{taken[ours] / taken[peer]:.2f}") if peer else ()
        table.add_row(ours, f"{taken[ours]:.2f}", *beside)
    console.print(table)
    console.print(
        f"Medians of {rounds} rounds; {len(os.sched_getaffinity(0))} cores, {platform.machine()},"
        f" Python {platform.python_version()}, numpy {np.__version__}"
    )


if __name__ == "__main__":
    main()
