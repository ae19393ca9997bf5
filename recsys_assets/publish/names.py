"""Names of products in Redis, found by part of them, and a few users: for people who look at lists.

What is published is changed by differences, so that names that stay cost nothing. The first time it
is built aside and put into place at once, so that nobody reads half of it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from recsys_assets import tables
from recsys_assets.catalogue import product_names
from recsys_assets.ingest.watermark import required_watermark
from recsys_assets.publish.changed_users import publishing
from recsys_assets.publish.redis_client import Client, told
from recsys_assets.publish.redis_pipe import BATCH, SCANNED, batched
from recsys_assets.shop_session import ShopSession
from serving import contract

_WHAT = "product names"
_READ_AT_ONCE = 5_000

Fields = dict[str, str]
"""Names by the text of the product's id."""


class PublishedNames(NamedTuple):
    """Numbers of names that are published now, of those written and removed, and of the search's.

    ``searched`` are the members of the search.
    """

    total: int
    written: int
    removed: int
    searched: int


def publish_names(session: ShopSession, client: Client, most: int) -> PublishedNames:
    """Let Redis hold the names of the ``most`` popular products, and what finds them.

    Where the shop has no names, none are left. Waits for others who do the same. Raises ShopError
    before the first refresh, and RedisUnavailableError.
    """
    with publishing(session.connection, session.shop, _WHAT):
        return hold_names(client, popular_names(session, most))


def popular_names(session: ShopSession, most: int) -> Fields:
    """The names of the ``most`` popular products that have one, by the text of their ids."""
    shop = session.shop
    if shop.products is None or shop.products_name is None:
        return {}
    watermark = required_watermark(session.connection, shop)
    popular = session.read(tables.popularity(shop, watermark, session.half_life, most))
    names: Fields = {}
    for ids in batched(popular["product_id"].to_pylist(), _READ_AT_ONCE):
        names |= product_names(session.connection, shop, ids)
    cleaned = {product_id: contract.clean_name(str(name)) for product_id, name in names.items()}
    return {
        product_id: name
        for product_id, name in cleaned.items()
        if name and contract.is_id(product_id)
    }


def hold_names(client: Client, names: Mapping[str, str]) -> PublishedNames:
    """Let Redis hold these names, none else, and what finds them. Raises RedisUnavailableError.

    The search is changed before the names by which it is compared, so that the next call completes
    one that was interrupted.
    """
    with told("does not tell the names of products"):
        held = _held(client)
        found = client.zcard(contract.search_key())
    members = _members(names)
    if not held or found != len(members if held == names else _members(held)):
        _build(client, names)
    else:
        _change(client, held, names)
    written = sum(held.get(product_id) != name for product_id, name in names.items())
    removed = len(held.keys() - names.keys())
    return PublishedNames(len(names), written, removed, len(members))


def count_names(client: Client) -> int:
    """How many names are published. Raises RedisUnavailableError."""
    with told("does not tell how many names of products it holds"):
        return client.hlen(contract.names_key())


def publish_example_users(session: ShopSession, client: Client, most: int = 20) -> None:
    """Let Redis name a few users who have lists: those with the most purchases."""
    users = tables.users_by_purchases(session.connection, session.shop, most)
    value = contract.ExampleUsers(user_ids=[user for user in users if contract.is_id(user)])
    with told("does not take the ids of example users"):
        client.set(contract.example_users_key(), contract.encode_example_users(value))


def _held(client: Client) -> Fields:
    fields = client.hscan_iter(contract.names_key(), count=SCANNED)
    return {field.decode(errors="replace"): name.decode(errors="replace") for field, name in fields}


def _members(names: Mapping[str, str]) -> set[str]:
    return {
        member
        for product_id, name in names.items()
        for member in contract.search_members(name, product_id)
    }


def _build(client: Client, names: Mapping[str, str]) -> None:
    """Build both keys aside, and put each into its place at once."""
    with told("does not take the names of products"):
        for key in (contract.names_key(), contract.search_key()):
            client.unlink(contract.staged_key(key))
        _write_names(client, contract.staged_key(contract.names_key()), names)
        _add_members(client, contract.staged_key(contract.search_key()), _members(names))
        for key in (contract.names_key(), contract.search_key()):
            if client.exists(contract.staged_key(key)):
                client.rename(contract.staged_key(key), key)
            else:  # there is nothing to hold
                client.unlink(key)


def _change(client: Client, held: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Write what is new or other, and take out what is gone."""
    new = {i: name for i, name in names.items() if held.get(i) != name}
    old = {i: name for i, name in held.items() if names.get(i) != name}
    with told("does not take the names of products"):
        _add_members(client, contract.search_key(), _members(new) - _members(old))
        for members in batched(_members(old) - _members(new), BATCH):
            client.zrem(contract.search_key(), *members)
        _write_names(client, contract.names_key(), new)
        for ids in batched(held.keys() - names.keys(), BATCH):
            client.hdel(contract.names_key(), *ids)


def _write_names(client: Client, key: str, names: Mapping[str, str]) -> None:
    for batch in batched(names.items(), BATCH):
        client.hset(key, mapping=dict(batch))


def _add_members(client: Client, key: str, members: Iterable[str]) -> None:
    for batch in batched(members, BATCH):
        client.zadd(key, dict.fromkeys(batch, 0))
