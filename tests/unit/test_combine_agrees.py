"""A cart is completed alike by the API, in plain Python, and by the backtest, in arrays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.evaluate.bought_together import RuleLists, cart_lists
from recsys_assets.learn.rules import TopConsequents
from serving.answers import combine
from serving.contract import Pairing
from serving.readings import without

PRODUCTS = 12
Rules = list[dict[int, float]]
"""Of each product what is bought with it, and how strongly."""


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    strengths = st.floats(0.001, 1000.0, allow_subnormal=False)
    products = st.integers(0, PRODUCTS - 1)
    lists = [draw(st.dictionaries(products, strengths)) for _ in range(PRODUCTS)]
    return [{p: s for p, s in each.items() if p != product} for product, each in enumerate(lists)]


def by_strength(pairings: dict[int, float]) -> list[tuple[int, float]]:
    return sorted(pairings.items(), key=lambda pair: (-pair[1], pair[0]))


def as_arrays(lists: Rules) -> RuleLists:
    """The lists as they are measured."""
    ordered = [pair for each in lists for pair in by_strength(each)]
    return RuleLists(
        TopConsequents(
            indptr=np.cumsum([0, *map(len, lists)]),
            consequents=np.array([product for product, _ in ordered], np.int32),
            strengths=np.array([strength for _, strength in ordered], np.float64),
            rules=np.arange(len(ordered)),
        )
    )


def as_served(lists: Rules, cart: list[int], length: int) -> list[Pairing]:
    """What the API makes of the first ``length`` of each list."""
    read = [[Pairing(*pair) for pair in by_strength(lists[member])[:length]] for member in cart]
    return without(combine(read), frozenset(map(str, cart)))


@given(
    lists=rules(),
    carts=st.lists(
        st.lists(st.integers(0, PRODUCTS - 1), min_size=1, max_size=6, unique=True),
        min_size=1,
        max_size=4,
    ),
    length=st.integers(1, PRODUCTS),
    most=st.integers(1, PRODUCTS),
)
def test_carts_are_completed_alike(
    lists: Rules, carts: list[list[int]], length: int, most: int
) -> None:
    columns = [product for cart in carts for product in sorted(cart)]
    rows = csr_matrix(
        (np.ones(len(columns), np.int8), columns, np.cumsum([0, *map(len, carts)])),
        shape=(len(carts), PRODUCTS),
    )
    found = cart_lists(as_arrays(lists), rows, most, length=length)
    for cart, row in zip(carts, found.tolist(), strict=True):
        served = as_served(lists, cart, length)
        strength = {pairing.product_id: pairing.strength for pairing in served}
        shown = [product for product in row if product >= 0]
        assert len(set(shown)) == len(shown) == min(most, len(served))
        assert row == shown + [-1] * (most - len(shown))
        # Alike place by place, but for products whose strengths differ by rounding alone.
        for product, pairing in zip(shown, served, strict=False):
            assert product == pairing.product_id or np.isclose(
                strength[product], pairing.strength, rtol=1e-12
            )
