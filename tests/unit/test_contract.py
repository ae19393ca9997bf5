"""The Redis contract: what is written is read back, and what is foreign is refused."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contract import (
    MAX_ID_LENGTH,
    SCHEMA_VERSION,
    BecausePinned,
    BecausePopular,
    BecauseRepeat,
    BecauseSimilar,
    BuyAgain,
    ContractError,
    Evidence,
    Explained,
    Explanations,
    Family,
    Id,
    PairCount,
    Pairing,
    Publication,
    Repeat,
    ScoredProduct,
    TopBuys,
    WeighedPurchase,
    also_key_and_field,
    blocked_key,
    borrowed_key,
    bought_together_key,
    decode_also,
    decode_buy_again,
    decode_evidence,
    decode_explanations,
    decode_id,
    decode_pairings,
    decode_publication,
    decode_top_buys,
    encode_also,
    encode_buy_again,
    encode_evidence,
    encode_explanations,
    encode_id,
    encode_pairings,
    encode_publication,
    encode_top_buys,
    family_pattern,
    global_top_buys_key,
    id_of_key,
    list_key,
    publication_key,
    unavailable_key,
    user_top_buys_key,
)

bigints = st.integers(-(2**63), 2**63 - 1)
texts = st.text(min_size=1, max_size=MAX_ID_LENGTH).filter(str.isprintable)
ids = bigints | texts | st.uuids().map(str)
scores = st.floats(allow_nan=False, allow_infinity=False)
instants = st.datetimes(timezones=st.just(UTC))
counts, positives = st.integers(0, 2**40), st.integers(1, 2**40)
FAMILIES_OF_IDS = [family for family in Family if family is not Family.GLOBAL_TOP_BUYS]

lists = st.builds(
    TopBuys,
    schema=st.just(SCHEMA_VERSION),
    source=st.sampled_from(["personal", "own_purchases", "global"]),
    model_version=st.text(),
    generated_at=instants,
    orders_through=st.none() | instants,
    products=st.lists(st.builds(ScoredProduct, product_id=ids, score=scores)),
)
reasons = (
    st.builds(
        BecauseSimilar,
        st.lists(st.builds(WeighedPurchase, product_id=ids, weight=scores)),
    )
    | st.builds(BecauseRepeat, purchases=counts, last_purchased_at=instants)
    | st.just(BecausePopular())
    | st.just(BecausePinned())
)
explanations = st.builds(
    Explanations,
    schema=st.just(SCHEMA_VERSION),
    model_version=st.text(),
    generated_at=instants,
    because=st.lists(st.builds(Explained, product_id=ids, because=reasons)),
)
repeats = st.builds(
    Repeat,
    product_id=ids,
    score=scores,
    purchases=counts,
    last_purchased_at=instants,
    due_at=st.none() | instants,
)
buy_agains = st.builds(
    BuyAgain,
    schema=st.just(SCHEMA_VERSION),
    model_version=st.text(),
    generated_at=instants,
    orders_through=st.none() | instants,
    products=st.lists(repeats),
)
evidences = st.builds(
    Evidence,
    schema=st.just(SCHEMA_VERSION),
    model_version=st.text(),
    baskets=positives,
    orders=positives,
    products=st.lists(
        st.builds(PairCount, product_id=ids, orders=counts, product_orders=positives)
    ),
    borrowed=st.booleans(),
)
publications = st.builds(
    Publication,
    schema=st.just(SCHEMA_VERSION),
    family=st.sampled_from(Family),
    model_version=st.text(),
    generated_at=instants,
    orders_through=st.none() | instants,
    finished_at=instants,
    keys=counts,
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
    assert list_key(Family.USER_TOP_BUYS_BECAUSE, 123) == "user:123:top_buys_because"
    assert list_key(Family.USER_BUY_AGAIN, 123) == "user:123:buy_again"
    assert list_key(Family.BOUGHT_TOGETHER_EVIDENCE, "a:b") == (
        "product:a:b:bought_together_evidence"
    )
    assert publication_key(Family.BOUGHT_TOGETHER) == "publication:bought_together"
    assert borrowed_key() == "borrowed:bought_together"
    assert unavailable_key() == "unavailable:products"
    assert blocked_key() == "blocked:products"


def test_rules_with_two_antecedents_stand_under_the_one_whose_text_is_smaller():
    for pair in [(9, 10), (10, 9), ("9", "10")]:
        assert also_key_and_field(*pair) == ("product:10:bought_together_also", "9")


@given(ids, ids)
def test_the_order_of_two_antecedents_is_the_same_to_their_rules(one: Id, other: Id):
    key, field = also_key_and_field(one, other)
    assert also_key_and_field(other, one) == (key, field)
    first = id_of_key(Family.BOUGHT_TOGETHER_ALSO, key)
    assert sorted([first, field]) == sorted([str(one), str(other)])


def test_a_list_is_plain_json():
    assert encode_top_buys(EXAMPLE) == (
        b'{"schema":1,"source":"global","model_version":"v1",'
        b'"generated_at":"2025-03-01T00:00:00Z","orders_through":null,'
        b'"products":[{"product_id":7,"score":1.5},{"product_id":"sku-7","score":0.5}]}'
    )


@given(lists)
def test_a_list_is_read_back_as_it_was_written(value: TopBuys):
    assert decode_top_buys(encode_top_buys(value)) == value


@given(explanations)
def test_explanations_are_read_back_as_they_were_written(value: Explanations):
    assert decode_explanations(encode_explanations(value)) == value


@given(buy_agains)
def test_what_is_bought_again_is_read_back_as_it_was_written(value: BuyAgain):
    assert decode_buy_again(encode_buy_again(value)) == value


@given(evidences)
def test_evidence_is_read_back_as_it_was_written(value: Evidence):
    assert decode_evidence(encode_evidence(value)) == value


@given(st.lists(st.builds(Pairing, product_id=ids, strength=scores)))
def test_what_two_antecedents_lead_to_is_read_back_as_it_was_written(pairings: list[Pairing]):
    assert decode_also(encode_also(pairings)) == pairings


def test_explanations_name_their_kind():
    moment = datetime(2025, 3, 1, tzinfo=UTC)
    value = Explanations(
        model_version="v1",
        generated_at=moment,
        because=[
            Explained(1, BecauseSimilar([WeighedPurchase(2, 0.5)])),
            Explained(2, BecauseRepeat(3, moment)),
            Explained("c", BecausePopular()),
            Explained("d", BecausePinned()),
        ],
    )
    assert msgspec.json.decode(encode_explanations(value))["because"] == [
        {
            "product_id": 1,
            "because": {"kind": "similar", "purchases": [{"product_id": 2, "weight": 0.5}]},
        },
        {
            "product_id": 2,
            "because": {
                "kind": "repeat",
                "purchases": 3,
                "last_purchased_at": "2025-03-01T00:00:00Z",
            },
        },
        {"product_id": "c", "because": {"kind": "popular"}},
        {"product_id": "d", "because": {"kind": "pinned"}},
    ]


def test_what_two_antecedents_lead_to_is_plain_json():
    assert encode_also([Pairing(7, 1.5), Pairing("sku-7", 0.5)]) == b'[[7,1.5],["sku-7",0.5]]'


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


ids_like_keys = st.sampled_from(
    [":", "*", "1:top_buys", "1:top_buys_because", "x:bought_together", ":bought_together_also"]
)


@given(ids | ids_like_keys, st.sampled_from(FAMILIES_OF_IDS))
def test_the_id_is_found_again_in_its_key_and_only_by_its_family(value: Id, family: Family):
    key = list_key(family, value)
    assert id_of_key(family, key) == encode_id(value)
    assert [each for each in Family if _matches(family_pattern(each), key)] == [family]


def test_no_pattern_matches_the_keys_that_are_of_no_user_and_no_product():
    others = [blocked_key(), unavailable_key(), borrowed_key(), *map(publication_key, Family)]
    patterns = [family_pattern(family) for family in Family]
    assert not [key for key in others for pattern in patterns if _matches(pattern, key)]
    assert [p for p in patterns if _matches(p, global_top_buys_key())] == [global_top_buys_key()]


def _matches(pattern: str, key: str) -> bool:
    """As Redis does, for patterns whose only special character is one star."""
    prefix, star, suffix = pattern.partition("*")
    if not star:
        return key == pattern
    return len(key) >= len(prefix + suffix) and key.startswith(prefix) and key.endswith(suffix)


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


@pytest.mark.parametrize(
    ("decode", "data"),
    [
        (decode_explanations, b'{"model_version":"v1"}'),
        (
            decode_explanations,
            b'{"model_version":"v1","generated_at":"2025-03-01T00:00:00Z",'
            b'"because":[{"product_id":1,"because":{"kind":"guessed"}}]}',
        ),
        (decode_buy_again, b"[]"),
        (decode_evidence, b"\xff"),
        (decode_also, b'{"7":1.5}'),
        (decode_also, b'[["sku-7"]]'),
    ],
)
def test_foreign_values_of_the_other_kinds_are_refused_too(decode, data: bytes):
    with pytest.raises(ContractError, match="publish again"):
        decode(data)


def test_a_value_of_another_schema_is_refused_with_both_versions():
    newer = msgspec.structs.replace(EXAMPLE, schema=2)
    with pytest.raises(ContractError, match="schema 2, this service reads 1"):
        decode_top_buys(encode_top_buys(newer))


@pytest.mark.parametrize(("member", "kind"), [(b"sku-7", "integer"), (b"\xff", "text")])
def test_a_member_that_is_no_id_of_its_kind_is_refused(member: bytes, kind: str):
    with pytest.raises(ContractError, match=f"no {kind} id"):
        decode_pairings([(member, 1.0)], kind)
