"""The assets of the stage evaluate: backtests that decide whether a candidate is published.

A candidate was made by the stage learn and is not used by anybody yet. Its recipe is tried on the
past, beside what is obvious and beside that of the version in use; it is then accepted, and becomes
the current version, or refused, and stays a candidate until the next one.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import Field

from recsys_assets.ingest.assets import user_product_interactions
from recsys_assets.learn.assets import ALS_MODEL, BASKET_RULES, als_model, basket_rules
from recsys_assets.progress import Progress
from recsys_assets.resources import ArtifactStore, ShopDatabase

if TYPE_CHECKING:
    from recsys_assets.evaluate.backtest import Backtest
    from recsys_assets.learn.artifacts import Arrays, Header


_Recipe = TypeVar("_Recipe")


class BacktestConfig(dg.Config):
    """What is held out, and what a candidate has to do."""

    held_out_days: int = Field(28, ge=1, description="days before the last order, to measure by")
    min_users: int = Field(
        100, ge=30, description="users to measure, below which nothing is proven"
    )
    max_users: int = Field(10_000, ge=30, description="users measured, at most; drawn by the seed")
    tolerance: float = Field(
        0.02,
        ge=0,
        description="share of the incumbent's figure that a candidate may be worse by",
    )
    force: bool = Field(False, description="accept the candidate whatever the figures say")
    seed: int = Field(7, ge=0, description="of the users drawn, and of the intervals")


GATES = {
    "beats_popularity": ("global popularity", "Better than the bestsellers, beyond doubt."),
    "holds_own_frequency": ("own frequency", "Not worse than what each user bought most often."),
    "holds_incumbent": ("incumbent", "Not worse than the version in use, but for a tolerance."),
}
"""The checks of Top Buys: what the candidate is held against, and what is asked of it."""


@dg.asset(
    deps=[als_model, user_product_interactions],
    group_name="evaluate",
    kinds={"python"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
    pool=ALS_MODEL,
    check_specs=[
        dg.AssetCheckSpec(name, asset="top_buys_backtest", blocking=True, description=description)
        for name, (_, description) in GATES.items()
    ],
)
def top_buys_backtest(
    context: dg.AssetExecutionContext,
    config: BacktestConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Tries the candidate's recipe on the past, beside what is obvious; accepts or refuses it.

    Trains on what was bought before the last 28 days and measures the lists by these days: recall,
    NDCG, hit rate, MRR, coverage, popularity and novelty, with intervals, over all purchases and
    over new products only. An accepted candidate becomes `als_model.pkl`.
    """
    from recsys_assets.evaluate.backtest import backtest_top_buys
    from recsys_assets.learn.recipe import Recipe

    started = time.monotonic()
    header, arrays = artifacts.latest(ALS_MODEL)
    incumbent = artifacts.incumbent(ALS_MODEL)
    candidate = Recipe.from_parameters(header.parameters)
    with shop.session() as session:
        backtest = backtest_top_buys(
            session,
            candidate,
            _of_another(incumbent, header, Recipe.from_parameters),
            held_out=timedelta(days=config.held_out_days),
            min_users=config.min_users,
            max_users=config.max_users,
            tolerance=config.tolerance,
            seed=config.seed,
            log=context.log.info,
            progress=Progress(context.log.info, "ALS iterations", candidate.als.iterations),
        )
    forced = _decide(
        context, artifacts, header, arrays, backtest, incumbent=incumbent, force=config.force
    )
    yield _result(header, backtest, "recall@10", started)
    yield from _check_results(backtest, GATES, forced=forced)


class BasketBacktestConfig(BacktestConfig):
    """What is held out, and what a candidate has to do."""

    min_users: int = Field(
        100, ge=30, description="baskets to measure, below which nothing is proven"
    )
    max_users: int = Field(
        20_000, ge=30, description="baskets measured, at most; drawn by the seed"
    )
    min_product_orders: int = Field(
        5, ge=1, description="orders of a product before the cutoff, for it to be measured by"
    )


BASKET_GATES = {
    "beats_popularity": ("global popularity", "Better than the bestsellers, beyond doubt."),
    "holds_lift": ("lift", "Not worse than the same rules ordered by raw lift."),
    "holds_incumbent": ("incumbent", "Not worse than the version in use, but for a tolerance."),
}
"""The checks of Bought Together: what the candidate is held against, and what is asked of it."""


@dg.asset(
    deps=[basket_rules],
    group_name="evaluate",
    kinds={"python"},
    owners=["team:data"],
    tags={"domain": "recommendations"},
    code_version="1",
    pool=BASKET_RULES,
    check_specs=[
        dg.AssetCheckSpec(
            name, asset="bought_together_backtest", blocking=True, description=description
        )
        for name, (_, description) in BASKET_GATES.items()
    ],
)
def bought_together_backtest(
    context: dg.AssetExecutionContext,
    config: BasketBacktestConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Tries the candidate's rules on past baskets, beside what is obvious; accepts or refuses it.

    Mines the orders before the last 28 days and measures the lists by the baskets of these days:
    what else is in a basket of which one product is shown, and which product a cart is without;
    hit rate, MRR, coverage, fill and popularity, with intervals. An accepted candidate becomes
    `basket_rules.pkl`.
    """
    from recsys_assets.evaluate.backtest import BASKET_METRIC, BasketSizes, backtest_bought_together
    from recsys_assets.learn.mining import Mining

    started = time.monotonic()
    header, arrays = artifacts.latest(BASKET_RULES)
    incumbent = artifacts.incumbent(BASKET_RULES)
    with shop.session() as session:
        backtest = backtest_bought_together(
            session,
            Mining.from_parameters(header.parameters),
            _of_another(incumbent, header, Mining.from_parameters),
            BasketSizes(shop.min_basket_products, shop.max_basket_products, shop.basket_window),
            held_out=timedelta(days=config.held_out_days),
            min_baskets=config.min_users,
            max_baskets=config.max_users,
            min_product_orders=config.min_product_orders,
            tolerance=config.tolerance,
            seed=config.seed,
            log=context.log.info,
        )
    forced = _decide(
        context, artifacts, header, arrays, backtest, incumbent=incumbent, force=config.force
    )
    yield _result(header, backtest, BASKET_METRIC, started)
    yield from _check_results(backtest, BASKET_GATES, forced=forced)


def _of_another(
    incumbent: "Header | None",
    candidate: "Header",
    parse: "Callable[[Mapping[str, Any]], _Recipe]",
) -> "_Recipe | None":
    """The recipe of the version in use; None where there is none, or another release has made it.

    None also where it is the candidate itself, which is evaluated again.
    """
    from recsys_assets.learn.artifacts import ArtifactError

    if incumbent is None or incumbent.version == candidate.version:
        return None
    with suppress(ArtifactError):
        return parse(incumbent.parameters)
    return None


def _decide(
    context: dg.AssetExecutionContext,
    artifacts: ArtifactStore,
    header: "Header",
    arrays: "Arrays",
    backtest: "Backtest",
    *,
    incumbent: "Header | None",
    force: bool,
) -> bool:
    """Make the candidate the current version, or leave it a candidate, with what was measured.

    Returns whether it is accepted by force. What proves nothing takes the place of nothing that is
    relied on. The current version, evaluated again, stays what it is, and so does the leave it had.
    """
    judgement = backtest.judgement
    is_current = incumbent is not None and incumbent.version == header.version
    had_leave = is_current and header.evaluation.get("forced", False)
    forced = (force or had_leave) and not judgement.is_proven
    evaluated = replace(header, evaluation=backtest.to_header() | {"forced": forced})
    is_relied_on = incumbent is not None and incumbent.is_relied_on
    refused = bool(judgement.failed_gates) and not forced
    stays_behind = refused or (is_relied_on and not evaluated.is_relied_on)
    if not stays_behind or (refused and is_current):
        artifacts.accept(evaluated, arrays, instead_of=incumbent)
    elif not is_current:
        artifacts.leave_behind(evaluated, arrays)
    how = "accepted by force" if forced else judgement.verdict.value
    tell = context.log.error if refused else context.log.info
    tell(
        f"{header.name} {header.version} is {how}"
        f"{' and not used' if stays_behind and not is_current else ''}: {judgement}"
    )
    return forced


def _result(
    header: "Header", backtest: "Backtest", metric: str, started: float
) -> dg.MaterializeResult[None]:
    """The materialization of a backtest that began at ``started``, a monotonic time."""
    return dg.MaterializeResult(
        metadata={
            **_metadata(backtest, metric),
            "version": header.version,
            "seconds": time.monotonic() - started,
        }
    )


def _metadata(backtest: "Backtest", metric: str) -> dict[str, Any]:
    """What was measured: a table and a picture of each scope, numbers that the UI plots."""
    from recsys_assets.evaluate.report import scopes, table
    from recsys_assets.figures import intervals, markdown_table

    metadata: dict[str, Any] = {
        "verdict": backtest.judgement.verdict.value,
        "judgement": str(backtest.judgement),
        "measured": backtest.judgement.users,
        **backtest.notes,
    }
    if backtest.cutoff and backtest.until:
        metadata["cutoff"] = dg.MetadataValue.timestamp(backtest.cutoff)
        metadata["until"] = dg.MetadataValue.timestamp(backtest.until)
    for scope in scopes(backtest.rows):
        rows = [row for row in backtest.rows if row["scope"] == scope]
        metadata[f"table: {scope}"] = dg.MetadataValue.md(
            markdown_table(table(backtest.rows, scope, detailed=[metric]))
        )
        metadata[f"figure: {scope}"] = dg.MetadataValue.md(
            intervals(
                {row["name"]: row["intervals"][metric] for row in rows if row["intervals"]},
                title=f"{metric}, {scope}",
                x="mean and 95 % interval",
            )
        )
        metadata |= {
            f"{name} of {scope}": interval[0] for name, interval in rows[0]["intervals"].items()
        }
        metadata |= {f"{name} of {scope}": figure for name, figure in rows[0]["figures"].items()}
        metadata |= {
            f"{metric} of {scope}, {row['name']}": row["intervals"][metric][0]
            for row in rows[1:]
            if row["intervals"]
        }
    return metadata


def _check_results(
    backtest: "Backtest", gates: Mapping[str, tuple[str, str]], *, forced: bool
) -> Iterator[dg.AssetCheckResult]:
    """The outcome of every gate; a refusal is an error, and blocks, unless it is overridden."""
    judgement = backtest.judgement
    for name, (against, _) in gates.items():
        held = [gate for gate in judgement.gates if gate.against == against]
        blocks = not forced and any(gate in judgement.failed_gates for gate in held)
        described = "; ".join(map(str, held)) or f"nothing to hold it against: no {against}"
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not judgement.is_too_few and all(gate.is_passed for gate in held),
            severity=dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN,
            description=str(judgement) if judgement.is_too_few else described,
            metadata={
                f"{figure} {gate.scope}": value
                for gate in held
                for figure, value in (
                    ("candidate", gate.candidate),
                    (against, gate.baseline),
                    ("difference", gate.difference.mean),
                    ("low", gate.difference.low),
                    ("high", gate.difference.high),
                )
            },
        )
