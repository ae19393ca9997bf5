"""The backtest of Bought Together, from the orders in PostgreSQL to the judgement."""

from datetime import timedelta
from typing import Any

import pytest

from recsys_assets.evaluate.backtest import Backtest, BasketSizes, backtest_bought_together
from recsys_assets.evaluate.bought_together import CART, ONE_PRODUCT
from recsys_assets.evaluate.gates import Verdict
from recsys_assets.learn.mining import Mining
from recsys_assets.shop_session import ShopSession
from tests.publications import Open
from tests.shops import Order, day

BREAD, BUTTER, JAM, MILK, TEA = range(1, 6)
RAW_LIFT = Mining(shrinkage=0.0, antecedent_shrinkage=0.0)
# Bread goes with butter. Until day 50 milk goes with jam, from then on with tea.
EARLIER = [Order(n, None, [BREAD, BUTTER] if n % 2 else [MILK, JAM], day(n)) for n in range(1, 50)]
LATER = [Order(n, n, [BREAD, BUTTER] if n % 2 else [MILK, TEA], day(n)) for n in range(50, 80)]
HELD_OUT = [Order(n, 1, [BREAD, BUTTER] if n % 2 else [MILK, TEA], day(n)) for n in range(80, 108)]


def measured(
    session: ShopSession,
    mining: Mining | None = None,
    *,
    window: timedelta | None = None,
    **options: Any,
) -> Backtest:
    chosen = {
        "incumbent": None,
        "held_out": timedelta(days=28),
        "min_baskets": 10,
        "max_baskets": 1000,
        "min_product_orders": 1,
        "tolerance": 0.02,
        "seed": 7,
    } | options
    sizes = BasketSizes(2, 100, window)
    return backtest_bought_together(session, mining or Mining(), sizes=sizes, **chosen)


def value(backtest: Backtest, scope: str, metric: str) -> float:
    """What our lists reach."""
    (row,) = (r for r in backtest.rows if (r["name"], r["scope"]) == ("Bought Together", scope))
    return float(row["intervals"][metric][0])


def test_baskets_are_held_out_by_time(open_shop: Open) -> None:
    backtest = measured(open_shop([*EARLIER, *LATER, *HELD_OUT]), min_baskets=1)
    assert backtest.until == day(107) + timedelta(microseconds=1)
    assert backtest.cutoff == backtest.until - timedelta(days=28)
    # The order of day 79 is before the cutoff by a microsecond.
    assert backtest.judgement.users == 28
    assert value(backtest, ONE_PRODUCT, "hit rate@5") == 1
    assert value(backtest, CART, "hit rate@10") == 1
    # Bread, butter and tea name each other and milk first, but milk names jam before tea.
    assert value(backtest, ONE_PRODUCT, "MRR@10") == pytest.approx((14 * 1 + 14 * 3 / 4) / 28)


def test_a_window_is_as_long_before_the_cutoff_as_it_is_when_serving(open_shop: Open) -> None:
    session = open_shop([*EARLIER, *LATER, *HELD_OUT])
    # By the last 30 days before the cutoff milk goes with tea alone, which then is first.
    window = measured(session, window=timedelta(days=30))
    assert value(window, ONE_PRODUCT, "MRR@10") == 1
    # It may be shorter than what is held out.
    short = measured(session, window=timedelta(days=20))
    assert short.judgement.users == 28
    assert value(short, ONE_PRODUCT, "MRR@10") == 1


def test_products_of_few_past_orders_are_not_measured_by(open_shop: Open) -> None:
    session = open_shop([*EARLIER, *LATER, *HELD_OUT])
    # Bread and butter were in 40 orders before, milk in 39, tea in 15.
    assert measured(session, min_product_orders=16).judgement.users == 14
    assert measured(session, min_product_orders=41).judgement.users == 0


@pytest.mark.parametrize(
    "orders",
    [
        pytest.param([], id="no orders"),
        pytest.param(HELD_OUT[1:], id="too young"),
        pytest.param([*EARLIER, Order(200, 1, [BREAD], day(200))], id="no baskets after"),
        pytest.param([*EARLIER, Order(200, 1, [8, 9], day(200))], id="other products after"),
        pytest.param(
            [*(Order(n, 1, [BREAD], day(n)) for n in range(1, 9)), *HELD_OUT],
            id="no baskets before",
        ),
        pytest.param(
            [Order(1, 1, [BREAD, BUTTER], day(1)), Order(2, 1, [MILK, TEA], day(2)), *HELD_OUT],
            id="no rules before",
        ),
    ],
)
@pytest.mark.parametrize("id_type", ["bigint", "text"])
def test_where_nothing_can_be_measured_nothing_is_proven(
    open_shop: Open, orders: list[Order], id_type: str
) -> None:
    session = open_shop(orders, id_type=id_type)
    backtest = measured(session, incumbent=Mining(), min_baskets=30)
    assert backtest.judgement.verdict is Verdict.UNPROVEN
    assert backtest.judgement.is_too_few
    assert (backtest.cutoff is None) == (not orders)


def test_rules_are_held_against_what_is_obvious_and_those_in_use(sample: ShopSession) -> None:
    options: dict[str, Any] = {"min_baskets": 100, "min_product_orders": 5}
    sound = measured(sample, incumbent=RAW_LIFT, **options)
    assert sound.judgement.verdict is not Verdict.REFUSED
    assert {(gate.against, gate.scope) for gate in sound.judgement.gates} == {
        (against, scope)
        for against in ("global popularity", "lift", "incumbent")
        for scope in (ONE_PRODUCT, CART)
    }
    raw = measured(sample, RAW_LIFT, incumbent=Mining(), **options)
    assert raw.judgement.verdict is Verdict.REFUSED
    assert ("incumbent", ONE_PRODUCT) in {(g.against, g.scope) for g in raw.judgement.failed_gates}


def test_the_same_rules_are_as_good_as_themselves_and_the_same_each_time(
    sample: ShopSession,
) -> None:
    first = measured(sample, incumbent=Mining(), max_baskets=300)
    assert first.to_header() == measured(sample, incumbent=Mining(), max_baskets=300).to_header()
    assert first.judgement.users == 300
    of_incumbent = [gate for gate in first.judgement.gates if gate.against == "incumbent"]
    assert {gate.difference for gate in of_incumbent} == {(0.0, 0.0, 0.0)}
    other = measured(sample, incumbent=Mining(), max_baskets=300, seed=8)
    assert other.to_header() != first.to_header()
