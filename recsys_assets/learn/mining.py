"""From baskets to rules by one set of parameters: what `basket_rules` does, and its backtest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from recsys_assets.learn.artifacts import ArtifactError
from recsys_assets.learn.baskets import Baskets
from recsys_assets.learn.itemsets import Engine, Itemsets, frequent_itemsets
from recsys_assets.learn.rules import BasketRules, rules_from_itemsets


@dataclass(frozen=True)
class Mining:
    """What makes an itemset frequent, and a rule strong.

    Of ``min_orders`` and ``min_support`` one is None.
    """

    engine: Engine = "sparse"
    min_orders: int | None = 2
    min_support: float | None = None
    max_itemset_size: int = 2
    shrinkage: float = 3.0
    antecedent_shrinkage: float = 0.1

    def to_parameters(self) -> dict[str, Any]:
        """As parameters of an artifact's header."""
        return asdict(self)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "Mining":
        """The inverse of :meth:`to_parameters`; ArtifactError where one is missing."""
        try:
            return cls(**{f.name: parameters[f.name] for f in fields(cls)})
        except KeyError as error:
            raise ArtifactError(
                f"the artifact is of another release (no {error}): materialize it again"
            ) from error


def mine(baskets: Baskets, mining: Mining) -> tuple[Itemsets, BasketRules]:
    """The frequent itemsets of baskets, and all of their rules."""
    itemsets = frequent_itemsets(
        baskets,
        engine=mining.engine,
        max_itemset_size=mining.max_itemset_size,
        min_orders=mining.min_orders,
        min_support=mining.min_support,
    )
    return itemsets, rules_from_itemsets(itemsets, mining.shrinkage, mining.antecedent_shrinkage)
