"""A server or a disk fails in the midst of a run.

The run fails with a message that helps, what was served stays, and the next run needs no hand work.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from recsys_assets.local.postgres import PostgresServer
from tests.faults.outages import SCENARIOS, Ended, Scenario, can_mount, repaired
from tests.faults.system import FULL, System, fresh_database
from tests.faults.truth import everything_is_published, lists_are_whole

LAST_IN_SHORT = "artifact would execute code"
IN_SHORT = {
    "postgresql stops, dagster's storage is elsewhere",
    "redis is killed",
    "disk is full",
    LAST_IN_SHORT,
}
ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Fault:
    """What a scenario has left, with the servers up again."""

    name: str
    scenario: Scenario
    system: System
    end: Ended
    status: str
    before: dict[str, Any]
    after: dict[str, Any]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name in IN_SHORT else pytest.mark.full) for name in SCENARIOS
    ],
)
def fault(
    request: pytest.FixtureRequest, system: System, postgres_server: PostgresServer
) -> Iterator[Fault]:
    name, scenario = request.param, SCENARIOS[request.param]
    if name == "small disk is full" and not can_mount(system.home.data):
        pytest.skip("this user may not mount file systems")
    with fresh_database(postgres_server, "dagsters_own") as url:
        if name.endswith(ELSEWHERE):
            more = {**system.home.more, "RECSYS_DAGSTER_DATABASE_URL": url}
            system = replace(system, home=replace(system.home, more=more))
        system.change_orders()
        before = system.lists()
        with repaired(system):
            end = scenario.run(system)
        status = system.last_run().status
        yield Fault(name, scenario, system, end, status, before, system.lists())


def test_the_run_fails(fault: Fault):
    assert fault.end.code == 1, fault.end.printed
    if fault.scenario.recorded:
        assert fault.status == "FAILURE"


def test_the_run_says_what_happened_and_what_to_do(fault: Fault):
    for pattern in fault.scenario.says:
        assert re.search(pattern, fault.end.printed), fault.end.printed
    assert "Traceback" not in fault.end.printed


def test_what_was_served_stays(fault: Fault):
    if fault.scenario.served_unchanged:
        assert fault.after == fault.before
    assert fault.after.keys() >= fault.before.keys()
    lists_are_whole(fault.after)


def test_the_next_run_makes_it_good(fault: Fault):
    if not FULL and fault.name != LAST_IN_SHORT:
        pytest.skip("in the short form one run makes good what all faults have left")
    fault.system.home.recsys("materialize", "--force")
    everything_is_published(fault.system)
