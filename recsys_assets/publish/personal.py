"""Publication of the users' lists: of all users, in chunks, or of those whose orders changed.

Both make a list in the same way, from the model and the user's own interactions, so that the lists
of changed users are what a publication of all would make of them. They take turns: a chunk at a
time is read and written, and nobody else writes users' lists meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
from psycopg import sql

from recsys_assets import tables
from recsys_assets.ids import comparable_id, id_range, plain_id
from recsys_assets.ingest.watermark import required_watermark
from recsys_assets.learn.als import AlsModel, UserSolver, user_solver
from recsys_assets.learn.artifacts import ArtifactError, Header, from_arrays
from recsys_assets.learn.blending import blended_top_n
from recsys_assets.learn.matrix import Ids, as_ids, beside, interactions_from_arrow
from recsys_assets.publish.changed_users import (
    Mark,
    Plan,
    complete_plan,
    give_way,
    is_under_way,
    marked_users,
    publishing,
    read_plan,
    save_plan,
    take_marks,
)
from recsys_assets.publish.redis_client import Client, told
from recsys_assets.publish.redis_reader import read_publication
from recsys_assets.publish.redis_room import Room, room_for
from recsys_assets.publish.redis_writer import (
    BATCH,
    Edition,
    batched,
    finish,
    publish_some,
    write,
)
from recsys_assets.publish.top_buys import personal_lists
from recsys_assets.shop_session import ShopSession
from serving.contract import Family, Id, is_id

FAMILY = Family.USER_TOP_BUYS
CHUNK_INTERACTIONS = 2_000_000
CHUNK_USERS = 5_000
EVERYBODY = "every user's top buys"
_SAMPLE_USERS = 200

Item = tuple[str, bytes]
LoadModel = Callable[[str | None], tuple[Header, Mapping[str, Any]]]
Progress = Callable[[int], object]


@dataclass(frozen=True)
class Recipe:
    """What makes lists: a version of the model, the date that weights are brought to, the plan."""

    model: AlsModel
    as_of: datetime
    plan: Plan

    @cached_property
    def fold_in(self) -> UserSolver:
        """The factors of users by their interactions with the model's products."""
        return user_solver(self.model)


@dataclass(frozen=True)
class PublishedUsers:
    """Numbers of users whose lists were written and removed, and what these lists know.

    Of a publication of all users also: ``left_out``, those with ids that no key can hold, and the
    ``room`` that was needed in Redis.
    """

    written: int
    removed: int
    model_version: str
    orders_through: datetime | None
    left_out: int = 0
    room: Room | None = None


class NoRoomError(RuntimeError):
    """The lists would not fit into Redis; nothing was written."""

    def __init__(self, room: Room) -> None:
        super().__init__(str(room))
        self.room = room


def recipe_from(
    artifact: tuple[Header, Mapping[str, Any]], *, length: int, own_weight: float
) -> Recipe:
    """The recipe for lists of an artifact of ALS; ArtifactError when it is of another release."""
    header, arrays = artifact
    model = from_arrays(AlsModel, arrays)
    # Weights are brought to one date, that of the model, so that a list does not depend on when it
    # is made.
    as_of = header.orders_through or header.created_at
    return Recipe(model, as_of, Plan(header.version, length, own_weight))


class Recipes:
    """The recipes for lists; the last one is kept, with all that lists of its model share.

    ``load_model`` gives the artifact of a version of ALS, of the current one for None, or raises
    ArtifactError.
    """

    def __init__(self, load_model: LoadModel) -> None:
        self._load_model = load_model
        self._kept: Recipe | None = None

    def of(self, plan: Plan) -> Recipe:
        """The recipe for lists of a plan, whether or not everybody has one by now."""
        if self._kept is None or replace(plan, complete=False) != self._kept.plan:
            return self._make(plan.model_version, plan.length, plan.own_weight)
        return self._kept

    def of_current_model(self, *, length: int, own_weight: float) -> Recipe:
        """The recipe for lists of the current version of the model."""
        return self._make(None, length, own_weight)

    def _make(self, version: str | None, length: int, own_weight: float) -> Recipe:
        self._kept = None  # so that memory holds one model at a time
        artifact = self._load_model(version)
        self._kept = recipe_from(artifact, length=length, own_weight=own_weight)
        return self._kept


def lists_of(weights: pa.Table, recipe: Recipe, edition: Edition) -> tuple[Ids, Iterator[Item]]:
    """The users of a table of weights, ascending, and the Redis keys and values of their lists."""
    interactions = interactions_from_arrow(weights)
    purchases, product_ids = beside(interactions, recipe.model.product_ids)
    lists = blended_top_n(
        recipe.fold_in(purchases[:, : len(recipe.model.product_ids)]),
        recipe.model.product_factors,
        purchases,
        recipe.model.popularity,
        own_weight=recipe.plan.own_weight,
        n=recipe.plan.length,
    )
    return interactions.user_ids, personal_lists(lists, interactions.user_ids, product_ids, edition)


def publish_users(
    session: ShopSession,
    client: Client,
    recipes: Recipes,
    *,
    length: int,
    own_weight: float,
    only_changed: bool,
    progress: Progress = lambda _: None,
) -> PublishedUsers:
    """Publish the lists of all users, or where that is possible of those alone that are marked.

    Raises ArtifactError when there is no model, and :class:`NoRoomError`.
    """
    if only_changed:
        # Where the model of the last publication is not kept any more, all lists are made anew.
        with suppress(ArtifactError):
            if published := publish_changed(session, client, recipes.of):
                return published
    with publishing(session.connection, session.shop, EVERYBODY):
        current = recipes.of_current_model(length=length, own_weight=own_weight)
        return publish_everybody(session, client, current, progress=progress)


def publish_changed(
    session: ShopSession, client: Client, recipe: Callable[[Plan], Recipe]
) -> PublishedUsers | None:
    """Publish the lists of the users that are marked, by the plan of the last publication of all.

    None when there has to be one of all users first. ``recipe`` gives what lists of a plan are made
    with. At the end the record of the publication knows the orders up to the watermark.
    """
    written = removed = 0
    while True:
        with publishing(session.connection, session.shop, FAMILY):
            turn = _publish_marked(session, client, recipe)
        if turn is None:
            return None
        published, last = turn
        written, removed = written + published.written, removed + published.removed
        if last:
            return replace(published, written=written, removed=removed)
        give_way()


def _publish_marked(
    session: ShopSession, client: Client, recipe: Callable[[Plan], Recipe]
) -> tuple[PublishedUsers, bool] | None:
    """A turn of :func:`publish_changed`, and whether it was the last, for the marks there were."""
    connection, shop = session.connection, session.shop
    plan = read_plan(connection, shop)
    with told("does not tell what is published"):
        record = read_publication(client, FAMILY)
    if plan is None or record is None:
        return None
    if not plan.complete and not is_under_way(connection, shop, EVERYBODY):
        return None  # it was broken off
    required_watermark(connection, shop)
    through, marks = marked_users(connection, shop, most=CHUNK_USERS)
    last = len(marks) < CHUNK_USERS
    edition = Edition(plan.model_version, datetime.now(UTC), through)
    items, gone = _lists_of_marked(session, recipe(plan), edition, marks)
    # The model that all lists are of, which is another while all are being published anew.
    recorded = replace(
        edition,
        model_version=record.model_version,
        orders_through=through if last else record.orders_through,
    )
    published = publish_some(client, FAMILY, recorded, items, gone)
    take_marks(connection, shop, marks)
    return PublishedUsers(published.keys, published.removed, plan.model_version, through), last


def publish_everybody(
    session: ShopSession,
    client: Client,
    recipe: Recipe,
    *,
    chunk_interactions: int = CHUNK_INTERACTIONS,
    progress: Progress = lambda _: None,
) -> PublishedUsers:
    """Publish the lists of all users with interactions, and remove those of all others.

    Waits for another publication of all. Raises :class:`NoRoomError` before anything is written.
    """
    connection, shop = session.connection, session.shop
    with publishing(connection, shop, EVERYBODY):
        through = required_watermark(connection, shop)
        edition = Edition(recipe.plan.model_version, datetime.now(UTC), through)
        room = _require_room(session, client, recipe, edition)
        with publishing(connection, shop, FAMILY):
            save_plan(connection, shop, replace(recipe.plan, complete=False), through)
        written = 0
        for chunk in _chunks_of_users(session, chunk_interactions):
            with publishing(connection, shop, FAMILY):
                required_watermark(connection, shop)  # no rebuild has begun
                _, marks = marked_users(connection, shop, whose=chunk)
                weights = _weights(session, recipe, sql.SQL("WHERE {}").format(chunk))
                _, items = lists_of(weights, recipe, edition)
                for batch in batched(items, BATCH):
                    written += write(client, FAMILY, batch)
                    progress(written)
                take_marks(connection, shop, marks)
            give_way()
        # Who has come in behind us has a list before the others' are removed.
        last = False
        while not last:
            with publishing(connection, shop, FAMILY):
                required_watermark(connection, shop)
                latest, marks = marked_users(connection, shop, most=CHUNK_USERS)
                last = len(marks) < CHUNK_USERS
                items, _ = _lists_of_marked(session, recipe, edition, marks)
                written += write(client, FAMILY, items)
                if last:
                    ids = _all_users(session)
                    keys = sum(map(is_id, ids.tolist()))
                    known = replace(edition, orders_through=latest)
                    finished = finish(client, FAMILY, known, ids, keys)
                    complete_plan(connection, shop, recipe.plan, latest)
                take_marks(connection, shop, marks)
    version = recipe.plan.model_version
    left_out = len(ids) - keys
    return PublishedUsers(written, finished.removed, version, latest, left_out, room)


def _lists_of_marked(
    session: ShopSession, recipe: Recipe, edition: Edition, marks: list[Mark]
) -> tuple[Iterator[Item], list[Id]]:
    """Keys and values of the marked users' lists, and the ids of those who have none any more."""
    if not marks:
        return iter(()), []
    marked = [user_id if isinstance(user_id, int) else str(user_id) for user_id, _ in marks]
    whose = sql.SQL("WHERE user_id = ANY({}::text[]::{}[])").format(
        sql.Literal(list(map(str, marked))), sql.SQL(session.shop.user_id_type)
    )
    users, items = lists_of(_weights(session, recipe, whose), recipe, edition)
    with_purchases = set(users.tolist())
    return items, [user_id for user_id in marked if user_id not in with_purchases]


def _weights(session: ShopSession, recipe: Recipe, whose: sql.Composable) -> pa.Table:
    return session.read(tables.weights(session.shop, recipe.as_of, session.half_life, whose))


def _chunks_of_users(session: ShopSession, chunk_interactions: int) -> Iterator[sql.Composable]:
    """Conditions on ``user_id`` that part all users into ranges of about so many interactions."""
    id_type = session.shop.user_id_type
    column = sql.Identifier("user_id")
    after = None
    while True:
        row = session.connection.execute(
            sql.SQL(
                "SELECT user_id::text AS last FROM {interactions} WHERE {following}"
                " ORDER BY {ordered} OFFSET {most} LIMIT 1"
            ).format(
                interactions=tables.interactions_table(session.shop),
                following=id_range(column, id_type, after, None),
                ordered=comparable_id(column, id_type),
                most=sql.Literal(chunk_interactions),
            )
        ).fetchone()
        last = row[0] if row else None
        yield id_range(column, id_type, after, last)
        if last is None:
            return
        after = last


def _all_users(session: ShopSession) -> Ids:
    """Ids of all users with interactions, ascending."""
    query = sql.SQL("SELECT DISTINCT {} AS user_id FROM {}").format(
        plain_id("user_id", session.shop.user_id_type), tables.interactions_table(session.shop)
    )
    ids = as_ids(session.read(query)["user_id"].combine_chunks())
    ids.sort()
    return ids


def _require_room(session: ShopSession, client: Client, recipe: Recipe, edition: Edition) -> Room:
    """The room for the lists of all users; :class:`NoRoomError` when Redis has not so much."""
    _, users = tables.count_interactions(session.connection, session.shop)
    whose = sql.SQL(
        "WHERE user_id IN (SELECT user_id FROM ("
        " SELECT user_id, row_number() OVER (ORDER BY user_id) AS number"
        " FROM (SELECT DISTINCT user_id FROM {}) AS users) AS numbered WHERE number % {} = 0)"
    ).format(tables.interactions_table(session.shop), sql.Literal(max(1, users // _SAMPLE_USERS)))
    _, items = lists_of(_weights(session, recipe, whose), recipe, edition)
    room = room_for(client, FAMILY, list(items), users, recipe.plan.length)
    if not room.fits:
        raise NoRoomError(room)
    return room
