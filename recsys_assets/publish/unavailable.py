"""The set in Redis of products that the shop has stopped selling since its lists were made.

Lists are made without what is unavailable, and readers skip what is in the set: so a product is
gone from all answers as soon as it is known to be unavailable, and the set stays small. What rules
block everywhere is in it too.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast

from recsys_assets.catalogue import unavailable_ids
from recsys_assets.publish.changed_users import publishing
from recsys_assets.publish.merchandising import BadRow, Scope, read_rules
from recsys_assets.publish.redis_client import Client, told
from recsys_assets.publish.redis_pipe import BATCH, batched
from recsys_assets.publish.redis_reader import read_publication
from recsys_assets.shop_session import ShopSession
from serving import contract
from serving.contract import Family

_WHAT = "unavailable products"
_VERSION = "%Y%m%dT%H%M%S.%fZ"
_MARGIN = timedelta(hours=1)  # for clocks that differ, and for changes that were long to commit


class PublishedSet(NamedTuple):
    """Numbers of products that were put into the set and taken out, and that it then has.

    ``skipped`` are the rows of the shop's rules that are none.
    """

    added: int
    removed: int
    total: int
    skipped: tuple[BadRow, ...] = ()


def publish_unavailable(session: ShopSession, client: Client) -> PublishedSet:
    """Let the set in Redis hold the products that published lists may have and must not show.

    These are the ones that have become unavailable since the lists of any family were last made in
    full, by the last refresh of our table, and those that rules block everywhere now. What stays in
    the set is in it all the time. Waits for others who do the same, so that the last to write has
    read last. Our tables must be there. Raises RedisUnavailableError.
    """
    with publishing(session.connection, session.shop, _WHAT):
        rules, skipped = read_rules(session, datetime.now(UTC))
        ids = unavailable_ids(session, since=oldest_lists(client)).tolist()
        blocked = rules.of(Scope.EVERYWHERE).blocked
        wanted = {contract.encode_id(i).encode() for i in {*ids, *blocked} if contract.is_id(i)}
        added, removed = _hold(client, wanted)
    return PublishedSet(added, removed, len(wanted), tuple(skipped))


def _hold(client: Client, wanted: set[bytes]) -> tuple[int, int]:
    """Let the set have these members; how many were put in, and taken out."""
    key = contract.unavailable_key()
    with told("does not tell which products are unavailable"):
        held = cast(set[bytes], client.smembers(key))
    with told("does not take the products that are unavailable"):
        for members in batched(wanted - held, BATCH):
            client.sadd(key, *members)
        for members in batched(held - wanted, BATCH):
            client.srem(key, *members)
    return len(wanted - held), len(held - wanted)


def oldest_lists(client: Client) -> datetime | None:
    """A moment after which all published lists were made; None where that is not known.

    It is when the oldest of their models was made, for a family's record tells when some of its
    lists were made, not when all were.
    """
    with told("does not tell what is published"):
        records = [read_publication(client, family) for family in Family]
    versions = [record.model_version for record in records if record is not None]
    try:
        times = [datetime.strptime(version, _VERSION).replace(tzinfo=UTC) for version in versions]
    except ValueError:  # not a version that is made of a time
        return None
    return min(times) - _MARGIN if times else None
