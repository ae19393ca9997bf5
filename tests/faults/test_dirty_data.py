"""Orders as no shop should have them: counted, told in the metadata, survived."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from tests.commands import Home
from tests.faults.system import FILL, FULL, System, create_shop, fresh_database
from tests.faults.truth import everything_is_published

LINES_OF_ONE_USER = 1_000_000 if FULL else 20_000
LINES_OF_ONE_BASKET = 10_000
FIRST_ID = 10_000_000

# Each is a statement over the columns that a shop has; ids from FIRST_ID on are dirty ones.
MISSING = f"""
INSERT INTO orders VALUES
    (NULL, 5001, 'paid', now(), now()),
    ({FIRST_ID}, NULL, 'paid', now(), now()),
    ({FIRST_ID + 1}, 5002, NULL, now(), now()),
    ({FIRST_ID + 2}, 5003, 'paid', NULL, NULL),
    ({FIRST_ID + 3}, 5004, 'paid', now(), NULL),
    ({FIRST_ID + 4}, 5005, 'paid', now(), now());
INSERT INTO order_items VALUES
    (NULL, 1, 1), (NULL, NULL, NULL),
    ({FIRST_ID}, 1, 1), ({FIRST_ID + 1}, 1, 1), ({FIRST_ID + 2}, 1, 1), ({FIRST_ID + 3}, 1, 1),
    ({FIRST_ID + 4}, NULL, 1), ({FIRST_ID + 4}, 2, NULL), ({FIRST_ID + 4}, 3, 1)
"""
ORPHANS = f"""
INSERT INTO order_items SELECT {FIRST_ID + 100} + number, 7, 1
FROM generate_series(1, 50) AS number;
INSERT INTO orders SELECT {FIRST_ID + 200} + number, 5010, 'paid', now(), now()
FROM generate_series(1, 50) AS number
"""
QUANTITIES = f"""
INSERT INTO orders VALUES ({FIRST_ID + 300}, 5020, 'paid', now(), now());
INSERT INTO order_items VALUES
    ({FIRST_ID + 300}, 1, 'NaN'), ({FIRST_ID + 300}, 2, 1e30), ({FIRST_ID + 300}, 3, -1),
    ({FIRST_ID + 300}, 4, 0), ({FIRST_ID + 300}, 5, 0.001), ({FIRST_ID + 300}, 7, '-Infinity'),
    ({FIRST_ID + 300}, 8, -1), ({FIRST_ID + 300}, 8, 1)
"""
TIMES = f"""
INSERT INTO orders VALUES
    ({FIRST_ID + 400}, 5030, 'paid', '1970-01-01', now()),
    ({FIRST_ID + 401}, 5030, 'paid', now() - interval '1 day', now()),
    ({FIRST_ID + 402}, 5031, 'paid', '2999-01-01', now()),
    ({FIRST_ID + 403}, 5032, 'paid', '2999-01-01', '2999-01-01');
INSERT INTO order_items SELECT {FIRST_ID + 400} + number, 11, 1 FROM generate_series(0, 3) AS number
"""
INFINITE = f"""
INSERT INTO orders VALUES
    ({FIRST_ID + 500}, 5040, 'paid', 'infinity', now()),
    ({FIRST_ID + 501}, 5041, 'paid', '-infinity', now()),
    ({FIRST_ID + 502}, 5042, 'paid', now(), 'infinity'),
    ({FIRST_ID + 504}, 5044, 'paid', 'infinity', 'infinity');
INSERT INTO order_items SELECT {FIRST_ID + 500} + number, 12, 1 FROM generate_series(0, 4) AS number
"""
# No refresh sees that it has come; a rebuild and a reconciliation do.
NEVER_CHANGED = f"""
INSERT INTO orders VALUES ({FIRST_ID + 600}, 5060, 'paid', now(), '-infinity');
INSERT INTO order_items VALUES ({FIRST_ID + 600}, 13, 1)
"""
CROWDS = f"""
INSERT INTO orders SELECT {FIRST_ID + 1000} + number, 5050, 'paid', now(), now()
FROM generate_series(0, {LINES_OF_ONE_USER} / 20 - 1) AS number;
INSERT INTO order_items SELECT {FIRST_ID + 1000} + number / 20, 1 + number % 140, 1
FROM generate_series(0, {LINES_OF_ONE_USER} - 1) AS number;
INSERT INTO orders VALUES ({FIRST_ID + 999}, 5051, 'paid', now(), now());
INSERT INTO order_items SELECT {FIRST_ID + 999}, 1000 + number, 1
FROM generate_series(1, {LINES_OF_ONE_BASKET}) AS number
"""
DIRT = {
    "missing": [MISSING],
    "orphans": [ORPHANS],
    "quantities": [QUANTITIES],
    "times": [TIMES],
    "infinite times": [INFINITE],
    "crowds": [CROWDS],
    "never changed": [NEVER_CHANGED],
    "all": [MISSING, ORPHANS, QUANTITIES, TIMES, INFINITE, CROWDS, NEVER_CHANGED],
}
# All at once from the start; each alone where a refresh has to see that it has come.
CASES = [pytest.param("all", "from the start")] + [
    pytest.param(dirt, "later", marks=pytest.mark.full)
    for dirt, statements in DIRT.items()
    if NEVER_CHANGED not in statements
]


@pytest.fixture
def shop(
    request: pytest.FixtureRequest,
    own_postgres: PostgresServer,
    own_redis: RedisServer,
    tmp_path: Path,
) -> Iterator[System]:
    """A shop of its own, and nothing made from it yet."""
    with fresh_database(own_postgres, "dirty") as url:
        create_shop(url, FILL)
        more = {"RECSYS_DATABASE_URL": url, "RECSYS_REDIS_URL": f"{own_redis.url}?db=1"}
        with Home(tmp_path, more).in_use() as home:
            system = System(home, own_postgres, own_redis)
            with system.store() as client:
                client.flushdb()
            yield system


@pytest.mark.parametrize(("dirt", "when"), CASES)
def test_dirty_orders_are_counted_or_told_and_survived(shop: System, dirt: str, when: str):
    if when == "later":
        shop.home.recsys("materialize", "user_product_interactions")
    with shop.database() as connection:
        for statement in DIRT[dirt]:
            connection.execute(statement)
    shop.home.recsys("materialize", "--force")
    everything_is_published(shop)
    baskets = shop.metadata("basket_rules")
    assert baskets["baskets_too_large"] == (1 if CROWDS in DIRT[dirt] else 0)
    interactions = shop.metadata("user_product_interactions")
    ahead = 2 * sum(statement in DIRT[dirt] for statement in (TIMES, INFINITE))  # two in each
    assert interactions["orders_dated_ahead"] == ahead
