"""The job that follows the shop's orders: from an order's COMMIT to the changed list in a second.

A Dagster run costs seconds before its first step, and the sensor loop turns every five. So one run
stays: it looks for changes, and every refresh of it is a materialization of the assets it renews.
After an hour it hands over to a successor, which has started meanwhile. That such a run is there is
the sensor's business (:mod:`recsys_assets.automation`).
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from recsys_assets.ingest.assets import interactions_metadata
from recsys_assets.publish.assets import LENGTH, top_buys_metadata
from recsys_assets.resources import ArtifactStore, RedisPublisher, ShopDatabase

if TYPE_CHECKING:
    from recsys_assets.ingest.interactions import Refresh
    from recsys_assets.publish.list_making import ListMakers
    from recsys_assets.publish.merchandising import BadRow
    from recsys_assets.publish.personal import PublishedUsers
    from recsys_assets.publish.redis_client import Client
    from recsys_assets.shop_session import ShopSession

MINUTES = 60.0
PATIENCE = timedelta(seconds=10)  # with the shop's telling what it does not sell
FOLLOWING = "following orders"
WAITING = "waiting to follow orders"


class FollowConfig(dg.Config):
    """How often to look for orders, and for how long."""

    seconds: float = Field(0.5, ge=0, description="between two looks for changed orders")
    quiet_minutes: float = Field(
        30.0, gt=0, description="without changes, after which the assets are confirmed to be fresh"
    )
    availability_seconds: float = Field(
        10.0, ge=0, description="between two looks for products that the shop does not sell now"
    )
    minutes: float = Field(
        MINUTES,
        ge=0,
        description="after which to hand over to another run; 0: refresh once",
    )


@dg.op
def follow_orders(
    context: dg.OpExecutionContext,
    config: FollowConfig,
    shop: ShopDatabase,
    artifacts: ArtifactStore,
    redis: RedisPublisher,
) -> Iterator[dg.AssetMaterialization | dg.Output[None]]:
    """Refresh interactions and Top Buys whenever an order has changed, for the users concerned.

    Ends when its time is over and a successor waits, or at twice that time.
    """
    from recsys_assets.publish.changed_users import is_under_way, publishing
    from recsys_assets.publish.list_making import ListMakers

    with ExitStack() as stack:
        session = stack.enter_context(shop.session())
        client = stack.enter_context(redis.client())
        with publishing(session.connection, session.shop, WAITING):
            stack.enter_context(publishing(session.connection, session.shop, FOLLOWING))
        started = refreshed = time.monotonic()
        follower = _Follower(context, session, client, ListMakers(artifacts.als_model))
        shelf = _Shelf(context, session, client)
        seen, looked = None, -math.inf
        while True:
            if time.monotonic() - looked >= config.availability_seconds:
                shelf.look()
                looked = time.monotonic()  # a look may take longer than the time between two
            now = time.monotonic()
            changes = session.changes()
            if changes != seen or now - refreshed > 60 * config.quiet_minutes:
                yield from follower.refresh(as_before=seen is not None)
                seen, refreshed = changes, now
            over = now - started - 60 * config.minutes
            if over >= 0 and (
                over >= 60 * config.minutes
                or is_under_way(session.connection, session.shop, WAITING)
            ):
                break
            time.sleep(config.seconds)
    yield dg.Output(None)


# Steps of a run share one process; a run that ends in the middle is begun again by the sensor.
@dg.job(executor_def=dg.in_process_executor, tags={"dagster/max_retries": "0"})
def refresh_on_new_orders() -> None:
    """New orders into the interactions, and from there into the Top Buys lists of their users."""
    follow_orders()


@dataclass(frozen=True)
class _Follower:
    """One refresh after another, on the same connections, with the model read once."""

    context: dg.OpExecutionContext
    session: "ShopSession"
    client: "Client"
    makers: "ListMakers"

    def refresh(self, *, as_before: bool) -> Iterator[dg.AssetMaterialization]:
        """Bring interactions and lists up to the orders; a materialization of each asset.

        ``as_before``: fail when another process has other settings by now, to start anew with them.
        """
        from recsys_assets.ingest.interactions import refresh_interactions
        from recsys_assets.publish.popularity import publish_popular
        from recsys_assets.publish.selection import read_assortment
        from recsys_assets.tables import has_purchases

        started = time.monotonic()
        session = self.session
        refresh = refresh_interactions(
            session.connection,
            session.shop,
            half_life=session.half_life,
            overlap=session.overlap,
            as_before=as_before,
        )
        yield _materialization("user_product_interactions", interactions_metadata(refresh), started)
        if refresh.watermark is None:
            return
        if not has_purchases(session.connection, session.shop):
            statuses = ", ".join(session.shop.purchase_statuses)
            self.context.log.warning(
                "nothing is published and the last lists stay: no order has a counting status"
                f" ({statuses}; set RECSYS_PURCHASE_STATUSES)"
            )
            return
        begun = time.monotonic()
        assortment = read_assortment(session)  # the last look is of seconds ago
        edition, _ = publish_popular(session, self.client, LENGTH, assortment, whole=False)
        yield _materialization(
            "global_top_buys",
            {
                "model_version": edition.model_version,
                "orders_through": dg.MetadataValue.timestamp(refresh.watermark),
            },
            begun,
        )
        begun = time.monotonic()
        published = self._publish_users()
        if published:
            yield _materialization("user_top_buys", top_buys_metadata(published), begun)
        self.context.log.info(_summary(refresh, published, time.monotonic() - started))

    def _publish_users(self) -> "PublishedUsers | None":
        """Publish the lists of changed users; None as long as there is no model."""
        from recsys_assets.learn.artifacts import ArtifactError
        from recsys_assets.publish.changed_users import Lengths
        from recsys_assets.publish.personal import publish_users

        try:
            return publish_users(
                self.session,
                self.client,
                self.makers,
                lengths=Lengths(),
                only_changed=True,
            )
        except ArtifactError as error:
            self.context.log.warning(f"users' lists are left as they are: {error}")
            return None


@dataclass
class _Shelf:
    """What the shop sells now, brought to our table and to Redis; told where it changes."""

    context: dg.OpExecutionContext
    session: "ShopSession"
    client: "Client"
    bad_rules: "tuple[BadRow, ...]" = ()

    def look(self) -> None:
        """Let products that the shop has stopped selling be skipped at once."""
        from recsys_assets.catalogue import AvailabilityError, refresh_unavailable
        from recsys_assets.publish.unavailable import publish_unavailable

        session, log = self.session, self.context.log
        try:
            changes = refresh_unavailable(session.connection, session.shop, within=PATIENCE)
        except AvailabilityError as error:
            log.warning(f"what was unavailable stays so until the next look: {error}")
        else:
            if changes:
                log.info(
                    f"{changes.added:,} products have become unavailable and {changes.removed:,}"
                    f" available again; {changes.total:,} are unavailable"
                )
        published = publish_unavailable(session, self.client)
        for row in published.skipped if published.skipped != self.bad_rules else ():
            log.warning(str(row))
        self.bad_rules = published.skipped
        if published.added or published.removed:
            log.info(f"{published.total:,} products are skipped in the lists that are published")


def _materialization(
    asset: str, metadata: "Mapping[str, int | float | str | dg.MetadataValue]", begun: float
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset, metadata={**metadata, "seconds": time.monotonic() - begun}
    )


def _summary(refresh: "Refresh", published: "PublishedUsers | None", seconds: float) -> str:
    lists = f", {published.written:,} lists" if published else ""
    return (
        f"{refresh.difference.orders:,} orders changed for {refresh.users_recomputed:,} users"
        f"{lists}, in {seconds:.2f} s"
    )
