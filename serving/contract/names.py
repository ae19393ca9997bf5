"""Names of products, what finds a product by part of its name, and a few users to begin with.

They are for people who look at the lists; no list depends on them.
"""

import re
import unicodedata

from serving.contract.ids import ContractError, Id, encode_id

MAX_NAME_LENGTH = 120
SEARCHED_WORDS, SEARCHED_LENGTH = 6, 24

_BETWEEN = "\x1f"  # sorts before all that a name is folded to, and is in no id
_LAST = "\U0010ffff"
_WORD = re.compile(r"[^\W_]+")


def names_key() -> str:
    """The key of the hash of product names; the field is the id of a product."""
    return "names:{products}"


def search_key() -> str:
    """The key of the sorted set that finds products by part of their name; all scores are 0."""
    return "search:{products}"


def staged_key(key: str) -> str:
    """Where the value of a key is built that then takes its place: in the same slot."""
    return f"{key}:new"


def example_users_key() -> str:
    """The key of the ids of a few users who have lists."""
    return "examples:users"


def clean_name(name: str) -> str:
    """A name as it is published: one line, single blanks, 120 characters at most."""
    if not name.isprintable():
        name = "".join(c if c.isprintable() else " " for c in name)
    return " ".join(name.split())[:MAX_NAME_LENGTH].rstrip()


def search_members(name: str, product_id: Id) -> list[str]:
    """The members by which a product is found: its name from each of its first words on."""
    words = _folded(name)
    text = encode_id(product_id)
    starts = range(min(len(words), SEARCHED_WORDS))
    suffixes = (" ".join(words[start:])[:SEARCHED_LENGTH] for start in starts)
    return [f"{suffix}{_BETWEEN}{text}" for suffix in dict.fromkeys(suffixes)]


def search_range(text: str) -> tuple[str, str]:
    """The bounds for ZRANGE BYLEX of the members that ``text`` finds.

    It finds names with these words in this order, of the last one its first letters. Raises
    :class:`ContractError` for a text without letters and digits.
    """
    prefix = " ".join(_folded(text))[:SEARCHED_LENGTH]
    if not prefix:
        raise ContractError("a search has at least one letter or digit")
    return f"[{prefix}", f"({prefix}{_LAST}"


def found_id(member: bytes) -> str:
    """The text of the product's id in a member of the search."""
    return member.decode(errors="replace").rpartition(_BETWEEN)[2]


def _folded(text: str) -> list[str]:
    """The words of a text without case and accents."""
    folded = text.casefold()
    if not folded.isascii():
        decomposed = unicodedata.normalize("NFKD", folded)
        folded = "".join(c for c in decomposed if not unicodedata.combining(c))
    return _WORD.findall(folded)
