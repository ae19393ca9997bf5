"""Names as the contract writes them, and what finds them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contract import (
    MAX_NAME_LENGTH,
    ContractError,
    ExampleUsers,
    clean_name,
    decode_example_users,
    encode_example_users,
    found_id,
    search_members,
    search_range,
)

IDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=200)


def finds(text: str, name: str) -> bool:
    """Whether Redis would find a name, which compares bytes."""
    lowest, highest = (bound[1:].encode() for bound in search_range(text))
    return any(lowest <= m.encode() < highest for m in search_members(name, 7))


def test_a_name_is_found_from_each_of_its_words_on():
    assert search_members("Whole Milk, 1 l", 7) == [
        "whole milk 1 l\x1f7",
        "milk 1 l\x1f7",
        "1 l\x1f7",
        "l\x1f7",
    ]


def test_a_word_that_comes_twice_is_one_member_where_nothing_else_follows():
    assert search_members("tea! tea", "a:b") == ["tea tea\x1fa:b", "tea\x1fa:b"]
    assert search_members("---", 7) == []


def test_members_are_few_and_short():
    members = search_members(" ".join(["interminable"] * 30), 7)
    assert len(members) == 1  # all begin with the same 24 characters
    assert len(search_members("a b c d e f g h i j", 7)) == 6


@pytest.mark.parametrize(
    "text", ["crème", "CREME", "fraiche", "creme  frai", "crème-fraîche", "FRAÎCHE (200"]
)
def test_case_accents_and_signs_make_no_difference(text: str):
    assert finds(text, "Crème fraîche, 200 g")


@pytest.mark.parametrize("text", ["rème", "fraiche creme", "creme g", "fraichement"])
def test_other_texts_do_not_find_it(text: str):
    assert not finds(text, "Crème fraîche, 200 g")


def test_other_scripts_are_found():
    assert finds("молок", "Цельное молоко")
    assert finds("牛", "牛乳 1 l")
    assert finds("strasse", "Große Straße")


@pytest.mark.parametrize("text", ["", " ", "!?", "\x00\x1f"])
def test_a_search_for_nothing_is_refused(text: str):
    with pytest.raises(ContractError, match="letter or digit"):
        search_range(text)


@given(st.text(max_size=60), IDS)
def test_every_beginning_of_a_name_finds_it(name: str, product_id: str):
    members = search_members(name, product_id)
    assert {found_id(member.encode()) for member in members} <= {product_id}
    if members:
        for length in range(1, len(name) + 1):
            try:
                search_range(name[:length])
            except ContractError:
                continue
            if not name[length : length + 1].strip():
                assert finds(name[:length], name)


@given(st.text(max_size=300))
def test_a_clean_name_is_one_short_line(name: str):
    clean = clean_name(name)
    assert clean == clean_name(clean)
    assert len(clean) <= MAX_NAME_LENGTH
    assert clean == "" or clean.isprintable()
    assert "  " not in clean


def test_users_survive_their_json():
    users = ExampleUsers(user_ids=[1, "a", 2**63 - 1])
    assert decode_example_users(encode_example_users(users)) == users
    with pytest.raises(ContractError):
        decode_example_users(b"[1]")
