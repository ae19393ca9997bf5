"""ALS as tutorials set it, on all households of the sample shop: refused beside the defaults."""

from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest

from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from recsys_assets.local.sample_shop import load_sample
from recsys_assets.settings import Settings
from tests.graphs import PERSONAL, Graph, checks, contents

pytestmark = pytest.mark.slow

TUTORIALS = [{"alpha": 40.0}, {"alpha": 40.0, "factors": 64, "regularization": 0.01}]


@pytest.fixture
def shop(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Graph]:
    """The whole sample shop with the lists of the default model."""
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE tutorials")
    url = postgres_server.database_url("tutorials")
    with psycopg.connect(url) as connection:
        load_sample(connection)
    folder = tmp_path_factory.mktemp("tutorials")
    server = RedisServer(folder / "redis", options={"appendfsync": "no"})
    with server.in_use(), dg.DagsterInstance.ephemeral() as instance:
        data = folder / "artifacts"
        shop = Graph(url, server.url, data, instance, Settings(data_dir=data))
        assert shop.run("user_product_interactions", *PERSONAL, force=False).success
        yield shop


@pytest.mark.timeout(900)
def test_an_alpha_of_forty_is_refused_and_the_lists_stay(shop: Graph) -> None:
    lists, current = contents(shop.published()), (shop.folder / "als_model.pkl").read_bytes()
    for config in TUTORIALS:
        done = shop.run(*PERSONAL, config={"als_model": config}, force=False)
        assert not done.success
        told = checks(done, "top_buys_backtest")["holds_incumbent"]
        assert not told.passed
        assert told.severity is dg.AssetCheckSeverity.ERROR
        assert told.metadata["high new products"].value < 0
        assert contents(shop.published()) == lists
        assert (shop.folder / "als_model.pkl").read_bytes() == current
