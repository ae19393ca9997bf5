"""What must hold whatever has happened, worked out independently of the product's code."""

import json
import math
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recsys_assets.learn.artifacts import load_artifact, load_candidate
from recsys_assets.publish.list_making import FAMILIES
from serving.contract import (
    Family,
    borrowed_key,
    example_users_key,
    publication_key,
    unavailable_key,
)
from tests.faults.system import System
from tests.graphs import keys_of_users

# One row per user and product: the newest purchase, and the sum of 0.5 ** (age / 120 days), where
# the age is counted back from the newest purchase of that pair.
EXPECTED = """
WITH purchases AS (
    SELECT DISTINCT orders.id, user_id, product_id, created_at
    FROM orders JOIN order_items ON order_id = orders.id
    WHERE status IN ('completed', 'paid', 'shipped', 'delivered')
      AND quantity > 0 AND quantity <> 'NaN'
      AND user_id IS NOT NULL AND product_id IS NOT NULL
      AND isfinite(created_at) AND created_at < now() + interval '1 day'
), latest AS (
    SELECT user_id, product_id, max(created_at) AS newest FROM purchases GROUP BY 1, 2
)
SELECT user_id, product_id, newest,
       sum(0.5::float8 ^ (extract(epoch FROM newest - created_at)::float8 / (120 * 86400)))
FROM latest JOIN purchases USING (user_id, product_id) GROUP BY 1, 2, 3
"""
FOUND = """
SELECT user_id, product_id, last_updated_at, interaction_score FROM user_product_interactions
"""

USER_KEY = re.compile(r"user:(.+):top_buys")
PRODUCT_KEY = re.compile(r"product:(.+):bought_together")
BESIDE = re.compile(r"user:.+:(top_buys_because|buy_again)|product:.+:bought_together_evidence")
NONE_OF_PAIRS = publication_key(Family.BOUGHT_TOGETHER_ALSO)  # there are none of two antecedents
SETS = {borrowed_key(), unavailable_key()}
ARTIFACTS = ("als_model", "basket_rules")


def artifacts_load(folder: Path) -> None:
    """Every current artifact that there is can be read, and every candidate."""
    for name in ARTIFACTS:
        current = load_artifact(folder, name) if (folder / f"{name}.pkl").exists() else None
        for artifact in filter(None, (current, load_candidate(folder, name))):
            header, arrays = artifact
            assert header.name == name
            assert all(array.size for array in arrays.values())


def lists_are_whole(lists: dict[str, Any]) -> None:
    """Every list that a reader of Redis can see is complete: ranked, finite, without repetition."""
    for key, value in lists.items():
        if USER_KEY.fullmatch(key) or key == "global:top_buys":
            products = json.loads(value)["products"]
            ranking = [(product["product_id"], product["score"]) for product in products]
        elif PRODUCT_KEY.fullmatch(key):
            ranking = [(int(member), score) for member, score in value]
        elif BESIDE.fullmatch(key):
            said = json.loads(value)
            assert said.get("because") or said.get("products"), f"{key} is empty"
            continue
        elif key in SETS:
            continue
        elif key == example_users_key():
            assert json.loads(value)["user_ids"], "there are no example users"
            continue
        else:
            assert key.startswith("publication:"), f"a key that is left behind: {key}"
            assert json.loads(value)["keys"] > 0 or key == NONE_OF_PAIRS
            continue
        ids, scores = [i for i, _ in ranking], [score for _, score in ranking]
        assert ids, f"{key} is empty"
        assert len(set(ids)) == len(ids), key
        assert all(map(math.isfinite, scores)), key
        assert scores == sorted(scores, reverse=True), key


def interactions_equal_the_orders(connection: psycopg.Connection) -> None:
    """The interactions are those of the orders as they are now, no more and no less."""
    expected, found = (
        {(user, product): (newest, score) for user, product, newest, score in rows}
        for rows in (connection.execute(query).fetchall() for query in (EXPECTED, FOUND))
    )
    assert found.keys() - expected.keys() == set(), "interactions without an order behind them"
    assert expected.keys() - found.keys() == set(), "purchases that are not in the interactions"
    assert {k: v[0] for k, v in found.items()} == {k: v[0] for k, v in expected.items()}
    assert {k: v[1] for k, v in found.items()} == pytest.approx(
        {k: v[1] for k, v in expected.items()}, rel=1e-9
    )


def everything_is_published(system: System) -> None:
    """After a whole run: interactions, artifacts and lists fit the orders and one another."""
    artifacts_load(system.home.data)
    assert all((system.home.data / f"{name}.pkl").exists() for name in ARTIFACTS)
    with system.database() as connection:
        interactions_equal_the_orders(connection)
        rows = connection.execute("SELECT DISTINCT user_id FROM user_product_interactions")
        users = [user for (user,) in rows]
    lists = system.lists()
    lists_are_whole(lists)
    of_products = {key for key in lists if PRODUCT_KEY.fullmatch(key)}
    assert {key for key in lists if key.startswith("user:")} == keys_of_users(*users)
    assert of_products
    keys = dict.fromkeys(FAMILIES, len(users))
    keys |= {Family.GLOBAL_TOP_BUYS: 1, Family.BOUGHT_TOGETHER: len(of_products)}
    assert {f: json.loads(lists[publication_key(f)])["keys"] for f in keys} == keys


def nothing_is_torn(system: System) -> None:
    """After a fault: what is there is whole, old or new."""
    artifacts_load(system.home.data)
    lists_are_whole(system.lists())
