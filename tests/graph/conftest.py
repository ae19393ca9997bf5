"""The graph on servers of the tests."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from recsys_assets.settings import Settings
from tests.graphs import Graph


@pytest.fixture
def graph(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Graph]:
    """The graph on an empty database and an empty Redis."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(database_url, redis_url, tmp_path / "artifacts", instance, Settings())
