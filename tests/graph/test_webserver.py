"""The system as it runs: Dagster's webserver and daemon and the API, asked as the browser asks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from recsys_assets.local.processes import running_system
from recsys_assets.tables import OUR_TABLES
from tests.commands import ROOT, Home, eventually, free_ports
from tests.graphs import Graph

LOCATION = {"repositoryLocationName": "recsys_assets", "repositoryName": "__repository__"}
LAUNCH = """
mutation LaunchPipelineExecution($p: ExecutionParams!) {
  launchPipelineExecution(executionParams: $p) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
RUN = "query ($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } } }"
ASSET = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      groupName
      assetMaterializations(limit: 1) { runId metadataEntries { label } }
      assetChecksOrError { ... on AssetChecks { checks {
        name executionForLatestMaterialization { status }
      } } }
    }
  }
}"""
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
  name loadStatus locationOrLoadError { __typename }
} } } }"""
INSTIGATORS = """
query ($r: RepositorySelector!) {
  sensorsOrError(repositorySelector: $r) { ... on Sensors { results {
    name sensorState { status } } } }
  schedulesOrError(repositorySelector: $r) { ... on Schedules { results {
    name scheduleState { status } } } }
}"""
RESOURCES = """
query ($r: RepositorySelector!) {
  allTopLevelResourceDetailsOrError(repositorySelector: $r) {
    ... on ResourceDetailsList { results { name configuredValues { key value type } } }
  }
}"""


def test_the_running_system(
    small_sample_database_url: str,
    graph: Graph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    sample = replace(graph, database_url=small_sample_database_url)
    assert sample.run(config={"als_model": {"factors": 16}}).success
    home = Home(tmp_path)
    for name, value in {
        "DATABASE_URL": sample.database_url,
        "REDIS_URL": sample.redis_url,
        "STATE_DIR": str(home.state),
        "DATA_DIR": str(sample.folder),
        "AUTOMATION_ENABLED": "true",
    }.items():
        monkeypatch.setenv(f"RECSYS_{name}", value)
    ports = free_ports()
    with (
        running_system(
            ROOT, home.state / "logs", dagster_port=ports, api_port=ports + 1
        ) as addresses,
        httpx.Client(base_url=addresses.dagster, trust_env=False, timeout=60) as dagster,
        httpx.Client(base_url=addresses.api, trust_env=False) as api,
    ):
        assert len(home.processes()) >= 4
        pages_answer(dagster, api)
        automation_is_on(dagster)
        urls_stay_secret(dagster, sample)
        an_asset_is_launched_as_the_browser_does(dagster, sample)
        a_new_order_reaches_the_api(sample, api)
    assert home.processes() == set()
    dagsters_tables_are_apart(sample)


def query(client: httpx.Client, text: str, **variables: Any) -> dict[str, Any]:
    response = client.post("/graphql", json={"query": text, "variables": variables})
    answer = response.json()
    assert "errors" not in answer, answer["errors"]
    data: dict[str, Any] = answer["data"]
    return data


def pages_answer(dagster: httpx.Client, api: httpx.Client) -> None:
    for page in ("/", "/asset-groups", "/assets/global_top_buys", "/runs"):
        response = dagster.get(page)
        assert response.status_code == 200
        assert "<html" in response.text
    for page in ("/", "/schema", "/health/ready", "/metrics"):
        assert api.get(page).status_code == 200

    def loaded() -> bool:
        (entry,) = query(dagster, LOCATIONS)["workspaceOrError"]["locationEntries"]
        assert entry["name"] == "recsys_assets"
        if entry["loadStatus"] != "LOADED":
            return False
        assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
        return True

    eventually(loaded, "loading the code location")


def automation_is_on(dagster: httpx.Client) -> None:
    found = query(dagster, INSTIGATORS, r=LOCATION)
    (sensor,) = found["sensorsOrError"]["results"]
    schedules = found["schedulesOrError"]["results"]
    assert sensor == {"name": "new_orders", "sensorState": {"status": "RUNNING"}}
    assert {schedule["name"] for schedule in schedules} == {
        "retrain_daily_schedule",
        "delete_old_runs_schedule",
    }
    assert all(schedule["scheduleState"] == {"status": "RUNNING"} for schedule in schedules)


def urls_stay_secret(dagster: httpx.Client, graph: Graph) -> None:
    found = query(dagster, RESOURCES, r=LOCATION)["allTopLevelResourceDetailsOrError"]["results"]
    values = {
        (resource["name"], value["key"]): value for resource in found
        for value in resource["configuredValues"]
    }  # fmt: skip
    assert values["shop", "url"]["value"] == "RECSYS_DATABASE_URL"
    assert values["redis", "url"]["value"] == "RECSYS_REDIS_URL"
    assert graph.database_url not in json.dumps(found)


def an_asset_is_launched_as_the_browser_does(dagster: httpx.Client, graph: Graph) -> None:
    with graph.redis() as client:
        client.delete("global:top_buys")
    parameters = {
        "selector": {
            **LOCATION,
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["global_top_buys"]}],
        },
        "mode": "default",
        "runConfigData": "{}",
        "executionMetadata": {"tags": []},
    }
    launched = query(dagster, LAUNCH, p=parameters)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def ended() -> bool:
        status = query(dagster, RUN, id=run_id)["runOrError"]["status"]
        assert status not in {"FAILURE", "CANCELED"}
        return bool(status == "SUCCESS")

    eventually(ended, "the run")
    asset = query(dagster, ASSET, key={"path": ["global_top_buys"]})["assetNodeOrError"]
    assert asset["groupName"] == "publish"
    (event,) = asset["assetMaterializations"]
    assert event["runId"] == run_id
    assert "products_sold" in {entry["label"] for entry in event["metadataEntries"]}
    assert asset["assetChecksOrError"]["checks"] == [
        {
            "name": "global_top_buys_readable",
            "executionForLatestMaterialization": {"status": "SUCCEEDED"},
        }
    ]
    with graph.redis() as client:
        assert len(json.loads(str(client.get("global:top_buys")))["products"]) == 120


def a_new_order_reaches_the_api(graph: Graph, api: httpx.Client) -> None:
    with graph.database() as connection:
        (product,) = connection.execute("SELECT min(product_id) FROM order_items").fetchone() or ()
        connection.execute("INSERT INTO orders VALUES (1, 999999, 'completed', now(), now())")
        connection.execute("INSERT INTO order_items VALUES (1, %s, 1, 9.99)", [product])

    def answer() -> dict[str, Any] | None:
        body: dict[str, Any] = api.get(
            "/api/recommendations/top-buys/", params={"user_id": 999_999}
        ).json()
        return body if body["source"] == "personal" else None

    personal = eventually(answer, "the new user's list")
    assert personal["products"][0]["product_id"] == product


def dagsters_tables_are_apart(graph: Graph) -> None:
    with psycopg.connect(graph.database_url) as connection:
        rows = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'dagster')"
        ).fetchall()
    assert {table for schema, table in rows if schema == "public"} == {
        "orders",
        "order_items",
        "products",
        *OUR_TABLES,
    }
    assert {"runs", "event_logs"} <= {table for schema, table in rows if schema == "dagster"}
