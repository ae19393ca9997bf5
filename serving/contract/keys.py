"""The names of the keys in Redis."""

from serving.contract.ids import Id, encode_id
from serving.contract.values import Family

_KEY_PARTS = {
    Family.USER_TOP_BUYS: ("user:", ":top_buys"),
    Family.USER_TOP_BUYS_BECAUSE: ("user:", ":top_buys_because"),
    Family.USER_BUY_AGAIN: ("user:", ":buy_again"),
    Family.BOUGHT_TOGETHER: ("product:", ":bought_together"),
    Family.BOUGHT_TOGETHER_EVIDENCE: ("product:", ":bought_together_evidence"),
    Family.BOUGHT_TOGETHER_ALSO: ("product:", ":bought_together_also"),
}  # what follows the last colon is of one family only, so no pattern matches another's keys


def list_key(family: Family, id_: Id) -> str:
    """The key of one user or product in a family of theirs."""
    prefix, suffix = _KEY_PARTS[family]
    return f"{prefix}{encode_id(id_)}{suffix}"


def id_of_key(family: Family, key: str) -> str:
    """The text of the id in a key of ``family``; the inverse of :func:`list_key`."""
    prefix, suffix = _KEY_PARTS[family]
    return key[len(prefix) : -len(suffix)]


def family_pattern(family: Family) -> str:
    """The SCAN pattern that matches every list key of a family, and no other key."""
    if family is Family.GLOBAL_TOP_BUYS:
        return global_top_buys_key()
    prefix, suffix = _KEY_PARTS[family]
    return f"{prefix}*{suffix}"


def user_top_buys_key(user_id: Id) -> str:
    """The key of a user's Top Buys."""
    return list_key(Family.USER_TOP_BUYS, user_id)


def global_top_buys_key() -> str:
    """The key of the guests' Top Buys."""
    return "global:top_buys"


def bought_together_key(product_id: Id) -> str:
    """The key of a product's Bought Together."""
    return list_key(Family.BOUGHT_TOGETHER, product_id)


def also_key_and_field(one: Id, other: Id) -> tuple[str, str]:
    """The key of the hash and the field in it that hold the rules with two antecedents.

    They stand under the antecedent whose text is the smaller one, whatever the order given.
    """
    first, second = sorted((encode_id(one), encode_id(other)))
    return list_key(Family.BOUGHT_TOGETHER_ALSO, first), second


def publication_key(family: Family) -> str:
    """The key of a family's publication record."""
    return f"publication:{family.value}"


def borrowed_key() -> str:
    """The key of the set of products whose Bought Together is that of their category."""
    return "borrowed:bought_together"


def unavailable_key() -> str:
    """The key of the set of products that the shop does not sell now."""
    return "unavailable:products"


def blocked_key() -> str:
    """The key of the shop's own set of products that are never recommended."""
    return "blocked:products"


def rate_key(caller: str, window: int) -> str:
    """The key of the number of requests that a caller has made in a window of the rate limit."""
    return f"rate:{caller}:{window}"
