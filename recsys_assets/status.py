"""The state of the system as tables: how far orders are processed, and what each asset holds."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
from rich.table import Table

from recsys_assets.automation import freshness_policies
from recsys_assets.backtests import BACKTESTS, evaluated_last, outcome, refused_candidate
from recsys_assets.console import age, status_table
from recsys_assets.ingest.watermark import Backfill, backfill_under_way, orders_watermark
from recsys_assets.learn.artifacts import ArtifactError, artifact_path, load_artifact, versions
from recsys_assets.publish.names import count_names
from recsys_assets.publish.redis_reader import read_publication
from recsys_assets.publish.redis_writer import Client
from recsys_assets.settings import Settings
from recsys_assets.shop import Shop, inspect_shop
from recsys_assets.tables import count_interactions, count_marked_users, tables_exist
from serving.contract import Family

ARTIFACTS = ("als_model", "basket_rules")
BESIDE: Mapping[Family, Mapping[Family, str]] = {
    Family.USER_TOP_BUYS: {
        Family.USER_TOP_BUYS_BECAUSE: "explained",
        Family.USER_BUY_AGAIN: "buy again",
    },
    Family.GLOBAL_TOP_BUYS: {},
    Family.BOUGHT_TOGETHER: {
        Family.BOUGHT_TOGETHER_EVIDENCE: "with evidence",
        Family.BOUGHT_TOGETHER_ALSO: "for pairs",
    },
}
"""The families that assets are named after, and what is published beside each, by what to say."""


def status_tables(
    settings: Settings,
    connection: psycopg.Connection,
    client: Client,
    instance: dg.DagsterInstance,
) -> Iterator[Table]:
    """Tables of what PostgreSQL, the folder of artifacts and Redis hold, and how fresh it is."""
    shop = inspect_shop(connection, settings)
    yield _orders(connection, shop)
    held = {
        "user_product_interactions": _interactions(connection, shop),
        **{name: _artifact(settings, name) for name in ARTIFACTS},
        **{BACKTESTS[name]: _backtest(settings, name) for name in ARTIFACTS},
        **{family.value: _lists(client, family) for family in BESIDE},
        "product_names": (f"{count_names(client):,} names", None),
    }
    rows = []
    for name, policy in freshness_policies(settings).items():
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        made = datetime.fromtimestamp(event.timestamp, UTC) if event else None
        holds, through = held[name]
        rows.append((name, _freshness(made, policy), holds, _moment(through)))
    yield status_table("Assets", ("asset", "materialized", "holds", "orders through"), rows)


def _orders(connection: psycopg.Connection, shop: Shop) -> Table:
    row = connection.execute(shop.last_change()).fetchone()
    latest = row[0] if row else None
    watermark = orders_watermark(connection, shop)
    users = 0
    if latest is None:
        behind = "the shop has no orders"
    elif not tables_exist(connection, shop):
        behind = "nothing processed yet"
    else:
        users = count_marked_users(connection, shop)
        behind = _behind(latest, watermark, backfill_under_way(connection, shop))
    return status_table(
        "Orders",
        ("latest change", "processed through", "orders waiting", "lists waiting"),
        [(_moment(latest), _moment(watermark), behind, f"{users:,}")],
    )


def _behind(latest: datetime, watermark: datetime | None, backfill: Backfill | None) -> str:
    if backfill:
        return f"backfill: {backfill.done:,} of {backfill.orders:,} orders done"
    if watermark is None:
        return "nothing processed yet"
    return "none" if latest <= watermark else f"{latest - watermark} of orders"


def _interactions(connection: psycopg.Connection, shop: Shop) -> tuple[str, datetime | None]:
    rows, users = count_interactions(connection, shop)
    return f"{rows:,} rows, {users:,} users", orders_watermark(connection, shop)


def _artifact(settings: Settings, name: str) -> tuple[str, datetime | None]:
    try:
        header, _ = load_artifact(settings.data_dir, name)
    except ArtifactError as error:
        return str(error), None
    size = artifact_path(settings.data_dir, name).stat().st_size
    kept = versions(settings.data_dir, name)
    back = ", rolled back" if kept and kept[0] > header.version else ""
    return f"{header.version}{back}, {size / 1e6:.1f} MB, {len(kept)} kept", header.orders_through


def _backtest(settings: Settings, name: str) -> tuple[str, datetime | None]:
    refused = refused_candidate(settings.data_dir, name)
    if refused:
        return f"[red]{refused.version} {outcome(refused)}", None
    header = evaluated_last(settings.data_dir, name)
    return (f"{header.version} {outcome(header)}", None) if header else ("nothing evaluated", None)


def _lists(client: Client, family: Family) -> tuple[str, datetime | None]:
    """What was published of an asset's lists, and in the next line what stands beside them."""
    record = read_publication(client, family)
    if record is None:
        return "nothing published", None
    keys = f"{record.keys:,} key{'s' if record.keys != 1 else ''} of {record.model_version}"
    published = {what: read_publication(client, other) for other, what in BESIDE[family].items()}
    beside = ", ".join(
        f"{other.keys:,} {what}" for what, other in published.items() if other and other.keys
    )
    return f"{keys}\n{beside}".strip(), record.orders_through


def _freshness(made: datetime | None, policy: dg.FreshnessPolicy) -> str:
    if made is None:
        return "[red]never"
    passed = datetime.now(UTC) - made
    fail: timedelta = policy.fail_window.to_timedelta()  # type: ignore[attr-defined]
    if passed > fail:
        return f"[red]{age(made)}, stale"
    return f"[yellow]{age(made)}, late" if 2 * passed > fail else f"[green]{age(made)}, fresh"


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "-"
