"""What /metrics tells beside requests: workers, their breaker, and how old publications are."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from litestar.testing import TestClient
from prometheus_client import REGISTRY

from serving import metrics
from serving.app import create_app
from serving.contract import Family, publication_key
from serving.metrics import FLUSH_SECONDS, Tally
from serving.settings import ServingSettings
from tests.answers import metrics_of, round_trips
from tests.published import GENERATED, Publisher

STATES = ["closed", "half-open", "open"]
AGE = 'recsys_publication_age_seconds{{family="{}"}}'
UNREACHABLE = ServingSettings(redis_url="redis://127.0.0.1:1", redis_timeout_ms=200)


def ages_in(told: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in told.items() if name.startswith(AGE.split("{{")[0])}


def test_a_tally_has_a_bucket_for_each_bound_and_one_beyond():
    tally = Tally((1, 2, 4))
    for value in [1, 2, 3, 4, 5, 100]:
        tally.observe(value)
    assert tally.counts == [1, 1, 2, 2]
    assert tally.sum == 115
    tally.clear()
    assert (tally.counts, tally.sum) == ([0, 0, 0, 0], 0)


def test_the_age_of_each_publication_is_told(api: TestClient, published: Publisher):
    assert ages_in(metrics_of(api)) == {}
    published.record(Family.BOUGHT_TOGETHER)
    age = (datetime.now(UTC) - GENERATED).total_seconds()
    assert ages_in(metrics_of(api)) == {AGE.format("bought_together"): pytest.approx(age, abs=3600)}


def test_a_record_that_cannot_be_read_hides_no_other(api: TestClient, published: Publisher):
    published.record(Family.BOUGHT_TOGETHER)
    published.client.set(publication_key(Family.USER_TOP_BUYS), "{}")
    assert ages_in(metrics_of(api)).keys() == {AGE.format("bought_together")}


def test_without_redis_all_else_is_told():
    with TestClient(create_app(UNREACHABLE)) as api:
        for _ in range(2):
            told = metrics_of(api)
            assert ages_in(told) == {}
            assert told['recsys_redis_breaker{state="closed"}'] == 0
        failures = 'recsys_redis_failures_total{reason="unavailable"}'
        assert api.get("/api/recommendations/top-buys/").status_code == 503
        assert metrics_of(api)[failures] == told[failures] + 1


def gauges() -> tuple[float | None, dict[str, float | None]]:
    """The requests at work, and the states of the breaker."""
    breaker = {s: REGISTRY.get_sample_value("recsys_redis_breaker", {"state": s}) for s in STATES}
    return REGISTRY.get_sample_value("recsys_http_requests_in_flight"), breaker


def test_how_a_worker_is_doing_is_told_again_and_again():
    async def tell() -> None:
        at_work, state = 3, "open"
        async with metrics.told(lambda: at_work, lambda: state):
            assert gauges() == (3, {"closed": 0, "half-open": 0, "open": 1})
            at_work, state = 5, "half-open"
            await asyncio.sleep(FLUSH_SECONDS + 0.1)
            assert gauges() == (5, {"closed": 0, "half-open": 1, "open": 0})

    asyncio.run(tell())
    memory = REGISTRY.get_sample_value("recsys_worker_resident_bytes")
    assert memory is not None
    assert memory > 10_000_000


def test_reads_that_share_a_round_trip_are_one_observation(api: TestClient):
    before = metrics_of(api)
    metrics.count_round_trip(3, 0.001)
    after = metrics_of(api)
    assert round_trips(before, after) == 1
    reads = "recsys_redis_reads_per_round_trip_sum"
    assert after[reads] - before[reads] == 3 + 1  # that of the scrape itself
    in_four = 'recsys_redis_reads_per_round_trip_bucket{le="4.0"}'
    in_two = 'recsys_redis_reads_per_round_trip_bucket{le="2.0"}'
    assert after[in_four] - before[in_four] == 2
    assert after[in_two] - before[in_two] == 1


def test_requests_beyond_the_bound_are_counted(redis_url: str):
    app = create_app(ServingSettings(redis_url=redis_url, in_flight=2))
    with TestClient(app) as api:
        before = metrics_of(api)
        app.in_flight = 2
        assert [api.get(path).status_code for path in ("/health/live", "/metrics")] == [200, 200]
        answer = api.get("/api/recommendations/top-buys/", headers={"X-Request-ID": "abc"})
        app.in_flight = 0
        assert answer.status_code == 503
        assert answer.headers["x-request-id"] == "abc"
        refused = 'recsys_http_refused_total{reason="busy"}'
        assert metrics_of(api)[refused] - before[refused] == 1


def test_the_gauges_of_workers_that_have_ended_are_forgotten(
    api: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    file = tmp_path / f"gauge_liveall_{ended.pid}.db"
    file.touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert api.get("/metrics").status_code == 200
    assert not file.exists()


def test_what_starts_the_workers_imports_no_metrics():
    """Prometheus-client decides when it is imported whether workers share a folder."""
    program = "import sys, serving.server; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert not {b"prometheus_client", b"litestar"} & set(output.split())
