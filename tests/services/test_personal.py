"""The users' lists, from the orders in PostgreSQL to the keys in Redis.

Small shops: whose lists are written, which marks are left, and what the record tells.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from recsys_assets.publish.changed_users import Plan
from tests.publications import LENGTHS, Publishing, order, texts
from tests.shops import day

# --- Marks


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
def test_a_user_is_new_changed_or_gone(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    shop.everybody()
    before = shop.values()
    assert set(before) == texts(id_type, 1, 2, 3, 4, 5, 6)
    come(
        order(7),
        order(8, user=2),
        order(3, status="cancelled", updated_at=day(8)),
        order(4, user=5, updated_at=day(8)),
    )
    shop.refresh()
    published = shop.changed()
    assert published is not None
    assert (published.written, published.removed) == (3, 2)
    assert published.orders_through == day(8)
    after = shop.values()
    assert set(after) == texts(id_type, 1, 2, 5, 6, 7)
    same = {user for user, value in after.items() if before.get(user) == value}
    assert same == texts(id_type, 1, 6)
    assert shop.marked() == []
    assert shop.record is not None
    assert (shop.record.keys, shop.record.orders_through) == (5, day(8))
    contents = shop.contents()
    shop.everybody()
    assert shop.contents() == contents


def test_nothing_changed_writes_nothing_but_the_record(
    shop: Publishing, come: Callable[..., None]
) -> None:
    shop.everybody()
    before = shop.values()
    come(order(7, status="open"))
    shop.refresh()
    published = shop.changed()
    assert published is not None
    assert (published.written, published.removed, published.orders_through) == (0, 0, day(7))
    assert shop.values() == before
    assert shop.record is not None
    assert shop.record.orders_through == day(7)


def test_users_wait_for_their_lists_until_they_are_published(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    shop.everybody()
    come(order(7, user=1))
    shop.refresh()  # and whoever was to publish is killed
    come(order(8, user=2))
    shop.refresh()
    published = shop.changed()
    assert published is not None
    assert published.written == 2
    contents = shop.contents()
    shop.everybody()
    assert shop.contents() == contents


@pytest.mark.parametrize("all_users", [True, False])
def test_a_change_that_comes_while_the_list_is_made_is_published_next(
    shop: Publishing, come: Callable[..., None], id_type: str, all_users: bool
) -> None:
    shop.everybody()
    come(order(7, user=1))
    shop.refresh()
    reads: list[int] = []

    def change() -> None:
        reads.append(len(reads))
        come(order(20 + len(reads), user=1))
        shop.refresh()

    if all_users:
        shop.after_reading(change).everybody()
    else:
        shop.after_reading(change).changed()
    assert reads
    assert {str(user) for user in shop.marked()} == texts(id_type, 1)
    shop.changed()
    assert shop.marked() == []
    contents = shop.contents()
    shop.everybody()
    assert shop.contents() == contents


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
def test_the_keys_of_a_user_come_and_go_together(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    def users() -> set[str]:
        """The users that have a key, in every family the same."""
        first, *others = shop.users_by_family().values()
        assert others == [first] * len(others)
        return first

    shop.everybody()
    assert users() == texts(id_type, 1, 2, 3, 4, 5, 6)
    come(order(3, status="cancelled", updated_at=day(8)), order(7))
    shop.refresh()
    shop.changed()
    assert users() == texts(id_type, 1, 2, 4, 5, 6, 7)
    come(order(4, status="cancelled", updated_at=day(9)), order(8))
    shop.refresh()
    shop.everybody()
    assert users() == texts(id_type, 1, 2, 5, 6, 7, 8)


# --- The model, the lists' length and their explanations


def test_changed_lists_are_of_the_model_of_all(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    first = shop.train(discovery=0.5)
    shop.everybody(shop.maker(top_buys=3, explained=2))
    second = shop.train(seed=8)
    come(order(7))
    shop.refresh()
    assert shop.users(only_changed=True).model_version == first
    (newcomer,) = texts(id_type, 7)
    assert len(shop.lists()[newcomer].products) == 3
    assert shop.explained()[newcomer] == [p.product_id for p in shop.lists()[newcomer].products][:2]
    contents = shop.contents()
    shop.everybody(
        shop.makers.of(Plan(first, replace(LENGTHS, top_buys=3, explained=2), by_affinity=True))
    )
    assert shop.contents() == contents
    assert shop.users(only_changed=False).model_version == second
    assert len(shop.lists()[newcomer].products) == 9  # all that there are
    assert {top_buys.model_version for top_buys in shop.lists().values()} == {second}


def test_all_lists_are_made_anew_when_their_model_is_not_kept(
    shop: Publishing, come: Callable[..., None]
) -> None:
    shop.everybody()
    version = shop.train(keep=1, seed=8)
    come(order(7))
    shop.refresh()
    published = shop.users(only_changed=True)
    assert (published.model_version, published.written) == (version, 7)
    come(order(8))
    shop.refresh()
    published = shop.users(only_changed=True)
    assert (published.model_version, published.written) == (version, 1)


def test_what_makes_lists_is_kept_as_long_as_the_plan_is(shop: Publishing) -> None:
    makers = shop.makers
    current = makers.of_current_model(LENGTHS)
    assert makers.of(replace(current.plan, complete=True)) is current
    for shorter in (replace(LENGTHS, top_buys=1), replace(LENGTHS, buy_again=1)):
        assert makers.of(replace(current.plan, lengths=shorter)).plan.lengths == shorter
    shop.train(seed=8)
    other = makers.of_current_model(LENGTHS)
    assert other.plan.model_version > current.plan.model_version
