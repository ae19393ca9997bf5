"""``kill -9`` of the process that runs the assets, or follows the orders, anywhere in it.

What each kill leaves must be whole, and the next run that is left alone must arrive at what the
orders say.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from subprocess import TimeoutExpired
from time import monotonic

import pytest

from tests.commands import Started, eventually
from tests.faults.system import FULL, Run, System, kill
from tests.faults.truth import everything_is_published, nothing_is_torn

KILLS = 48 if FULL else 2
KILLS_FOLLOWING = 18 if FULL else 1
KILLS_IN_A_ROW = 6 if FULL else 2
SECONDS_FOLLOWING = 5.0
ASSETS = [
    "user_product_interactions",
    "user_top_buys",
    "als_model",
    "top_buys_backtest",
    "bought_together",
    "basket_rules",
    "bought_together_backtest",
    "global_top_buys",
    "product_names",
]
ANYWHERE = "anywhere"
FOLLOWING_STEP = "follow_orders"
# Of every ten kills eight are within an asset each, two at any moment of the run.
TARGETS = [*ASSETS, ANYWHERE, ANYWHERE] if FULL else ASSETS
SECONDS_OF_STEPS = """
SELECT step_key, extract(epoch FROM max(timestamp) - min(timestamp))::float8
FROM dagster.event_logs
WHERE dagster_event_type IN ('STEP_START', 'STEP_SUCCESS')
  AND run_id = (SELECT run_id FROM dagster.runs WHERE status = 'SUCCESS' ORDER BY id LIMIT 1)
GROUP BY step_key
"""


@pytest.fixture(scope="module")
def seconds(system: System) -> dict[str, float]:
    """How long each step of an undisturbed run took."""
    with system.database() as connection:
        steps = dict(connection.execute(SECONDS_OF_STEPS).fetchall())
    return {**steps, ANYWHERE: sum(steps.values()) + 4}  # which it takes to start


@pytest.fixture(scope="module")
def kills(report: Callable[[str], None]) -> Iterator[Counter[str]]:
    """Counts what each kill hit, and reports it."""
    counts: Counter[str] = Counter()
    yield counts
    report(f"kill -9 of a run, {counts.total()} times, in:")
    for where, count in counts.most_common():
        report(f"  {count:3d}  {where}")


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_tears_nothing_and_the_next_one_makes_it_good(
    system: System, seconds: dict[str, float], kills: Counter[str], number: int
):
    random = Random(number)
    if random.random() < 0.5:
        system.change_orders()
    target = TARGETS[number % len(TARGETS)]
    where = None
    while where is None:  # a run that was faster than measured ends before it is killed
        where = killed_run(system, target, random.uniform(0, seconds[target]))
    kills[where] += 1
    nothing_is_torn(system)
    if (number + 1) % KILLS_IN_A_ROW == 0:
        system.home.recsys("materialize", "--force")
        everything_is_published(system)


@pytest.mark.parametrize("number", range(KILLS_FOLLOWING))
def test_a_run_that_follows_orders_is_killed_and_the_next_one_makes_it_good(
    system: System, kills: Counter[str], number: int
):
    delay = Random(number).uniform(0, SECONDS_FOLLOWING)
    kills[killed_following(system, delay, settled=number % 3 > 0)] += 1
    nothing_is_torn(system)
    if (number + 1) % KILLS_IN_A_ROW == 0:
        system.refresh()
        everything_is_published(system)


def killed_following(system: System, delay: float, *, settled: bool) -> str:
    """Kill a run that follows orders which keep coming in; where it was.

    ``delay`` begins with the run's first step, or with its first asset where it is ``settled``.
    """
    before = system.last_run()
    with system.following() as run:
        eventually(lambda: reached(system, FOLLOWING_STEP, before) or has_ended(run), "its step")
        if settled:
            eventually(lambda: system.last_run().made or has_ended(run), "its first asset")
        until = monotonic() + delay
        while monotonic() < until:
            system.change_orders()
        assert not has_ended(run), run.printed()
        kill(run)
    made = system.last_run().made
    return f"{FOLLOWING_STEP}, " + (f"after {made}" if made else "before its first asset")


def killed_run(system: System, target: str, delay: float) -> str | None:
    """Kill a run ``delay`` seconds after the target began; where it was, None if it had ended."""
    before = system.last_run()
    with system.home.started("materialize", "--force") as run:
        if target != ANYWHERE:
            eventually(lambda: reached(system, target, before) or has_ended(run), target)
        with suppress(TimeoutExpired):
            run.process.wait(delay)
        if has_ended(run):
            return None
        kill(run)
    killed = system.last_run()
    if killed.id == before.id:
        return "(no run yet)"
    return killed.step or f"(between steps, {killed.status.lower()})"


def reached(system: System, step: str, before: Run) -> bool:
    """Whether the run that follows ``before`` is at this step."""
    run = system.last_run()
    return run.id != before.id and run.step == step


def has_ended(run: Started) -> bool:
    """Whether the command has come to its end."""
    return run.process.poll() is not None
