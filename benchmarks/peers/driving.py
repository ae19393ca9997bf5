"""Driving a service: wrk where it is installed, else the generator in ``load.py``.

wrk sends the next request of a connection when it has the answer to the last: as many as the
service can take. For a rate below that, each connection pauses in between, for times that are
exponentially distributed, and there are so many of them that the pauses are long beside the
answers.
"""

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

CONNECTIONS = 64
PAUSE_SECONDS = 0.02
GENERATOR = Path(__file__).with_name("load.py")

_SCRIPT = """\
local ready = {{}}
init = function()
  math.randomseed(1)
  for path in io.lines("{paths}") do ready[#ready + 1] = wrk.format("GET", path) end
end
request = function() return ready[math.random(#ready)] end
{pause}
done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format(
    '{{"requests": %d, "failed": %d, "seconds": %f, "p50": %f, "p99": %f}}',
    summary.requests - errors.status, failed, summary.duration / 1e6,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"""
_PAUSE = (
    "delay = function() return math.floor(0.5 - {milliseconds} * math.log(1 - math.random())) end"
)


@dataclass(frozen=True)
class Load:
    """What a generator saw: requests answered, by a status below 400, and those not; in seconds.

    ``cpu`` is the processor time that the generator took itself, ``late`` what one in a hundred of
    its requests was behind its time at least, where it keeps to times.
    """

    requests: int
    failed: int
    seconds: float
    p50: float
    p99: float
    cpu: float
    late: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def has_wrk() -> bool:
    """Whether wrk is on the PATH."""
    return shutil.which("wrk") is not None


def flood(url: str, paths: Sequence[str], seconds: float) -> Load:
    """As many requests as the service can take on 64 connections."""
    return _wrk(url, paths, seconds, CONNECTIONS) if has_wrk() else _ours(url, paths, seconds)


def steady(url: str, paths: Sequence[str], seconds: float, rate: float) -> Load:
    """About ``rate`` requests a second, from as many connections as that takes with pauses."""
    if not has_wrk():
        return offered(url, paths, seconds, rate)
    connections = max(CONNECTIONS, round(rate * PAUSE_SECONDS))
    return _wrk(url, paths, seconds, connections, pause=connections / rate)


def offered(url: str, paths: Sequence[str], seconds: float, rate: float) -> Load:
    """``rate`` requests a second that come whatever the service does, by the own generator."""
    return _ours(url, paths, seconds, "--rate", str(rate))


def redis_benchmark(port: int, key: str, requests: int) -> float | None:
    """GET a second by redis-benchmark on 64 connections; None where it is not installed."""
    program = shutil.which("redis-benchmark")
    if program is None:
        return None
    command = (program, "-p", port, "-c", CONNECTIONS, "-n", requests, "-q", "GET", key)
    told = subprocess.run(list(map(str, command)), capture_output=True, check=True, text=True)
    return float(re.findall(r"([\d.]+) requests per second", told.stdout)[-1])


def _wrk(
    url: str, paths: Sequence[str], seconds: float, connections: int, pause: float | None = None
) -> Load:
    with TemporaryDirectory(prefix="recsys-wrk-") as name:
        file, script = Path(name) / "paths", Path(name) / "script.lua"
        file.write_text("".join(f"{path}\n" for path in paths))
        pauses = "" if pause is None else _PAUSE.format(milliseconds=pause * 1000)
        script.write_text(_SCRIPT.format(paths=file, pause=pauses))
        return _run(
            "wrk",
            *("-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s"),
            *("--timeout", "5s", "-s", str(script), url),
        )


def _ours(url: str, paths: Sequence[str], seconds: float, *more: str) -> Load:
    with TemporaryDirectory(prefix="recsys-load-") as name:
        file = Path(name) / "paths"
        file.write_text("".join(f"{path}\n" for path in paths))
        return _run(
            *(sys.executable, str(GENERATOR), url, str(file), "--seconds", str(seconds)),
            *("--connections", str(CONNECTIONS), *more),
        )


def _run(*command: str) -> Load:
    """Run a generator; the last line of what it prints is JSON."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen = json.loads(told.stdout.splitlines()[-1])
    return Load(
        requests=int(seen["requests"]),
        failed=int(seen["failed"]),
        seconds=seen["seconds"],
        p50=seen["p50"],
        p99=seen["p99"],
        late=seen.get("late", 0.0),
        cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
