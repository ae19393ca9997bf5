"""What the shop's people want in lists and what not: our table ``recommendation_rules``.

They write its rows with SQL; here they are read and checked, at publication. How they change lists
is told in :mod:`recsys_assets.publish.adjustments`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from psycopg import sql

from recsys_assets.ids import parse_id
from recsys_assets.shop_session import ShopSession
from recsys_assets.tables import RECOMMENDATION_RULES, recommendation_rules_table
from serving.contract import Id

LEAST_BOOST, MOST_BOOST = 1e-6, 1e6


class Scope(StrEnum):
    """The lists that a rule is about; Top Buys are the users' and the guests'."""

    EVERYWHERE = "everywhere"
    TOP_BUYS = "top_buys"
    BOUGHT_TOGETHER = "bought_together"
    BUY_AGAIN = "buy_again"


class Action(StrEnum):
    """What a rule wants of its product: to be in no list, to come first, to have another score."""

    BLOCK = "block"
    PIN = "pin"
    BOOST = "boost"


class Row(NamedTuple):
    """A row of the table; ``is_valid``: it applies now, ``is_never``: it ends before it begins."""

    id: int
    scope: str | None
    product_id: str | None
    action: str | None
    weight: float | None
    is_valid: bool
    is_never: bool


class BadRow(NamedTuple):
    """A row of the table that was skipped, and why."""

    id: int
    reason: str

    def __str__(self) -> str:
        return f"{RECOMMENDATION_RULES} row {self.id} is skipped: {self.reason}"


class Rule(NamedTuple):
    """One rule: of all lists of a scope, or of the Bought Together list of ``owner`` alone."""

    scope: Scope
    owner: Id | None
    product_id: Id
    action: Action
    weight: float


@dataclass(frozen=True)
class Wishes:
    """What the rules want in one list.

    ``pinned`` are best first, ``boosts`` are the factors of scores; what is blocked is in neither.
    """

    blocked: frozenset[Id]
    pinned: tuple[Id, ...]
    boosts: Mapping[Id, float]


@dataclass(frozen=True)
class Rules:
    """The rules that apply now, in the order of their rows."""

    rules: tuple[Rule, ...] = ()

    def of(self, scope: Scope, owner: Id | None = None) -> Wishes:
        """The wishes for the lists of a scope, those for everywhere among them.

        For ``owner`` those for its own Bought Together list come in. Blocked is blocked, whatever
        other rules say; of several pins of a product the heaviest counts, and equal pins are in the
        order of their rows, those for everywhere first; several boosts multiply.
        """
        lists = dict.fromkeys([(Scope.EVERYWHERE, None), (scope, None), (scope, owner)])
        rules = [rule for key in lists for rule in self._of_list.get(key, [])]
        blocked = frozenset(rule.product_id for rule in rules if rule.action is Action.BLOCK)
        pins: dict[Id, float] = {}
        boosts: dict[Id, float] = {}
        for rule in rules:
            if rule.product_id in blocked:
                continue
            if rule.action is Action.PIN:
                heaviest = max(pins.get(rule.product_id, -math.inf), rule.weight)
                pins[rule.product_id] = heaviest
            else:
                factor = boosts.get(rule.product_id, 1.0) * rule.weight
                boosts[rule.product_id] = min(max(factor, LEAST_BOOST), MOST_BOOST)
        pinned = sorted(pins, key=lambda product: -pins[product])
        return Wishes(blocked, tuple(pinned), boosts)

    @property
    def owners(self) -> list[Id]:
        """The products for whose own Bought Together list there are rules."""
        return [owner for _, owner in self._of_list if owner is not None]

    @cached_property
    def _of_list(self) -> Mapping[tuple[Scope, Id | None], list[Rule]]:
        grouped: dict[tuple[Scope, Id | None], list[Rule]] = defaultdict(list)
        for rule in self.rules:
            grouped[rule.scope, rule.owner].append(rule)
        return grouped


def read_rules(session: ShopSession, now: datetime) -> tuple[Rules, list[BadRow]]:
    """The rules that apply at ``now``, and the rows that are none. Our tables must be there."""
    rows = session.connection.execute(
        sql.SQL(
            "SELECT id, scope, product_id, action, weight,"
            " coalesce(valid_from <= %(now)s, true) AND coalesce(valid_until > %(now)s, true),"
            " coalesce(valid_until <= valid_from, false)"
            " FROM {} ORDER BY id"
        ).format(recommendation_rules_table(session.shop)),
        {"now": now},
    ).fetchall()
    return parse_rules(map(Row._make, rows), session.shop.product_id_type)


def parse_rules(rows: Iterable[Row], product_id_type: str) -> tuple[Rules, list[BadRow]]:
    """The rules of rows that apply now, and all rows that are none, in the order given.

    ``product_id_type`` is the shop's type of product ids, by its name in PostgreSQL.
    """
    rules, bad = [], []
    for row in rows:
        try:
            rule = _parse(row, product_id_type)
        except ValueError as error:
            bad.append(BadRow(row.id, str(error)))
        else:
            if row.is_valid:
                rules.append(rule)
    return Rules(tuple(rules)), bad


def _parse(row: Row, id_type: str) -> Rule:
    """The rule of a row; ValueError with the reason when it is none."""
    name, separator, owner_text = (row.scope or "").partition(":")
    if name not in list(Scope) or (separator and name != Scope.BOUGHT_TOGETHER):
        raise ValueError(
            f"unknown scope {row.scope!r} (there are {', '.join(Scope)}, and"
            " bought_together:<product id> for one product's list)"
        )
    owner = _product(owner_text, id_type) if separator else None
    if row.action not in list(Action):
        raise ValueError(f"unknown action {row.action!r} (there are {', '.join(Action)})")
    if row.product_id is None:
        raise ValueError("no product_id")
    product, action = _product(row.product_id, id_type), Action(row.action)
    weight = 0.0 if row.weight is None else row.weight
    if action is Action.BOOST and not LEAST_BOOST <= weight <= MOST_BOOST:
        raise ValueError(
            f"a boost has a weight above 0, from {LEAST_BOOST} to {MOST_BOOST:.0f},"
            f" not {row.weight}"
        )
    if action is Action.PIN and not math.isfinite(weight):
        raise ValueError(f"a pin has a finite weight or none, not {weight}")
    if row.is_never:
        raise ValueError("valid_until is not after valid_from")
    return Rule(Scope(name), owner, product, action, weight)


def _product(text: str, id_type: str) -> Id:
    product = parse_id(text.strip(), id_type)
    if product is None:
        raise ValueError(f"{text!r} is no id of a product, which here are of type {id_type}")
    return product
