"""Artifacts that tests tell apart by a number: one version a day, whose array is filled with it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from recsys_assets.learn.artifacts import Header, load_artifact, save_artifact

START = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)


def save(folder: Path, number: float, *, keep: int = 3, size: int = 10, **header: Any) -> Path:
    """Save a version whose array is filled with its number."""
    created = START + timedelta(days=number)
    whole = Header("model", created, orders_through=None, **header)
    return save_artifact(folder, whole, {"values": np.full(size, number)}, keep=keep)


def version(number: int) -> str:
    """The name of the version that is filled with this number."""
    return Header("model", START + timedelta(days=number), None).version


def current(folder: Path) -> int:
    """The number of the version that is current."""
    return int(load_artifact(folder, "model")[1]["values"][0])
