"""Everything between a shop's orders and the users' lists in Redis, for tests of publication."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from recsys_assets import tables
from recsys_assets.database import arrow_reader, connect
from recsys_assets.ingest.interactions import Refresh, refresh_interactions
from recsys_assets.ingest.watermark import required_watermark
from recsys_assets.learn.als import AlsParameters
from recsys_assets.learn.artifacts import Header, load_artifact, save_artifact, to_arrays
from recsys_assets.learn.blending import Blend
from recsys_assets.learn.matrix import histories_from_arrow
from recsys_assets.learn.recipe import Recipe, train
from recsys_assets.publish.changed_users import Lengths, marked_users
from recsys_assets.publish.list_making import FAMILIES, ListMaker, ListMakers
from recsys_assets.publish.personal import (
    FAMILY,
    PublishedUsers,
    publish_changed,
    publish_everybody,
    publish_users,
)
from recsys_assets.publish.redis_client import Client
from recsys_assets.publish.redis_client import connect as connect_redis
from recsys_assets.publish.redis_reader import read_publication
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop
from recsys_assets.shop_session import ShopSession
from serving.contract import (
    Family,
    Publication,
    TopBuys,
    decode_explanations,
    decode_top_buys,
    family_pattern,
    id_of_key,
)
from tests.shops import Order, day, id_of

LENGTHS = Lengths(top_buys=20, explained=5, buy_again=10)
MODEL = "als_model"


@contextmanager
def shop_session(url: str, **settings: Any) -> Iterator[ShopSession]:
    """An open session with the shop of a database."""
    chosen = ShopSettings(**settings)
    with connect(url, autocommit=True) as connection, arrow_reader(url) as read:
        shop = inspect_shop(connection, chosen)
        yield ShopSession(connection, shop, chosen.half_life, chosen.overlap, read)


Open = Callable[..., ShopSession]
"""Makes a shop of orders and opens a session with it."""


def refreshed(session: ShopSession) -> ShopSession:
    """The session, once all orders are counted."""
    refresh_interactions(
        session.connection, session.shop, half_life=session.half_life, overlap=session.overlap
    )
    return session


@dataclass(frozen=True)
class Publishing:
    """A shop, the folder of its models, and the Redis of its lists."""

    session: ShopSession
    client: Client
    folder: Path

    def refresh(self, *, rebuild: bool = False) -> Refresh:
        """Bring the interactions up to the orders, and mark the users concerned."""
        session = self.session
        return refresh_interactions(
            session.connection,
            session.shop,
            half_life=session.half_life,
            overlap=session.overlap,
            rebuild=rebuild,
        )

    def train(self, *, keep: int = 3, discovery: float = 0.8, **parameters: Any) -> str:
        """Fit a model to the interactions, and make it the current one; returns its version."""
        session = self.session
        watermark = required_watermark(session.connection, session.shop)
        weights = session.read(tables.weights(session.shop, watermark, session.half_life))
        chosen = AlsParameters(
            **({"factors": 8, "iterations": 2, "regularization": 0.1} | parameters)
        )
        recipe = Recipe(chosen, Blend(discovery), session.half_life)
        model = train(histories_from_arrow(weights), watermark, recipe)
        header = Header(MODEL, datetime.now(UTC), watermark, recipe.to_parameters())
        save_artifact(self.folder, header, to_arrays(model), keep=keep)
        return header.version

    @property
    def makers(self) -> ListMakers:
        return ListMakers(partial(load_artifact, self.folder, MODEL))

    def maker(self, **lengths: int) -> ListMaker:
        """What makes lists of the current model."""
        return self.makers.of_current_model(replace(LENGTHS, **lengths))

    def everybody(self, maker: ListMaker | None = None, **options: Any) -> PublishedUsers:
        """Publish the lists of all users, by the current model."""
        return publish_everybody(self.session, self.client, maker or self.maker(), **options)

    def changed(self) -> PublishedUsers | None:
        """Publish the lists of the marked users."""
        return publish_changed(self.session, self.client, self.makers.of)

    def users(self, *, only_changed: bool) -> PublishedUsers:
        """What the asset does."""
        return publish_users(
            self.session,
            self.client,
            self.makers,
            lengths=LENGTHS,
            only_changed=only_changed,
        )

    def marked(self) -> list[Any]:
        """Ids of the marked users."""
        _, marks = marked_users(self.session.connection, self.session.shop)
        return [user for user, _ in marks]

    @property
    def record(self) -> Publication | None:
        return read_publication(self.client, FAMILY)

    def values(self, family: Family = FAMILY) -> dict[str, bytes]:
        """The bytes of every user's list of a family, by the text of their id."""
        keys = sorted(self.client.scan_iter(match=family_pattern(family), count=10_000))
        with self.client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.get(key)
            values = pipeline.execute()
        return {
            id_of_key(family, key.decode()): value for key, value in zip(keys, values, strict=True)
        }

    def users_by_family(self) -> dict[Family, set[str]]:
        """The users that have a key, by family."""
        return {family: set(self.values(family)) for family in FAMILIES}

    def contents(self) -> dict[tuple[Family, str], Any]:
        """What is published of every user, but for what tells one publication from the next."""
        told = {"model_version", "generated_at", "orders_through"}
        return {
            (family, user): {k: v for k, v in json.loads(value).items() if k not in told}
            for family in FAMILIES
            for user, value in self.values(family).items()
        }

    def lists(self) -> dict[str, TopBuys]:
        """Every user's list, by the text of their id."""
        return {user: decode_top_buys(value) for user, value in self.values().items()}

    def explained(self) -> dict[str, list[Any]]:
        """The products that are explained, by the text of the user's id."""
        return {
            user: [of.product_id for of in decode_explanations(value).because]
            for user, value in self.values(Family.USER_TOP_BUYS_BECAUSE).items()
        }

    def after_reading(self, then: Callable[[], object]) -> "Publishing":
        """The same, with what happens each time after users' interactions have been read."""

        def read(query: Any) -> Any:
            table = self.session.read(query)
            then()
            return table

        return replace(self, session=replace(self.session, read=read))


@contextmanager
def publishing(database_url: str, redis_url: str, folder: Path) -> Iterator[Publishing]:
    """What publishes the lists of a shop, on connections of its own."""
    with shop_session(database_url) as session, closing(connect_redis(redis_url)) as client:
        yield Publishing(session, client, folder)


def order(number: int, user: int | None = None, **changes: Any) -> Order:
    """An order of its number's user and day: products beside one another."""
    products = [100 + number, 101 + number, 102 + number]
    whose = number if user is None else user
    return replace(Order(number, whose, products, day(number)), **changes)


def texts(id_type: str, *users: int) -> set[str]:
    """The texts of the ids of users."""
    return {str(id_of(user, id_type)) for user in users}
