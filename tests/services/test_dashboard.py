"""docs/grafana-dashboard.json: each of its queries, against what the API that runs tells."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import isnan
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
import redis

from serving.contract import Family
from serving.metrics import FLUSH_SECONDS
from tests.published import Publisher
from tests.serving_processes import free_port, running

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana-dashboard.json"
TOP_BUYS = "/api/recommendations/top-buys/"
PATHS = [TOP_BUYS, f"{TOP_BUYS}?user_id=1", "/api/recommendations/bought-together/5/", "/none"]
OF_PROMETHEUS = {"job", "instance"}
SECONDS_TO_SCRAPE = 30

METRIC = re.compile(r"\b(recsys_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)=~?"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
IN_LEGEND = re.compile(r"\{\{(\w+)\}\}")


def targets() -> Iterator[tuple[str, str]]:
    """Every query of every panel, and its legend."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]


def as_grafana_sends(query: str) -> str:
    """The query for all jobs and routes, and over a short time."""
    variables = {"$job": ".*", "$route": ".*", "$__rate_interval": "5s"}
    for name, value in variables.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def labels_by_metric(scrape: str) -> dict[str, set[str]]:
    """The names of a scrape's series, and the labels that each has."""
    series = re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", scrape, re.MULTILINE)
    found: dict[str, set[str]] = {}
    for name, labels in series:
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


@pytest.fixture
def service(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """The API, run by one worker, with a few lists to serve."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        published = Publisher(client)
        published.top_buys(None, 1, 2)
        published.top_buys(1, 3)
        for family in Family:
            published.record(family)
    (tmp_path / "api").mkdir()
    with running(redis_url, tmp_path / "api", "--workers", "1") as (client, _):
        yield client


def use(service: httpx.Client) -> None:
    for path in PATHS:
        service.get(path)


def test_every_metric_and_label_of_a_query_is_in_a_scrape(service):
    use(service)
    sleep(2 * FLUSH_SECONDS)
    told = labels_by_metric(service.get("/metrics").text)
    assert len(list(targets())) > 10
    for query, legend in targets():
        metrics = METRIC.findall(query)
        assert metrics, query
        for name, matchers in metrics:
            assert name in told, query
            labels = {label for label, _ in MATCHER.findall(matchers)}
            assert labels <= told[name] | OF_PROMETHEUS, query
        of_all = set.intersection(*(told[name] for name, _ in metrics))
        groups = {label for by in GROUPING.findall(query) for label in by.split(", ")}
        assert groups <= of_all, query
        kept = groups if groups else of_all | OF_PROMETHEUS
        assert set(IN_LEGEND.findall(legend)) <= kept, query


def test_no_metric_of_the_api_is_left_out(service):
    use(service)
    sleep(2 * FLUSH_SECONDS)
    told = {
        name.removesuffix("_created") for name in labels_by_metric(service.get("/metrics").text)
    }
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told}
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", m) for q, _ in targets() for m, _ in METRIC.findall(q)
    }
    assert {name for name in families if name.startswith("recsys_")} == shown


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of a Prometheus that scrapes one target every second."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: api, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def values_of(client: httpx.Client, query: str) -> list[float]:
    """What Prometheus makes of a query now; nothing before it answers."""
    try:
        response = client.get("/api/v1/query", params={"query": query})
    except httpx.TransportError:
        return []
    if response.status_code == 503:
        return []
    answer: Any = response.json()
    assert answer["status"] == "success", (query, answer)
    return [float(sample["value"][1]) for sample in answer["data"]["result"]]


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus, a Debian package")
def test_prometheus_answers_every_query(service, tmp_path: Path):
    queries = [as_grafana_sends(query) for query, _ in targets()]
    with prometheus(service.base_url.netloc.decode(), tmp_path) as client:
        deadline = monotonic() + SECONDS_TO_SCRAPE
        while queries and monotonic() < deadline:
            use(service)
            sleep(0.2)
            values = {query: values_of(client, query) for query in queries}
            queries = [q for q, found in values.items() if not found or any(map(isnan, found))]
    assert queries == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of prometheus")
def test_a_scrape_is_in_good_form(service):
    use(service)
    sleep(2 * FLUSH_SECONDS)
    scrape = service.get("/metrics").content
    linted = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape, capture_output=True, check=False
    )
    assert (linted.returncode, linted.stderr) == (0, b"")
