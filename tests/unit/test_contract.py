"""The Redis contract: what is written is read back, and what is foreign is refused."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contract import (
    MAX_ID_LENGTH,
    SCHEMA_VERSION,
    ContractError,
    Family,
    Id,
    Pairing,
    Publication,
    ScoredProduct,
    TopBuys,
    bought_together_key,
    decode_id,
    decode_pairings,
    decode_publication,
    decode_top_buys,
    encode_id,
    encode_pairings,
    encode_publication,
    encode_top_buys,
    family_pattern,
    global_top_buys_key,
    id_of_key,
    publication_key,
    user_top_buys_key,
)

bigints = st.integers(-(2**63), 2**63 - 1)
texts = st.text(min_size=1, max_size=MAX_ID_LENGTH).filter(str.isprintable)
ids = bigints | texts | st.uuids().map(str)
scores = st.floats(allow_nan=False, allow_infinity=False)
instants = st.datetimes(timezones=st.just(UTC))

lists = st.builds(
    TopBuys,
    schema=st.just(SCHEMA_VERSION),
    source=st.sampled_from(["personal", "global"]),
    model_version=st.text(),
    generated_at=instants,
    orders_through=st.none() | instants,
    products=st.lists(st.builds(ScoredProduct, product_id=ids, score=scores)),
)
publications = st.builds(
    Publication,
    schema=st.just(SCHEMA_VERSION),
    family=st.sampled_from(Family),
    model_version=st.text(),
    generated_at=instants,
    orders_through=st.none() | instants,
    finished_at=instants,
    keys=st.integers(0, 2**40),
    id_kind=st.sampled_from(["integer", "text"]),
)

EXAMPLE = TopBuys(
    source="global",
    model_version="v1",
    generated_at=datetime(2025, 3, 1, tzinfo=UTC),
    orders_through=None,
    products=[ScoredProduct(7, 1.5), ScoredProduct("sku-7", 0.5)],
)


def test_the_keys_are_those_of_the_table():
    assert user_top_buys_key(123) == "user:123:top_buys"
    assert global_top_buys_key() == "global:top_buys"
    assert bought_together_key("sku-7") == "product:sku-7:bought_together"
    assert publication_key(Family.BOUGHT_TOGETHER) == "publication:bought_together"


def test_a_list_is_plain_json():
    assert encode_top_buys(EXAMPLE) == (
        b'{"schema":1,"source":"global","model_version":"v1",'
        b'"generated_at":"2025-03-01T00:00:00Z","orders_through":null,'
        b'"products":[{"product_id":7,"score":1.5},{"product_id":"sku-7","score":0.5}]}'
    )


@given(lists)
def test_a_list_is_read_back_as_it_was_written(value: TopBuys):
    assert decode_top_buys(encode_top_buys(value)) == value


@given(publications)
def test_a_publication_record_is_read_back_as_it_was_written(value: Publication):
    assert decode_publication(encode_publication(value)) == value


@given(st.dictionaries(bigints, scores) | st.dictionaries(texts, scores))
def test_pairings_are_read_back_as_they_were_written(strengths: dict[Id, float]):
    pairings = [Pairing(product_id, strength) for product_id, strength in strengths.items()]
    kind = "integer" if all(isinstance(product_id, int) for product_id in strengths) else "text"
    members = [(member.encode(), score) for member, score in encode_pairings(pairings).items()]
    assert decode_pairings(members, kind) == pairings


@given(ids)
def test_an_id_is_read_back_as_it_was_written(value: Id):
    assert decode_id(encode_id(value), "integer" if isinstance(value, int) else "text") == value


@pytest.mark.parametrize("text", ["007", "+7", "-0", " 7", "7.0", "1_0", "\u0667", "9" * 20, "a-7"])
def test_text_that_no_integer_is_written_as_stays_text(text: str):
    assert decode_id(text, "integer") == text


@given(ids)
def test_the_id_is_found_again_in_its_key(value: Id):
    for family, key in [
        (Family.USER_TOP_BUYS, user_top_buys_key(value)),
        (Family.BOUGHT_TOGETHER, bought_together_key(value)),
    ]:
        assert id_of_key(family, key) == encode_id(value)
        prefix, suffix = family_pattern(family).split("*")
        assert key.startswith(prefix)
        assert key.endswith(suffix)


@given(ids, ids)
def test_different_ids_have_different_keys(one: Id, other: Id):
    assert (user_top_buys_key(one) == user_top_buys_key(other)) == (str(one) == str(other))


@pytest.mark.parametrize(
    "bad", ["", "x" * (MAX_ID_LENGTH + 1), "a\nb", "a\x00", "\ud800", "\u202e"]
)
def test_an_id_that_cannot_stand_in_a_key_is_refused(bad: str):
    with pytest.raises(ContractError, match="an id has"):
        encode_id(bad)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        encode_top_buys(EXAMPLE)[:-1],
        encode_top_buys(EXAMPLE).replace(b'"source":"global"', b'"source":"elsewhere"'),
        encode_top_buys(EXAMPLE).replace(b"00:00Z", b"00:00"),
        encode_top_buys(EXAMPLE).replace(b'"score":1.5', b'"score":null'),
    ],
)
def test_a_foreign_value_is_refused_with_what_to_do(data: bytes):
    with pytest.raises(ContractError, match="publish again"):
        decode_top_buys(data)


def test_a_value_of_another_schema_is_refused_with_both_versions():
    newer = msgspec.structs.replace(EXAMPLE, schema=2)
    with pytest.raises(ContractError, match="schema 2, this service reads 1"):
        decode_top_buys(encode_top_buys(newer))


@pytest.mark.parametrize(("member", "kind"), [(b"sku-7", "integer"), (b"\xff", "text")])
def test_a_member_that_is_no_id_of_its_kind_is_refused(member: bytes, kind: str):
    with pytest.raises(ContractError, match=f"no {kind} id"):
        decode_pairings([(member, 1.0)], kind)
