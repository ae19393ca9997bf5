"""What an orchestrator is told: alive, ready, and how old what is served is."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from litestar.testing import TestClient
from msgspec import structs

from serving.app import create_app
from serving.contract import Family, Publication, encode_publication, publication_key
from serving.draining import DRAIN_FILE
from serving.health import readiness
from serving.settings import ServingSettings
from tests.published import GENERATED, Publisher

FINISHED = GENERATED + timedelta(minutes=2)
RECORD = Publication(
    family=Family.GLOBAL_TOP_BUYS,
    model_version="als-7",
    generated_at=GENERATED,
    orders_through=None,
    finished_at=FINISHED,
    keys=1,
    id_kind="integer",
)


@pytest.mark.parametrize(
    ("age", "told", "fresh"), [(0, 0, True), (100, 100, True), (100.5, 100.5, False), (-9, 0, True)]
)
def test_a_family_is_fresh_up_to_an_age(age: float, told: float, fresh: bool):
    records = {Family.GLOBAL_TOP_BUYS: RECORD, Family.USER_TOP_BUYS: None}
    answer = readiness(records, 100, FINISHED + timedelta(seconds=age))
    assert answer.families[Family.USER_TOP_BUYS] is None
    state = answer.families[Family.GLOBAL_TOP_BUYS]
    assert state is not None
    assert (state.age_seconds, state.fresh) == (told, fresh)
    assert {name: getattr(state, name) for name in structs.asdict(RECORD)} == structs.asdict(RECORD)


def test_ready_tells_which_families_are_there_and_fresh(api: TestClient, published: Publisher):
    published.record(Family.BOUGHT_TOGETHER)  # in March 2025
    answer = api.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    families = answer.json()["families"]
    assert set(families) == set(Family)
    assert families["user_top_buys"] is None
    assert families["bought_together"]["fresh"] is False
    age = (datetime.now(UTC) - GENERATED).total_seconds()
    assert families["bought_together"]["age_seconds"] == pytest.approx(age, abs=3600)


@pytest.mark.parametrize(("hours", "fresh"), [(25, True), (27, False)])
def test_what_is_older_than_a_day_and_two_hours_is_not_fresh_and_still_served(
    api: TestClient, published: Publisher, hours: int, fresh: bool
):
    published.top_buys(None, 1)
    record = structs.replace(RECORD, finished_at=datetime.now(UTC) - timedelta(hours=hours))
    published.client.set(publication_key(record.family), encode_publication(record))
    answer = api.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["families"]["global_top_buys"]["fresh"] is fresh
    assert len(api.get("/api/recommendations/top-buys/").json()["products"]) == 1


def test_how_old_is_fresh_is_a_setting(redis_url: str, published: Publisher):
    record = structs.replace(RECORD, finished_at=datetime.now(UTC) - timedelta(hours=1))
    published.client.set(publication_key(record.family), encode_publication(record))
    for limit in (3000, 4200):
        settings = ServingSettings(redis_url=redis_url, fresh_seconds=limit)
        with TestClient(create_app(settings)) as api:
            families = api.get("/health/ready").json()["families"]
        assert families["global_top_buys"]["fresh"] is (limit > 3600)


def test_a_server_that_drains_is_alive_and_not_ready(
    api: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    flag = tmp_path / "draining"
    monkeypatch.setenv(DRAIN_FILE, str(flag))
    assert api.get("/health/ready").status_code == 200
    flag.touch()
    answer = api.get("/health/ready")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert "stop" in answer.json()["detail"]
    assert api.get("/health/live").json() == {"status": "alive"}
    assert api.get("/api/recommendations/top-buys/").status_code == 200


def test_live_needs_no_redis():
    settings = ServingSettings(redis_url="redis://127.0.0.1:1", redis_timeout_ms=200)
    with TestClient(create_app(settings)) as api:
        assert api.get("/health/ready").status_code == 503
        assert api.get("/health/live").json() == {"status": "alive"}
