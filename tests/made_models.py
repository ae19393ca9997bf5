"""Models of made-up factors, for tests of pure functions."""

import numpy as np

from recsys_assets.learn.als import AlsModel


def model_of(factors: np.ndarray, *, alpha: float = 1.0, regularization: float = 10.0) -> AlsModel:
    """A model of these product factors."""
    products = len(factors)
    return AlsModel(
        product_factors=factors.astype(np.float32),
        product_ids=np.arange(products, dtype=np.int64),
        popularity=np.ones(products, np.float32),
        user_count=1,
        alpha=alpha,
        regularization=regularization,
    )
