"""The guests' list as Redis gets it."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from recsys_assets.publish.merchandising import Action, Rule, Scope
from recsys_assets.publish.popularity import popular_list
from recsys_assets.publish.redis_writer import Edition
from tests.assortments import assortment

EDITION = Edition("v1", datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 2, 28, tzinfo=UTC))


@pytest.mark.parametrize("ids", [[5, 3, 9], ["tea", "ale", "rum"]])
def test_the_guests_list(ids: list[int | str]) -> None:
    popularity = pa.table({"product_id": ids, "weight": [2.5, 1.12345678, 0.25]})
    key, value = popular_list(popularity, 2, EDITION, assortment())
    assert key == "global:top_buys"
    assert json.loads(value) == {
        "schema": 1,
        "source": "global",
        "model_version": "v1",
        "generated_at": "2025-03-01T00:00:00Z",
        "orders_through": "2025-02-28T00:00:00Z",
        "products": [
            {"product_id": ids[0], "score": 2.5},
            {"product_id": ids[1], "score": 1.123457},
        ],
    }


@pytest.mark.parametrize(("rows", "length", "listed"), [(3, 100, 3), (0, 100, 0)])
def test_a_short_catalogue_is_a_short_list(rows: int, length: int, listed: int) -> None:
    columns = {"product_id": pa.array(range(rows), pa.int64()), "weight": pa.array([1.0] * rows)}
    _, value = popular_list(pa.table(columns), length, EDITION, assortment())
    assert len(json.loads(value)["products"]) == listed


def test_the_guests_list_is_as_the_shop_wants_it() -> None:
    popularity = pa.table({"product_id": [5, 3, 9, 7, 4], "weight": [8.0, 7.0, 6.0, 5.0, 4.0]})
    wanted = assortment(
        Rule(Scope.TOP_BUYS, None, 7, Action.PIN, 1.0),
        Rule(Scope.EVERYWHERE, None, 9, Action.BLOCK, 0.0),
        Rule(Scope.TOP_BUYS, None, 4, Action.BOOST, 2.5),
        unavailable=(5,),
        categories={4: 0, 3: 0},
        most_per_category=1,
    )
    _, value = popular_list(popularity, 4, EDITION, wanted)
    listed = [(p["product_id"], p["score"]) for p in json.loads(value)["products"]]
    assert listed == [(7, 11.0), (4, 10.0)]
    assert json.loads(value)["pinned"] == [7]
