"""Publication of the users' lists: of all users, in chunks, or of those whose orders changed.

Both make a list in the same way, from the model and the user's own interactions, so that the lists
of changed users are what a publication of all would make of them. They take turns: a chunk at a
time is read and written, and nobody else writes users' lists meanwhile.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
from psycopg import sql

from recsys_assets import tables
from recsys_assets.ids import comparable_id, id_range, plain_id
from recsys_assets.ingest.watermark import required_watermark
from recsys_assets.learn.artifacts import ArtifactError
from recsys_assets.learn.matrix import Ids, as_ids
from recsys_assets.publish.changed_users import (
    Lengths,
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
from recsys_assets.publish.list_making import (
    FAMILIES,
    Item,
    Items,
    ListMaker,
    ListMakers,
    lists_of,
)
from recsys_assets.publish.merchandising import BadRow
from recsys_assets.publish.redis_client import Client, told
from recsys_assets.publish.redis_reader import read_publication
from recsys_assets.publish.redis_room import Room, room_for
from recsys_assets.publish.redis_writer import Edition, finish, publish_some, write
from recsys_assets.publish.selection import Assortment, current_assortment, read_assortment
from recsys_assets.publish.unavailable import publish_unavailable
from recsys_assets.shop_session import ShopSession
from serving.contract import Family, Id, Source, is_id

FAMILY = Family.USER_TOP_BUYS
CHUNK_INTERACTIONS = 2_000_000
CHUNK_USERS = 2_000
EVERYBODY = "every user's top buys"
_SAMPLE_USERS = 200

Progress = Callable[[int], object]


@dataclass(frozen=True)
class PublishedUsers:
    """Numbers of users whose lists were written and removed, and what these lists know.

    Of a publication of all users also: ``left_out``, those with ids that no key can hold, the
    ``room`` that was needed in Redis, what the lists come from, and the shop's rules that were
    ``skipped``.
    """

    written: int
    removed: int
    model_version: str
    orders_through: datetime | None
    left_out: int = 0
    room: Room | None = None
    source: Source = "personal"
    skipped: tuple[BadRow, ...] = ()


class NoRoomError(RuntimeError):
    """The lists would not fit into Redis; nothing was written."""

    def __init__(self, room: Room) -> None:
        super().__init__(str(room))
        self.room = room


def publish_users(
    session: ShopSession,
    client: Client,
    makers: ListMakers,
    *,
    lengths: Lengths,
    only_changed: bool,
    progress: Progress = lambda _: None,
) -> PublishedUsers:
    """Publish the lists of all users, or where that is possible of those alone that are marked.

    Raises ArtifactError when there is no model, and :class:`NoRoomError`.
    """
    if only_changed:
        # Where the model of the last publication is not kept any more, all lists are made anew.
        with suppress(ArtifactError):
            if published := publish_changed(session, client, makers.of):
                return published
    with publishing(session.connection, session.shop, EVERYBODY):
        current = makers.of_current_model(lengths)
        return publish_everybody(session, client, current, progress=progress)


def publish_changed(
    session: ShopSession, client: Client, maker: Callable[[Plan], ListMaker]
) -> PublishedUsers | None:
    """Publish the lists of the users that are marked, by the plan of the last publication of all.

    None when there has to be one of all users first. ``maker`` gives what makes lists of a plan. At
    the end the record of the publication knows the orders up to the watermark.
    """
    written = removed = 0
    while True:
        with publishing(session.connection, session.shop, FAMILY):
            turn = _publish_marked(session, client, maker)
        if turn is None:
            return None
        published, last = turn
        written, removed = written + published.written, removed + published.removed
        if last:
            return replace(published, written=written, removed=removed)
        give_way()


def _publish_marked(
    session: ShopSession, client: Client, maker: Callable[[Plan], ListMaker]
) -> tuple[PublishedUsers, bool] | None:
    """A turn of :func:`publish_changed`, and whether it was the last, for the marks there were."""
    connection, shop = session.connection, session.shop
    plan = read_plan(connection, shop)
    with told("does not tell what is published"):
        records = [read_publication(client, family) for family in FAMILIES]
    if plan is None or None in records:
        return None
    if not plan.complete and not is_under_way(connection, shop, EVERYBODY):
        return None  # it was broken off
    required_watermark(connection, shop, session.half_life)
    through, marks = marked_users(connection, shop, most=CHUNK_USERS)
    last = len(marks) < CHUNK_USERS
    edition = Edition(plan.model_version, datetime.now(UTC), through)
    made_by = maker(plan)
    lists, gone = _lists_of_marked(session, made_by, edition, marks)
    written = removed = 0
    for family, record in zip(FAMILIES, records, strict=True):
        assert record is not None
        # The model that all lists are of, which is another while all are being published anew.
        recorded = replace(
            edition,
            model_version=record.model_version,
            orders_through=through if last else record.orders_through,
        )
        done = publish_some(client, family, recorded, lists[family], gone)
        written, removed = max(written, done.keys), max(removed, done.removed)
    take_marks(connection, shop, marks)
    published = PublishedUsers(written, removed, plan.model_version, through, source=made_by.source)
    return published, last


def publish_everybody(
    session: ShopSession,
    client: Client,
    maker: ListMaker,
    *,
    chunk_interactions: int = CHUNK_INTERACTIONS,
    progress: Progress = lambda _: None,
) -> PublishedUsers:
    """Publish the lists of all users with interactions, and remove those of all others.

    Waits for another publication of all. Raises :class:`NoRoomError` before anything is written.
    """
    connection, shop = session.connection, session.shop
    with publishing(connection, shop, EVERYBODY):
        through = required_watermark(connection, shop, session.half_life)
        assortment = current_assortment(session)
        edition = Edition(maker.plan.model_version, datetime.now(UTC), through)
        room = _require_room(session, client, maker, assortment, edition)
        with publishing(connection, shop, FAMILY):
            save_plan(connection, shop, replace(maker.plan, complete=False), through)
        written = 0
        for chunk in _chunks_of_users(session, chunk_interactions):
            with publishing(connection, shop, FAMILY):
                required_watermark(connection, shop, session.half_life)  # no rebuild has begun
                _, marks = marked_users(connection, shop, whose=chunk)
                purchases = _purchases(session, maker, sql.SQL("WHERE {}").format(chunk))
                for lists in lists_of(purchases, maker, assortment, edition)[1]:
                    written += _write(client, lists)
                    progress(written)
                take_marks(connection, shop, marks)
            give_way()
        # Who has come in behind us has a list before the others' are removed.
        last = False
        while not last:
            with publishing(connection, shop, FAMILY):
                required_watermark(connection, shop, session.half_life)
                latest, marks = marked_users(connection, shop, most=CHUNK_USERS)
                last = len(marks) < CHUNK_USERS
                lists, _ = _lists_of_marked(session, maker, edition, marks)
                written += _write(client, lists)
                if last:
                    ids = _all_users(session)
                    keys = sum(map(is_id, ids.tolist()))
                    known = replace(edition, orders_through=latest)
                    removed = [finish(client, f, known, ids, keys).removed for f in FAMILIES]
                    complete_plan(connection, shop, maker.plan, latest)
                take_marks(connection, shop, marks)
        publish_unavailable(session, client)
    version = maker.plan.model_version
    left_out = len(ids) - keys
    return PublishedUsers(
        written, max(removed), version, latest, left_out, room, maker.source, assortment.skipped
    )


def _write(client: Client, lists: Items) -> int:
    """Write the lists of some users; how many users they are."""
    return max(write(client, family, items) for family, items in lists.items())


def _lists_of_marked(
    session: ShopSession, maker: ListMaker, edition: Edition, marks: list[Mark]
) -> tuple[Items, list[Id]]:
    """The marked users' lists, and the ids of those who have none any more."""
    if not marks:
        return _together([]), []
    marked = [user_id if isinstance(user_id, int) else str(user_id) for user_id, _ in marks]
    whose = sql.SQL("WHERE user_id = ANY({}::text[]::{}[])").format(
        sql.Literal(list(map(str, marked))), sql.SQL(session.shop.user_id_type)
    )
    purchases = _purchases(session, maker, whose)
    users, blocks = lists_of(purchases, maker, read_assortment(session), edition)
    with_purchases = set(users.tolist())
    gone = [user_id for user_id in marked if user_id not in with_purchases]
    return _together(blocks), gone


def _together(blocks: Iterable[Items]) -> dict[Family, list[Item]]:
    """The lists of all blocks, by family."""
    lists: dict[Family, list[Item]] = {family: [] for family in FAMILIES}
    for block in blocks:
        for family, items in block.items():
            lists[family] += items
    return lists


def _purchases(session: ShopSession, maker: ListMaker, whose: sql.Composable) -> pa.Table:
    return session.read(tables.weights(session.shop, maker.ranker.as_of, session.half_life, whose))


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


def _require_room(
    session: ShopSession,
    client: Client,
    maker: ListMaker,
    assortment: Assortment,
    edition: Edition,
) -> Room:
    """The room for the lists of all users; :class:`NoRoomError` when Redis has not so much."""
    _, users = tables.count_interactions(session.connection, session.shop)
    whose = sql.SQL(
        "WHERE user_id IN (SELECT user_id FROM ("
        " SELECT user_id, row_number() OVER (ORDER BY user_id) AS number"
        " FROM (SELECT DISTINCT user_id FROM {}) AS users) AS numbered WHERE number % {} = 0)"
    ).format(tables.interactions_table(session.shop), sql.Literal(max(1, users // _SAMPLE_USERS)))
    purchases = _purchases(session, maker, whose)
    sample = _together(lists_of(purchases, maker, assortment, edition)[1])
    lists = sample.pop(FAMILY)
    beside = [item for items in sample.values() for item in items]
    room = room_for(client, FAMILY, lists, users, maker.plan.lengths.top_buys, beside=beside)
    if not room.fits:
        raise NoRoomError(room)
    return room
