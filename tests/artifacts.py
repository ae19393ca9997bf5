"""Artifacts that tests tell apart by a number: one version a day, whose array is filled with it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from recsys_assets.learn.artifacts import Header, load_artifact, save_artifact, save_candidate

START = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)


def save(folder: Path, number: float, *, keep: int = 3, size: int = 10, **header: Any) -> Path:
    """Save a version whose array is filled with its number."""
    values = {"values": np.full(size, number)}
    return save_artifact(folder, _header(number, **header), values, keep=keep)


def propose(folder: Path, number: float, *, size: int = 10, **header: Any) -> Path:
    """Save a candidate whose array is filled with its number."""
    return save_candidate(folder, _header(number, **header), {"values": np.full(size, number)})


def _header(number: float, **header: Any) -> Header:
    return Header("model", START + timedelta(days=number), orders_through=None, **header)


def version(number: int) -> str:
    """The name of the version that is filled with this number."""
    return Header("model", START + timedelta(days=number), None).version


def current(folder: Path) -> int:
    """The number of the version that is current."""
    return int(load_artifact(folder, "model")[1]["values"][0])
