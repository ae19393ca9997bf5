"""Materializing assets from the command line: a Dagster run in this process, with its progress.

The run is recorded in the Dagster instance like any other, to look up in the UI.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from recsys_assets.backtests import BACKTESTS
from recsys_assets.dagster_storage import UNANSWERED
from recsys_assets.progress import watching
from recsys_assets.run_launcher import process_tags

# The graph's own log goes to the instance; the terminal shows bars instead of it.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class MaterializationError(RuntimeError):
    """A run failed: which asset or check, and why."""


class UsageError(ValueError):
    """An asset that does not exist was asked for, or config that does not fit."""


@dataclass(frozen=True)
class Batch:
    """What was materialized, in the order in which it finished.

    ``seconds`` and ``metadata`` are by asset, the latter's values those that Dagster shows.
    """

    run_id: str
    seconds: dict[str, float]
    metadata: dict[str, dict[str, Any]]


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    console: Console,
    *,
    assets: Sequence[str] = (),
    config: dict[str, Any] | None = None,
    force: bool = False,
) -> Batch:
    """Materialize ``assets`` (all of them when empty) with their checks, in dependency order.

    ``config`` is Dagster run config; ``force`` has the backtests among the assets accept whatever
    they measure. Raises :class:`MaterializationError` when an asset or a
    blocking check fails, :class:`UsageError` for an unknown asset or bad config, and
    KeyboardInterrupt, which Dagster keeps to itself, once the run is recorded as failed.
    """
    graph = definitions.resolve_asset_graph()
    known = [key.to_user_string() for key in graph.toposorted_asset_keys]
    ours = [name for name in known if graph.get(dg.AssetKey(name)).is_materializable]
    if unknown := set(assets) - set(ours):
        raise UsageError(f"no asset {', '.join(sorted(unknown))}; there are {', '.join(ours)}")
    wanted = [name for name in ours if not assets or name in assets]
    job = (
        definitions.resolve_implicit_global_asset_job_def()
        if assets
        else definitions.resolve_job_def("retrain_daily")
    )
    run_id = str(uuid4())
    run_config = {**(config or {}), **_QUIET}
    if force:
        run_config = _forced(run_config, [name for name in wanted if name in BACKTESTS.values()])
    try:
        dg.validate_run_config(job, run_config)
    except dg.DagsterInvalidConfigError as error:
        raise UsageError("; ".join(e.message for e in error.errors)) from error
    with _shown(console, instance, run_id, wanted) as seconds:
        result = job.execute_in_process(
            run_config=run_config,
            instance=instance,
            asset_selection=[dg.AssetKey(name) for name in wanted] if assets else None,
            run_id=run_id,
            tags=process_tags(),
            raise_on_error=False,
        )
    if _was_interrupted(result):
        raise KeyboardInterrupt
    if not result.success:
        raise MaterializationError("\n".join(_reasons(result)))
    return Batch(run_id, seconds, _metadata(result))


def _forced(run_config: dict[str, Any], backtests: Sequence[str]) -> dict[str, Any]:
    """The run config with every backtest told to accept its candidate."""
    ops = dict(run_config.get("ops") or {})
    for name in backtests:
        op = ops.get(name) or {}
        ops[name] = {**op, "config": {**(op.get("config") or {}), "force": True}}
    return {**run_config, "ops": ops}


class _Display:
    """One line per asset: a bar on a terminal, a line at start and end elsewhere."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[detail]:<38}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {
            name: self._bars.add_task(name, start=False, total=1, detail="") for name in names
        }
        self._started: dict[str, float] = {}
        self._current: str | None = None
        self.seconds: dict[str, float] = {}

    def start(self, name: str, at: float) -> None:
        if name in self._tasks and name not in self._started:
            self._started[name], self._current = at, name
            self._bars.start_task(self._tasks[name])
            self._bars.update(self._tasks[name], total=None)

    def advance(self, what: str, done: int, total: int | None) -> None:
        if self._current:
            of = f" of {total:,}" if total else ""
            self._bars.update(
                self._tasks[self._current],
                total=total,
                completed=done,
                detail=f"{what}: {done:,}{of}",
            )

    def end(self, name: str, at: float, *, failed: bool) -> None:
        if name not in self._started or name in self.seconds:
            return
        self.seconds[name] = at - self._started[name]
        task = self._tasks[name]
        self._bars.update(task, total=1, completed=0 if failed else 1)
        self._bars.stop_task(task)
        if failed:
            self._bars.update(task, detail="[red]failed")
        if not self._console.is_terminal:
            how = "failed after" if failed else "materialized in"
            self._console.print(f"{name} {how} {self.seconds[name]:.1f} s", highlight=False)

    def __enter__(self) -> "_Display":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


@contextmanager
def _shown(
    console: Console, instance: dg.DagsterInstance, run_id: str, names: Sequence[str]
) -> Iterator[dict[str, float]]:
    """Show the run's progress while the block executes it; yields the seconds of each asset."""
    finished = threading.Event()
    with _Display(console, names) as display:
        log = _RunLog(instance, run_id, display)
        reported: set[str] = set()

        def advance(what: str, done: int, total: int | None) -> None:
            if what not in reported:  # by the asset that has just begun
                log.read()
                reported.add(what)
            display.advance(what, done, total)

        def follow() -> None:
            with suppress(*UNANSWERED):  # which the run tells itself
                while not finished.wait(0.2):
                    log.read()
                log.read()

        events = threading.Thread(target=follow, daemon=True)
        events.start()
        try:
            with watching(advance):
                yield display.seconds
        finally:
            finished.set()
            events.join()


class _RunLog:
    """The run's log, from which the display learns which steps have begun and ended."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str, display: _Display) -> None:
        self._instance, self._run_id, self._display = instance, run_id, display
        self._cursor: str | None = None
        self._lock = threading.Lock()

    def read(self) -> None:
        """Tell the display what the log says since it was last read."""
        with self._lock:
            more = True
            while more:
                page = self._instance.get_records_for_run(self._run_id, cursor=self._cursor)
                for record in page.records:
                    self._tell(record.event_log_entry)
                self._cursor, more = page.cursor, page.has_more

    def _tell(self, entry: dg.EventLogEntry) -> None:
        if entry.dagster_event is None or entry.step_key is None:
            return
        match entry.dagster_event.event_type_value:
            case "STEP_START":
                self._display.start(entry.step_key, entry.timestamp)
            case "STEP_SUCCESS" | "STEP_FAILURE" as kind:
                self._display.end(entry.step_key, entry.timestamp, failed=kind == "STEP_FAILURE")


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    return {
        event.asset_key.to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    errors = [event.step_failure_data.error for event in result.get_step_failure_events()]
    return any(e and e.cls_name == dg.DagsterExecutionInterruptedError.__name__ for e in errors)


def _reasons(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """What failed in a run and why, one line each, and where to read on."""
    for check in result.get_asset_check_evaluations():
        if not check.passed and check.blocking and check.severity is dg.AssetCheckSeverity.ERROR:
            yield f"{check.asset_key.to_user_string()}: check {check.check_name} failed:" + (
                f" {check.description}"
                if check.description
                else "".join(f" {name}={value.value}" for name, value in check.metadata.items())
            )
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        if error and error.cause:  # the step's own exception, inside Dagster's
            error = error.cause
        if error and error.cls_name != "DagsterAssetCheckFailedError":
            yield f"{event.step_key}: {error.message.strip()}"
    yield f"The whole log is in the Dagster UI: run {result.run_id}"
