"""THE Redis contract between publication and API: key names, codecs, schema version.

No file outside this package holds a Redis key literal or encodes or decodes a value. It needs the
standard library and msgspec only.

===========================================  ==========  ===========================================
key                                          type        value
===========================================  ==========  ===========================================
``user:{id}:top_buys``                       string      JSON of :class:`TopBuys`, not "global"
``user:{id}:top_buys_because``               string      JSON of :class:`Explanations` of that list
``user:{id}:buy_again``                      string      JSON of :class:`BuyAgain`
``global:top_buys``                          string      JSON of :class:`TopBuys`, "global"
``product:{id}:bought_together``             sorted set  member: product id, score: strength
``product:{id}:bought_together_evidence``    string      JSON of :class:`Evidence` of that list
``product:{id}:bought_together_also``        hash        rules with two antecedents; field: the
                                                         other's id, value: [[product id, strength]]
``publication:{family}``                     string      JSON of :class:`Publication`, one for each
``borrowed:bought_together``                 set         products whose list is their category's
``unavailable:products``                     set         products that the shop does not sell now
``blocked:products``                         set         products that the shop blocks: its own set,
                                                         which publication never writes
``names:{products}``                         hash        names of products; field: the product's id
``search:{products}``                        sorted set  what finds products by part of a name: see
                                                         :func:`search_members`
``examples:users``                           string      JSON of :class:`ExampleUsers`
``rate:{caller}:{window}``                   string      requests of a caller to the API, which is
                                                         the only one that writes it
===========================================  ==========  ===========================================

The members of the sets are ids as :func:`encode_id` writes them. Strength is the shrunk lift. The
braces around ``products`` stand in the keys: they keep what is renamed in one slot of a cluster.
"""

from serving.contract.codecs import (
    decode_also,
    decode_buy_again,
    decode_evidence,
    decode_example_users,
    decode_explanations,
    decode_pairings,
    decode_publication,
    decode_top_buys,
    encode_also,
    encode_buy_again,
    encode_evidence,
    encode_example_users,
    encode_explanations,
    encode_pairings,
    encode_publication,
    encode_top_buys,
)
from serving.contract.ids import (
    MAX_ID_LENGTH,
    ContractError,
    Id,
    IdKind,
    decode_id,
    encode_id,
    is_id,
)
from serving.contract.keys import (
    also_key_and_field,
    blocked_key,
    borrowed_key,
    bought_together_key,
    family_pattern,
    global_top_buys_key,
    id_of_key,
    list_key,
    publication_key,
    rate_key,
    unavailable_key,
    user_top_buys_key,
)
from serving.contract.names import (
    MAX_NAME_LENGTH,
    clean_name,
    example_users_key,
    found_id,
    names_key,
    search_key,
    search_members,
    search_range,
    staged_key,
)
from serving.contract.values import (
    SCHEMA_VERSION,
    Because,
    BecausePinned,
    BecausePopular,
    BecauseRepeat,
    BecauseSimilar,
    BuyAgain,
    Evidence,
    ExampleUsers,
    Explained,
    Explanations,
    Family,
    Instant,
    PairCount,
    Pairing,
    Publication,
    Repeat,
    ScoredProduct,
    Source,
    TopBuys,
    WeighedPurchase,
    known_through,
)

__all__ = [
    "MAX_ID_LENGTH",
    "MAX_NAME_LENGTH",
    "SCHEMA_VERSION",
    "Because",
    "BecausePinned",
    "BecausePopular",
    "BecauseRepeat",
    "BecauseSimilar",
    "BuyAgain",
    "ContractError",
    "Evidence",
    "ExampleUsers",
    "Explained",
    "Explanations",
    "Family",
    "Id",
    "IdKind",
    "Instant",
    "PairCount",
    "Pairing",
    "Publication",
    "Repeat",
    "ScoredProduct",
    "Source",
    "TopBuys",
    "WeighedPurchase",
    "also_key_and_field",
    "blocked_key",
    "borrowed_key",
    "bought_together_key",
    "clean_name",
    "decode_also",
    "decode_buy_again",
    "decode_evidence",
    "decode_example_users",
    "decode_explanations",
    "decode_id",
    "decode_pairings",
    "decode_publication",
    "decode_top_buys",
    "encode_also",
    "encode_buy_again",
    "encode_evidence",
    "encode_example_users",
    "encode_explanations",
    "encode_id",
    "encode_pairings",
    "encode_publication",
    "encode_top_buys",
    "example_users_key",
    "family_pattern",
    "found_id",
    "global_top_buys_key",
    "id_of_key",
    "is_id",
    "known_through",
    "list_key",
    "names_key",
    "publication_key",
    "rate_key",
    "search_key",
    "search_members",
    "search_range",
    "staged_key",
    "unavailable_key",
    "user_top_buys_key",
]
