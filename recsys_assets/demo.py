"""The sample shop as the commands `demo` and `simulate` run it: loaded, published, and ordered at.

What an order is and when it comes in stands in `local/simulator.py`; here it is watched.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recsys_assets.backtests import BACKTESTS, evaluated_last, outcome
from recsys_assets.catalogue import product_names
from recsys_assets.console import bar_for_each, bars
from recsys_assets.ingest.watermark import orders_watermark
from recsys_assets.learn.artifacts import artifact_path
from recsys_assets.local.sample_shop import Sample, load_sample, loaded_sample, start_of_last
from recsys_assets.local.simulator import Order, come_in, waiting_orders
from recsys_assets.publish.redis_reader import read_publication
from recsys_assets.session import Session
from recsys_assets.shop import inspect_shop
from recsys_assets.status import ARTIFACTS
from serving.contract import Family

HELD_BACK_DAYS = 28
ALL_LOADED = (
    "No orders come in: this sample was loaded with all of its orders. To hold some back:"
    f" recsys load-sample --replace --hold-back-days {HELD_BACK_DAYS}"
)
NAMED_PRODUCTS = 3
SECONDS_BETWEEN_LINES = 1.0


def load_demo(console: Console, session: Session, households: int | None) -> Sample:
    """Load the sample without its last four weeks, or keep the one that is there; return which.

    Raises ShopNotEmptyError where there are tables that are not the sample of these households.
    """
    with session.database() as connection, bars(console) as shown:
        there = loaded_sample(connection)
        sample = Sample(households, there.until if there else start_of_last(HELD_BACK_DAYS))
        load_sample(
            connection,
            households=sample.households,
            until=sample.until,
            progress=bar_for_each(shown),
        )
    return sample


def is_published(session: Session) -> bool:
    """Whether orders were processed, and every artifact and every family of lists is there.

    Orders that have come in since are no reason to learn anew: the running system catches up.
    """
    with session.shop() as (connection, shop):
        processed = orders_watermark(connection, shop) is not None
    with session.redis() as client:
        published = all(read_publication(client, family) for family in Family)
    made = all(artifact_path(session.settings.data_dir, name).exists() for name in ARTIFACTS)
    return processed and published and made


def print_outcomes(console: Console, session: Session) -> None:
    """Print in a line for each model what its backtest has found; see `recsys evaluate` for all."""
    for name, backtest in BACKTESTS.items():
        header = evaluated_last(session.settings.data_dir, name)
        if header:
            console.print(f"{backtest}: {name} is {outcome(header)}", highlight=False)


def let_orders_come_in(
    console: Console, session: Session, *, rate: float, most: int | None, burst: int, seed: int
) -> None:
    """Place the orders that are held back, and tell of them, until Ctrl-C or the last of ``most``.

    See :func:`~recsys_assets.local.simulator.come_in`. Raises NothingHeldBackError.
    """
    with session.database() as connection:
        waiting = waiting_orders(connection)
        shop = inspect_shop(connection, session.settings)
        connection.commit()
        connection.autocommit = True  # a look at names shall leave no transaction open
        wanted = len(waiting) if most is None else min(most, len(waiting))

        def names(order: Order) -> list[str]:
            ids = [line.product_id for line in order.lines]
            known = product_names(connection, shop, ids)
            return [known.get(str(product_id), str(product_id)) for product_id in ids]

        with _Telling(console, wanted, names) as telling, suppress(KeyboardInterrupt):
            for orders in come_in(
                connection,
                islice(waiting, wanted),
                rate=rate,
                burst=min(burst, wanted),
                seed=seed,
            ):
                telling.placed(orders)
        left = len(waiting_orders(connection))
    console.print(telling.summary(left), highlight=False, soft_wrap=True)


class _Telling:
    """What is said of orders that come in: a line now and then, and on a terminal a bar."""

    def __init__(self, console: Console, total: int, names: Callable[[Order], list[str]]) -> None:
        self._console, self._total, self._names = console, total, names
        self._bar = Progress(
            TextColumn("orders"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}/s"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("orders", total=total, rate="0")
        self._count, self._started, self._told = 0, time.monotonic(), 0.0

    def placed(self, orders: Sequence[Order]) -> None:
        """These came in; the last of them is told about if nothing was in the last second."""
        self._count += len(orders)
        self._bar.update(self._task, completed=self._count, rate=self._rate)
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            of = "" if self._console.is_terminal else f"{self._count:,} of {self._total:,} orders, "
            rate = "" if self._console.is_terminal else f"{self._rate}/s: "
            line = order_line(orders[-1], self._names(orders[-1]))
            self._console.print(of + rate + line, markup=False, highlight=False, soft_wrap=True)

    def summary(self, left: int) -> str:
        """What came in, and what is left to come in."""
        came = f"{self._count:,} orders have come in, {self._rate}/s"
        return came + (
            f"; {left:,} are left, recsys simulate goes on" if left else "; none is left"
        )

    @property
    def _rate(self) -> str:
        return f"{self._count / max(time.monotonic() - self._started, 1e-9):,.1f}"

    def __enter__(self) -> "_Telling":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def order_line(order: Order, names: Sequence[str]) -> str:
    """What an order is, in a line: ``2017-12-04 04:03, user 451 bought Bananas and 2 more``."""
    named = "; ".join(names[:NAMED_PRODUCTS])
    more = f" and {len(names) - NAMED_PRODUCTS} more" if len(names) > NAMED_PRODUCTS else ""
    return f"{order.placed_at:%Y-%m-%d %H:%M}, user {order.user_id} bought {named}{more}"
