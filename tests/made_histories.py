"""Histories of made-up users, for tests of pure functions."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from recsys_assets.learn.matrix import Histories, Ids, histories_from_arrow

START = datetime(2025, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    """That many days after the start."""
    return START + timedelta(days=number)


def histories(
    bought: Mapping[tuple[Any, Any], tuple[float, int, float, float]],
    product_ids: Ids | None = None,
) -> Histories:
    """By user and product: the weight, the purchases, the days of the first and the last."""
    moments = pa.timestamp("us", tz="UTC")
    weights, counts, firsts, lasts = zip(*bought.values(), strict=True)
    return histories_from_arrow(
        pa.table(
            {
                "user_id": [user for user, _ in bought],
                "product_id": [product for _, product in bought],
                "weight": pa.array(weights, pa.float32()),
                "purchase_count": pa.array(counts, pa.int32()),
                "first_purchased_at": pa.array(map(day, firsts), moments),
                "last_purchased_at": pa.array(map(day, lasts), moments),
            }
        ),
        product_ids,
    )
