"""Reading back what is published: for checks, previews, and the command line."""

from typing import cast

from recsys_assets.publish.redis_client import Client
from recsys_assets.publish.redis_pipe import BATCH, batched
from serving import contract
from serving.contract import Family, Id, Pairing, Publication, TopBuys


def read_user_top_buys(client: Client, user_id: Id) -> TopBuys | None:
    """The published list of a user; None when there is none."""
    if not contract.is_id(user_id):
        return None
    return _top_buys(client, contract.user_top_buys_key(user_id))


def read_global_top_buys(client: Client) -> TopBuys | None:
    """The published list of guests; None when there is none."""
    return _top_buys(client, contract.global_top_buys_key())


def read_bought_together(client: Client, product_id: Id) -> list[Pairing]:
    """The published list of a product, strongest first; empty when there is none."""
    record = read_publication(client, Family.BOUGHT_TOGETHER)
    if record is None or not contract.is_id(product_id):
        return []
    members = client.zrange(
        contract.bought_together_key(product_id), 0, -1, desc=True, withscores=True
    )
    return contract.decode_pairings(cast(list[tuple[bytes, float]], members), record.id_kind)


def read_publication(client: Client, family: Family) -> Publication | None:
    """The record of a family's last publication; None when there is none."""
    data = client.get(contract.publication_key(family))
    return contract.decode_publication(data) if isinstance(data, bytes) else None


def _top_buys(client: Client, key: str) -> TopBuys | None:
    data = client.get(key)
    return contract.decode_top_buys(data) if isinstance(data, bytes) else None


def listed_products(client: Client, product_ids: list[Id]) -> list[bool]:
    """For each product whether it has a published list."""
    listed: dict[Id, bool] = {}
    for batch in batched(filter(contract.is_id, product_ids), BATCH):
        with client.pipeline(transaction=False) as pipeline:
            for product_id in batch:
                pipeline.exists(contract.bought_together_key(product_id))
            listed.update(zip(batch, map(bool, pipeline.execute()), strict=True))
    return [listed.get(product_id, False) for product_id in product_ids]
