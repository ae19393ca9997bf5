"""What `recsys status`, the API and the assets' metadata say of one state is the same."""

import io
import json
from contextlib import closing
from datetime import UTC, datetime

from litestar.testing import TestClient
from rich.console import Console

from recsys_assets.publish.redis_client import connect
from recsys_assets.status import status_tables
from serving.app import create_app
from serving.settings import ServingSettings
from tests.graphs import Graph, metadata
from tests.shops import Order, add_orders, create_shop, day

EVERY_PAIR = {"basket_rules": {"min_orders": 1}, "bought_together": {"min_orders": 1}}


def status(graph: Graph) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    settings = graph.settings.model_copy(update={"data_dir": graph.folder})
    with graph.database() as connection, closing(connect(graph.redis_url)) as client:
        for table in status_tables(settings, connection, client, graph.instance):
            console.print(table)
    return console.export_text()


def row(text: str, asset: str) -> str:
    (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{asset} "))
    return line


def test_status_api_and_metadata_agree(graph: Graph):
    with graph.database() as connection:
        create_shop(connection, [Order(n, n % 3 + 1, [10, 11, n], day(n)) for n in range(1, 9)])
    trained = graph.run(config=EVERY_PAIR)
    with graph.database() as connection:
        add_orders(connection, [Order(9, 1, [12], day(9.5)), Order(10, None, [11], day(9.75))])
    behind = status(graph)
    assert f"{day(9.75) - day(8)} of orders" in behind
    refreshed = graph.refresh()

    printed = status(graph)
    assert "none" in printed
    with TestClient(create_app(ServingSettings(redis_url=graph.redis_url))) as client:
        top_buys = "/api/recommendations/top-buys/"
        of_user = client.get(top_buys, params={"user_id": 2}).json()  # whom no order concerned
        of_guests = client.get(top_buys).json()
        together = client.get("/api/recommendations/bought-together/10/").json()
    for asset, answer, run, through in (
        ("user_top_buys", of_user, refreshed, day(9.75)),
        ("global_top_buys", of_guests, refreshed, day(9.75)),
        ("bought_together", together, trained, day(8)),
    ):
        told = metadata(run, asset)
        record = json.loads(graph.published()[f"publication:{asset}"])
        assert answer["model_version"] == told["model_version"] == record["model_version"]
        assert datetime.fromisoformat(answer["orders_through"]) == through
        assert datetime.fromisoformat(record["orders_through"]) == through
        assert datetime.fromtimestamp(told["orders_through"], UTC) == through
        assert record["model_version"] in row(printed, asset)
        assert f"{through:%Y-%m-%d %H:%M}" in row(printed, asset)
