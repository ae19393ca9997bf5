"""`recsys`, one command after another on the embedded servers of a folder of its own."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from tests.commands import Home, eventually, free_ports
from tests.graphs import PERSONAL, TOGETHER
from tests.serving_processes import free_port

ASSETS = [
    "user_product_interactions",
    *PERSONAL,
    "global_top_buys",
    "product_names",
    *TOGETHER,
]
ORDERS = "id,user_id,created_at\n1,7,2025-01-01\n2,,2025-01-02\n"
ITEMS = "order_id,product_id\n1,milk\n1,bread\n2,milk\n"


@pytest.fixture
def home(tmp_path: Path, database_url: str, redis_url: str) -> Home:
    """A home whose servers are an empty database and an empty Redis of the tests."""
    return Home(tmp_path, {"RECSYS_DATABASE_URL": database_url, "RECSYS_REDIS_URL": redis_url})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with the embedded servers running, the sample loaded and everything materialized."""
    with Home(tmp_path_factory.mktemp("shop")).in_use() as home, ExitStack() as servers:
        servers.enter_context(PostgresServer(home.state / "postgres").in_use())
        servers.enter_context(RedisServer(home.state / "redis").in_use())
        assert "3,908 orders" in home.recsys("load-sample", "--households", 60)
        printed = home.recsys("materialize", "--force")  # so few households prove little
        for asset in ASSETS:
            assert re.search(rf"{asset} materialized in \d+\.\d s", printed)
        assert "9 assets in" in printed
        yield home
    # commands leave nothing in the folder that they are called from
    assert {path.name for path in home.folder.iterdir()} <= {
        "state", "data", "config.yaml", "started.log",
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(shop: Home) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(RedisServer(shop.state / "redis").url)) as client:
        yield client


@pytest.fixture(scope="module")
def names(shop: Home) -> dict[int, str]:
    with psycopg.connect(PostgresServer(shop.state / "postgres").url) as connection:
        return dict(connection.execute("SELECT id, name FROM products").fetchall())


def rows_of(printed: str) -> list[list[str]]:
    """The cells of the numbered rows of a printed ranking."""
    return [re.split(r"\s{2,}", line.strip()) for line in re.findall(r"^ +\d+ .*$", printed, re.M)]


def row(place: int, product: int, names: dict[int, str], value: float) -> list[str]:
    """As ``rows_of`` finds it, where some names have gaps of their own."""
    return [str(place), str(product), *re.split(r"\s{2,}", names[product]), f"{value:,.3f}"]


def test_help_is_enough_to_go_on(home: Home):
    printed = home.recsys("--help")
    commands = ["demo", "up", "init", "load-sample", "load-csv", "materialize", "serve", "status"]
    for command in [*commands, "show"]:
        assert re.search(rf"\b{command}\b +[A-Z]\w+ ", printed), command
    assert "RECSYS_DATABASE_URL" in printed
    assert "A YAML file of Dagster run config" in home.recsys("materialize", "--help")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["load-csv", "missing.csv", "missing.csv"],
        ["load-csv", __file__],
        ["load-sample", "--households", "0"],
        ["show", "product", "1", "--limit", "101"],
        ["up", "--ui-port", "65536"],
        ["serve", "--port", "eighty"],
        ["materialize", "--config", "missing.yaml"],
    ],
)
def test_wrong_usage_is_exit_code_2(home: Home, arguments: list[str]):
    printed = home.recsys(*arguments, fails=2)
    assert "Usage: recsys" in printed
    assert "Traceback" not in printed


def test_init_creates_our_tables_and_names_missing_indexes(home: Home):
    url = home.environment["RECSYS_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        assert "RECSYS_ORDERS_TABLE" in home.recsys("init", fails=1)
        connection.execute("CREATE TABLE orders (id bigint, user_id uuid, created_at timestamptz)")
        connection.execute("CREATE TABLE order_items (order_id bigint, product_id text)")
        printed = home.recsys("init")
        hints = re.findall(r"CREATE INDEX CONCURRENTLY ON .*;", printed)
        assert len(hints) == 3
        for hint in hints:
            connection.execute(hint)
        assert "INDEX" not in home.recsys("init")
        types = connection.execute(
            "SELECT attname, atttypid::regtype::text FROM pg_attribute"
            " WHERE attrelid = 'user_product_interactions'::regclass AND attnum IN (1, 2)"
        ).fetchall()
    assert dict(types) == {"user_id": "uuid", "product_id": "text"}


def test_an_export_is_loaded_whole_or_not_at_all(home: Home):
    (home.folder / "orders.csv").write_text(ORDERS)
    (home.folder / "items.csv").write_text(ITEMS)
    (home.folder / "bad.csv").write_text(ITEMS + "1,\n9,milk\n")
    printed = home.recsys("load-csv", "orders.csv", "bad.csv", fails=1)
    assert "nothing was loaded" in printed
    assert "bad.csv:5" in printed
    assert "Traceback" not in printed
    with psycopg.connect(home.environment["RECSYS_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT to_regclass('orders')").fetchone() == (None,)
    assert "2 orders, 3 lines, 0 products" in home.recsys("load-csv", "orders.csv", "items.csv")
    refused = home.recsys("load-sample", fails=1)
    assert "already has orders" in refused


def test_a_database_that_is_away_is_one_message(home: Home):
    home = Home(
        home.folder, {**home.more, "RECSYS_DATABASE_URL": "postgresql://x:hush@localhost:1/x"}
    )
    for command in (["init"], ["materialize"], ["status"]):
        printed = home.recsys(*command, fails=1)
        assert "RECSYS_DATABASE_URL" in printed
        assert "Traceback" not in printed
        assert "hush" not in printed


def test_a_bad_setting_is_told_by_its_variable(home: Home):
    home = Home(home.folder, {**home.more, "RECSYS_HALF_LIFE_DAYS": "-1"})
    printed = home.recsys("status", fails=1)
    assert "RECSYS_HALF_LIFE_DAYS" in printed
    assert "Traceback" not in printed


def test_nothing_published_yet_says_what_to_do(home: Home):
    for arguments in (["guest"], ["user", 1], ["product", 1]):
        assert "recsys materialize" in home.recsys("show", *arguments, fails=1)


def test_the_artifacts_are_in_the_data_folder(shop: Home):
    kept = sorted(re.sub(r"-.*", "", path.stem) for path in shop.data.iterdir())
    assert kept == ["als_model", "als_model", "basket_rules", "basket_rules"]


def test_one_asset_alone_with_config(shop: Home, store: redis.Redis):
    personal = store.get("user:1:top_buys")
    config = shop.folder / "config.yaml"
    config.write_text("ops: {global_top_buys: {config: {length: 12}}}")
    printed = shop.recsys("materialize", "global_top_buys", "--config", config)
    assert "1 asset in" in printed
    assert len(json.loads(store.get("global:top_buys"))["products"]) == 12
    assert store.get("user:1:top_buys") == personal


@pytest.mark.parametrize(
    ("config", "names_it"),
    [
        ("ops: {global_top_buys: {config: {lenght: 3}}}", "lenght"),
        ("ops: {global_top_buys: {config: {length: many}}}", "length"),
        ("not a mapping", "mapping"),
        ("ops: [", "config.yaml"),
    ],
)
def test_bad_config_is_wrong_usage(shop: Home, config: str, names_it: str):
    (shop.folder / "config.yaml").write_text(config)
    printed = shop.recsys("materialize", "global_top_buys", "--config", "config.yaml", fails=2)
    assert names_it in printed
    assert "Traceback" not in printed


def test_an_unknown_asset_is_wrong_usage(shop: Home):
    printed = shop.recsys("materialize", "orders", fails=2)
    for asset in ASSETS:
        assert asset in printed


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            "ops: {basket_rules: {config: {min_orders: 5, min_support: 0.1}}}",
            "give exactly one of min_orders (a count) and min_support (a fraction)",
        ),
        ("ops: {basket_rules: {config: {shrinkage: -1}}}", "greater than or equal to 0"),
    ],
)
def test_a_failed_asset_is_exit_code_1_with_its_reason(shop: Home, config: str, reason: str):
    (shop.folder / "config.yaml").write_text(config)
    printed = shop.recsys("materialize", "basket_rules", "--config", "config.yaml", fails=1)
    assert reason in printed
    assert "basket_rules" in printed
    assert "Traceback" not in printed


def test_status_tells_what_there_is(shop: Home):
    printed = shop.recsys("status")
    assert re.search(r"user_product_interactions .* fresh .* 60 users", printed)
    for asset in ASSETS:
        assert re.search(rf"{asset} .* ago, fresh", printed), asset
    assert re.search(r"user_top_buys .* 60 keys", printed)
    assert "60 explained, 60 buy again" in printed
    assert re.search(r"global_top_buys .* 1 key ", printed)
    assert re.search(r"als_model .* MB, 1 kept", printed)
    assert re.search(r"product_names .* [\d,]+ names", printed)


def test_a_users_list_is_shown_with_names(shop: Home, store: redis.Redis, names: dict[int, str]):
    printed = shop.recsys("show", "user", 1, "--limit", 7)
    published = json.loads(store.get("user:1:top_buys"))
    assert "Top Buys of user 1 (personal)" in printed
    assert published["model_version"] in printed
    assert rows_of(printed) == [
        row(place, product["product_id"], names, product["score"])
        for place, product in enumerate(published["products"][:7], 1)
    ]


def test_who_has_no_list_is_shown_that_of_guests(shop: Home, store: redis.Redis):
    guest = shop.recsys("show", "guest")
    published = json.loads(store.get("global:top_buys"))
    assert "Top Buys of guests (global)" in guest
    assert [cells[1] for cells in rows_of(guest)] == [
        str(product["product_id"]) for product in published["products"][:10]
    ]
    stranger = shop.recsys("show", "user", "nobody")
    assert "Top Buys of user nobody (global)" in stranger
    assert rows_of(stranger) == rows_of(guest)


def test_a_products_companions_are_shown(shop: Home, store: redis.Redis, names: dict[int, str]):
    key = next(store.scan_iter(match="product:*:bought_together"))
    product = key.decode().split(":")[1]
    pairings = store.zrange(key, 0, 4, desc=True, withscores=True)
    printed = shop.recsys("show", "product", product, "-n", 5)
    title = f"Bought together with {product} {names[int(product)]}"
    assert title.split() == printed.split()[: len(title.split())]
    assert rows_of(printed) == [
        row(place, int(member), names, score) for place, (member, score) in enumerate(pairings, 1)
    ]
    assert "Nothing is known" in shop.recsys("show", "product", "nothing")


def test_the_api_answers_what_is_shown_until_it_is_told_to_end(shop: Home):
    port = free_ports()
    with shop.started("serve", "--port", port) as api:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/recommendations", trust_env=False
        ) as client:

            def answer() -> dict[str, object] | None:
                try:
                    return client.get("/top-buys/", params={"user_id": 1}).json()
                except httpx.TransportError:
                    return None

            personal = eventually(answer, "the API")
            guest = client.get("/top-buys/").json()
        shown = rows_of(shop.recsys("show", "user", 1))
        assert [cells[1] for cells in shown] == [
            str(product["product_id"]) for product in personal["products"]
        ]
        assert [cells[1] for cells in rows_of(shop.recsys("show", "guest"))] == [
            str(product["product_id"]) for product in guest["products"]
        ]
        assert api.terminate() == 0, api.printed()
    assert shop.processes() == set()
    assert shop.servers() == {"postgres", "redis-server"}


def test_a_taken_api_port_is_one_message(shop: Home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        printed = shop.recsys("serve", "--port", taken.getsockname()[1], fails=1)
    assert "RECSYS_API_PORT" in printed
    assert "Traceback" not in printed


def test_a_network_is_not_served_without_keys(home: Home):
    printed = home.recsys("serve", "--host", "0.0.0.0", "--port", free_port(), fails=1)
    assert "0.0.0.0 lets others in" in printed
    assert "recsys api-key NAME" in printed
    assert "Traceback" not in printed
