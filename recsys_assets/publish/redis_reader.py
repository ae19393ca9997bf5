"""Reading back what is published: for checks, previews, and the command line."""

from collections.abc import Sequence
from typing import Any, cast

from recsys_assets.publish.redis_client import Client
from recsys_assets.publish.redis_pipe import BATCH, batched
from serving import contract
from serving.contract import (
    BuyAgain,
    Evidence,
    Explanations,
    Family,
    Id,
    Pairing,
    Publication,
    TopBuys,
)


def read_user_top_buys(client: Client, user_id: Id) -> TopBuys | None:
    """The published list of a user; None when there is none."""
    if not contract.is_id(user_id):
        return None
    return _top_buys(client, contract.user_top_buys_key(user_id))


def read_global_top_buys(client: Client) -> TopBuys | None:
    """The published list of guests; None when there is none."""
    return _top_buys(client, contract.global_top_buys_key())


def read_explanations(client: Client, user_id: Id) -> Explanations | None:
    """Why the products of a user's list are in it; None where that is not published."""
    data = _of_id(client, Family.USER_TOP_BUYS_BECAUSE, user_id)
    return contract.decode_explanations(data) if isinstance(data, bytes) else None


def read_buy_again(client: Client, user_id: Id) -> BuyAgain | None:
    """What is published that a user buys again; None when there is none."""
    data = _of_id(client, Family.USER_BUY_AGAIN, user_id)
    return contract.decode_buy_again(data) if isinstance(data, bytes) else None


def read_bought_together(client: Client, product_id: Id) -> list[Pairing]:
    """The published list of a product, strongest first; empty when there is none."""
    record = read_publication(client, Family.BOUGHT_TOGETHER)
    if record is None or not contract.is_id(product_id):
        return []
    members = client.zrange(
        contract.bought_together_key(product_id), 0, -1, desc=True, withscores=True
    )
    return contract.decode_pairings(cast(list[tuple[bytes, float]], members), record.id_kind)


def read_evidence(client: Client, product_id: Id) -> Evidence | None:
    """The counts behind a product's published list; None when there are none."""
    data = _of_id(client, Family.BOUGHT_TOGETHER_EVIDENCE, product_id)
    return contract.decode_evidence(data) if isinstance(data, bytes) else None


def is_borrowed(client: Client, product_id: Id) -> bool:
    """Whether the published list of a product is that of its category."""
    if not contract.is_id(product_id):
        return False
    return bool(client.sismember(contract.borrowed_key(), contract.encode_id(product_id)))


def withheld_products(client: Client, product_ids: Sequence[Id]) -> list[bool]:
    """For each product whether it is blocked or unavailable, so that the API leaves it out."""
    texts = list(map(str, product_ids))
    if not texts:
        return []
    with client.pipeline(transaction=False) as pipeline:
        pipeline.smismember(contract.blocked_key(), texts)
        pipeline.smismember(contract.unavailable_key(), texts)
        answers = pipeline.execute()
    return list(map(any, zip(*answers, strict=True)))


def read_publication(client: Client, family: Family) -> Publication | None:
    """The record of a family's last publication; None when there is none."""
    data = client.get(contract.publication_key(family))
    return contract.decode_publication(data) if isinstance(data, bytes) else None


def _of_id(client: Client, family: Family, id_: Id) -> Any:
    return client.get(contract.list_key(family, id_)) if contract.is_id(id_) else None


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
