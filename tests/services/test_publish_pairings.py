"""Bought Together in Redis after one publication, and after the next."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime

import pytest

from recsys_assets.publish.bought_together import (
    lists_from_rules,
    publish_pairings,
    room_for_pairings,
)
from recsys_assets.publish.merchandising import Action, Rule, Scope
from recsys_assets.publish.redis_reader import read_bought_together, read_evidence
from recsys_assets.publish.redis_writer import Client, Edition, connect
from recsys_assets.publish.selection import Assortment
from serving.contract import Family, decode_also, family_pattern, id_of_key, list_key
from tests.assortments import assortment
from tests.breakfasts import rules_of

NOW = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with closing(connect(redis_url)) as client:
        yield client


def publish(
    client: Client,
    orders: Sequence[Sequence[str | int]],
    version: str = "v1",
    *,
    size: int = 3,
    min_orders: int = 1,
    wanted: Assortment | None = None,
) -> None:
    """Publish what the rules of these orders give, as the shop wants it."""
    lists = lists_from_rules(
        rules_of(orders, size=size), wanted or assortment(), length=50, min_orders=min_orders
    )
    publish_pairings(client, lists, Edition(version, NOW, NOW))


def published(client: Client, family: Family) -> set[str]:
    """The products that have a key of the family."""
    keys = client.scan_iter(match=family_pattern(family))
    return {id_of_key(family, key.decode()) for key in keys}


def also(client: Client, product_id: int) -> dict[bytes, list[int | str]]:
    fields = client.hgetall(list_key(Family.BOUGHT_TOGETHER_ALSO, product_id))
    return {name: [p.product_id for p in decode_also(value)] for name, value in fields.items()}


def test_what_two_products_no_longer_lead_to_is_removed(client: Client) -> None:
    publish(client, [[2, 3, 4]])
    assert published(client, Family.BOUGHT_TOGETHER_ALSO) == {"2", "3"}
    # Product 2 is in rules with two antecedents as before, but under 1, the smaller text.
    publish(client, [[1, 2, 3]], "v2")
    assert published(client, Family.BOUGHT_TOGETHER_ALSO) == {"1", "2"}
    publish(client, [[1, 2, 4]], "v3")
    assert also(client, 2) == {b"4": [1]}
    publish(client, [[1, 3], [2, 3], [1, 2]], "v4")
    assert published(client, Family.BOUGHT_TOGETHER_ALSO) == set()


def test_what_rests_on_too_few_orders_by_now_is_removed(client: Client) -> None:
    publish(client, [[1, 2, 3]] * 2 + [[4, 5, 6]] * 2, min_orders=2)
    assert published(client, Family.BOUGHT_TOGETHER_ALSO) == {"1", "2", "4", "5"}
    publish(client, [[1, 2, 3]] * 2 + [[4, 5, 6]], "v2", min_orders=2)
    assert published(client, Family.BOUGHT_TOGETHER_ALSO) == {"1", "2"}


def test_what_the_shop_no_longer_wants_is_removed(client: Client) -> None:
    publish(client, [[1, 2, 3]])
    assert also(client, 1) == {b"2": [3], b"3": [2]}
    publish(client, [[1, 2, 3]], "v2", wanted=assortment(unavailable=(2, 3)))
    assert published(client, Family.BOUGHT_TOGETHER_ALSO) == {"2"}
    assert also(client, 2) == {b"3": [1]}
    assert [p.product_id for p in read_bought_together(client, 2)] == [1]
    assert published(client, Family.BOUGHT_TOGETHER) == {"2", "3"}


def test_evidence_goes_with_the_list_that_it_was_behind(client: Client) -> None:
    publish(client, [[1, 3], [1, 3], [2, 3], [2, 3]], min_orders=2)
    assert published(client, Family.BOUGHT_TOGETHER_EVIDENCE) == {"1", "2", "3"}
    # Of 1 too few orders are left, so it borrows the list of 2; that of 3 is pinned.
    wanted = assortment(
        Rule(Scope.BOUGHT_TOGETHER, 3, 4, Action.PIN, 1.0),
        Rule(Scope.BOUGHT_TOGETHER, 3, 2, Action.BLOCK, 0.0),
        categories={1: 0, 2: 0},
    )
    publish(client, [[1, 3], [2, 3], [2, 3]], "v2", min_orders=2, wanted=wanted)
    assert published(client, Family.BOUGHT_TOGETHER) == {"1", "2", "3"}
    assert [p.product_id for p in read_bought_together(client, 1)] == [3]
    assert [p.product_id for p in read_bought_together(client, 3)] == [4]
    assert published(client, Family.BOUGHT_TOGETHER_EVIDENCE) == {"2"}
    evidence = read_evidence(client, 2)
    assert evidence is not None
    assert evidence.model_version == "v2"


def test_a_list_of_which_no_id_can_stand_in_a_key_is_removed(client: Client) -> None:
    publish(client, [["a", "b"]])
    assert published(client, Family.BOUGHT_TOGETHER) == {"a", "b"}
    publish(client, [["a", "\n"]], "v2")
    assert published(client, Family.BOUGHT_TOGETHER) == set()
    assert published(client, Family.BOUGHT_TOGETHER_EVIDENCE) == set()


def test_the_memory_of_all_that_is_published_is_known_before(client: Client) -> None:
    orders = [list(range(first, first + 6)) for first in range(1000, 1500)]
    lists = lists_from_rules(rules_of(orders, size=3), assortment(), length=50, min_orders=1)
    room = room_for_pairings(client, lists, 50)
    publish_pairings(client, lists, Edition("v1", NOW, NOW))
    keys = client.scan_iter(match="product:*", count=1000)
    took = [client.memory_usage(key, samples=0) + 16 for key in keys]  # and a pointer to each
    assert room.needed == pytest.approx(sum(took), rel=0.05)
    again = room_for_pairings(client, lists, 50)
    assert abs(again.needed) < 0.05 * room.needed
