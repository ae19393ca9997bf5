"""A run is under way as long as its process lives: one that was killed is found out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from rich.console import Console

from recsys_assets.batch import materialize
from recsys_assets.run_launcher import (
    PROCESS_TAG,
    MonitoredRunLauncher,
    is_executed,
    lives_since,
    process_tags,
)


@contextmanager
def living() -> Iterator[int]:
    """The id of a process that lives until the end of the block, and is no zombie then."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_process_lives_until_it_is_killed():
    with living() as pid:
        now = time.time()
        assert lives_since(pid, now)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert not lives_since(pid, now)  # a zombie
    assert not lives_since(pid, now)  # nothing at all


def test_a_process_that_came_by_the_id_later_is_another():
    with living() as pid:
        assert not lives_since(pid, time.time() - 60)


def test_the_process_of_a_run_is_known_on_its_own_host_alone():
    (tag,) = process_tags().values()
    assert is_executed(tag)
    with living() as pid:
        here = f"{socket.gethostname()} {pid} {time.time()}"
        elsewhere = f"elsewhere {pid} {time.time()}"
        assert is_executed(here)
    assert not is_executed(here)
    assert is_executed(elsewhere)
    assert is_executed("")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose runs the launcher looks after."""
    settings = {
        "run_launcher": {
            "module": MonitoredRunLauncher.__module__,
            "class": MonitoredRunLauncher.__name__,
        }
    }
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=settings) as instance:
        yield instance


def health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> CheckRunHealthResult:
    assert instance.run_launcher.supports_check_run_worker_health
    return instance.run_launcher.check_run_worker_health(run)


def test_a_run_of_the_command_line_fails_with_its_process(instance: dg.DagsterInstance):
    with living() as pid:
        tag = f"{socket.gethostname()} {pid} {time.time()}"
        run = dg.DagsterRun("any", tags={PROCESS_TAG: tag})
        assert health(instance, run).status is WorkerStatus.RUNNING
    status, message, *_ = health(instance, run)
    assert status is WorkerStatus.FAILED
    assert message is not None
    assert "is gone" in message


def test_a_launched_run_fails_with_its_process(instance: dg.DagsterInstance, tmp_path: Path):
    server = {GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": str(tmp_path / "none")})}
    run = instance.create_run_for_job(_any_job, tags=server, status=dg.DagsterRunStatus.STARTED)
    with living() as pid:
        instance.report_engine_event("Started", run, EngineEventData.in_process(pid))
        assert health(instance, run).status is WorkerStatus.RUNNING
    assert health(instance, run).status is WorkerStatus.FAILED


def test_of_a_run_of_another_machine_that_is_silent_nothing_is_known(instance: dg.DagsterInstance):
    server = {GRPC_INFO_TAG: json.dumps({"host": "elsewhere.invalid", "port": 4000})}
    run = instance.create_run_for_job(_any_job, tags=server, status=dg.DagsterRunStatus.STARTED)
    with living() as pid:
        instance.report_engine_event("Started", run, EngineEventData.in_process(pid))
    assert health(instance, run).status is WorkerStatus.RUNNING


def test_the_command_line_tags_its_runs(instance: dg.DagsterInstance):
    definitions = dg.Definitions([_asset])
    run_id = materialize(definitions, instance, Console(quiet=True), assets=["_asset"]).run_id
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags[PROCESS_TAG].startswith(f"{socket.gethostname()} {os.getpid()} ")


@dg.asset
def _asset() -> None:
    """Nothing."""


@dg.job
def _any_job() -> None:
    """Nothing."""
