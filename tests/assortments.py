"""What a shop wants in its lists, for tests of pure functions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsys_assets.learn.matrix import Ids
from recsys_assets.publish.adjustments import as_ids
from recsys_assets.publish.merchandising import Rule, Rules
from recsys_assets.publish.selection import Assortment


def assortment(
    *rules: Rule,
    unavailable: tuple[Any, ...] = (),
    categories: Mapping[Any, int] | None = None,
    most_per_category: int | None = None,
) -> Assortment:
    """By default the shop wants the best, and nothing else."""

    def category(product_ids: Ids) -> np.ndarray:
        return np.array([(categories or {}).get(i, -1) for i in product_ids.tolist()], np.int64)

    return Assortment(Rules(rules), as_ids(sorted(unavailable)), most_per_category, category)
