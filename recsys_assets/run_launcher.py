"""Dagster's run launcher, which can also tell whether a run under way still has its process.

`dagster.yaml` names it. Without it, a run whose process was killed would count as under way for as
long as a run may take, and nothing would start in its place.
"""

import os
import socket
import time
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

PROCESS_TAG = "recsys/process"
HERE = ("localhost", "127.0.0.1", "::1", socket.gethostname())
ANSWER_SECONDS = 10
# Of a process in /proc (man proc_pid_stat): places behind its name, and units.
STATE, STARTED = 0, 19
DEAD = "ZX"
TICKS = os.sysconf("SC_CLK_TCK")
GONE = (
    "the process that executed the run is gone: it was killed, or its machine has stopped."
    " Nothing is lost, the next run goes on where this one was"
)


class MonitoredRunLauncher(DefaultRunLauncher):
    """Launches runs through the code server, and finds those whose process is gone."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Asks the daemon to look after runs every ``run_monitoring.poll_interval_seconds``."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING as long as the run's process lives, FAILED once it is gone.

        RUNNING as well where that cannot be seen from here, for the daemon fails a run at any
        other answer; such a run ends by ``run_monitoring.max_runtime_seconds`` at the latest.
        """
        if GRPC_INFO_TAG in run.tags:
            lives = self._is_executed_here(run.run_id) or self._is_known_to_server(run.run_id)
        else:
            lives = is_executed(run.tags.get(PROCESS_TAG, ""))
        if lives:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, GONE)

    def _is_executed_here(self, run_id: str) -> bool:
        """Whether the process that has reported to execute the run lives on this machine.

        The code server knows it only as long as its code is not reloaded.
        """
        records = self._instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.ENGINE_EVENT
        ).records
        return any(
            lives_since(int(str(pid.value)), record.timestamp)
            for record in records
            if (event := record.event_log_entry.dagster_event)
            and (pid := event.engine_event_data.metadata.get("pid"))
        )

    def _is_known_to_server(self, run_id: str) -> bool:
        """Whether the code server that was asked to execute the run, on any machine, still does."""
        client = self._get_grpc_client_for_termination(run_id)  # type: ignore[no-untyped-call]
        if client is None:  # it has ended meanwhile
            return True
        request = CanCancelExecutionRequest(run_id=run_id)
        try:
            reply = client.can_cancel_execution(request, timeout=ANSWER_SECONDS)
        except DagsterUserCodeUnreachableError:
            # One on this machine is gone, and its runs with it; of another nothing is known.
            return not (client.socket or client.host in HERE)
        return deserialize_value(reply, CanCancelExecutionResult).can_cancel


def process_tags() -> dict[str, str]:
    """Tags of a run that this process executes: its host, its id, and a time at which it lives."""
    return {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {time.time():.0f}"}


def is_executed(process: str) -> bool:
    """Whether the process that a tag of :func:`process_tags` names lives, or may live elsewhere."""
    match process.split():
        case [host, pid, then] if host == socket.gethostname():
            return lives_since(int(pid), float(then))
        case _:
            return True


def lives_since(pid: int, then: float) -> bool:
    """Whether the process that had this id at a time, in seconds since 1970, still lives.

    A later one that has come by the same id, as after a restart of the machine, is another.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status[STATE] not in DEAD and _booted() + int(status[STARTED]) / TICKS < then + 1


def _booted() -> float:
    """When the machine was started, in whole seconds since 1970."""
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("btime")).split()[1])
