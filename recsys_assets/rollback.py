"""Going back: an earlier version of a model becomes current again, and its lists are published.

In that order: the earlier version is read, its file made the current one, the change told to
Dagster, and what is made of it published anew as a Dagster run.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console

from recsys_assets.batch import MaterializationError, UsageError, materialize
from recsys_assets.learn.artifacts import (
    Arrays,
    ArtifactError,
    Header,
    artifact_path,
    current_version,
    from_arrays,
    load_artifact,
    make_current,
    versions,
)

PUBLISHED_AS: Mapping[str, str] = {"als_model": "user_top_buys", "basket_rules": "bought_together"}
"""Each artifact, and the asset that publishes its lists."""


class RollbackError(RuntimeError):
    """A version cannot be gone back to, or its lists were not published: what is current now."""


@dataclass(frozen=True)
class Rollback:
    """The version that is current again, and the one whose place it has taken, if there was one."""

    name: str
    version: str
    rolled_back_from: str | None
    run_id: str


def roll_back(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    console: Console,
    folder: Path,
    name: str,
    *,
    to: str | None = None,
    config: dict[str, Any] | None = None,
) -> Rollback:
    """Make a kept version of an artifact current again and publish its lists.

    The version is ``to``, which may also be a newer one, or the newest of those before the current
    one. ``config`` is Dagster run config of the publication.

    Raises :class:`recsys_assets.batch.UsageError` for an unknown artifact; :class:`RollbackError`
    when there is no such version or it does not load, with nothing changed, and when the
    publication fails, with the version current all the same.
    """
    if name not in PUBLISHED_AS:
        raise UsageError(f"no artifact {name}; there are {', '.join(PUBLISHED_AS)}")
    lists = PUBLISHED_AS[name]
    before = _version_in_use(folder, name)
    version = _target(folder, name, before, to)
    try:
        header, arrays = load_artifact(folder, name, version)
        _contents(header, arrays)
    except ArtifactError as error:
        raise RollbackError(
            f"{error}. Nothing was changed. {_kept(folder, name, before)}"
        ) from error
    make_current(folder, name, version)
    instance.report_runless_asset_event(_materialization(folder, header, before))
    console.print(f"{name} {version} is current again, instead of {before or 'none'}")
    try:
        batch = materialize(definitions, instance, console, assets=[lists], config=config)
    except (MaterializationError, UsageError) as error:
        raise RollbackError(
            f"{name} {version} is current, but its lists were not published: {error}\nMend that,"
            f" then: recsys materialize {lists}"
        ) from error
    return Rollback(name, version, before, batch.run_id)


def _version_in_use(folder: Path, name: str) -> str | None:
    """The current version, by its header or, where that cannot be read, by its file."""
    with suppress(ArtifactError):
        return load_artifact(folder, name)[0].version
    return current_version(folder, name)


def _target(folder: Path, name: str, before: str | None, to: str | None) -> str:
    """The version to go to: ``to`` if it is kept, else the newest kept before the current one."""
    kept = versions(folder, name)
    earlier = [version for version in kept if before is None or version < before]
    listing = _kept(folder, name, before)
    if to is None and not earlier:
        raise RollbackError(f"there is no earlier version of {name} to go back to. {listing}")
    if to == before and to is not None:
        raise RollbackError(
            f"{name} {to} is the current version; to publish from it: recsys materialize"
            f" {PUBLISHED_AS[name]}. {listing}"
        )
    if to is not None and to not in kept:
        raise RollbackError(f"version {to} of {name} is not kept. {listing}")
    return to or earlier[0]


def _kept(folder: Path, name: str, current: str | None) -> str:
    """A sentence that lists the kept versions, newest first."""
    kept = [f"{v} (current)" if v == current else v for v in versions(folder, name)]
    return f"Kept: {', '.join(kept) or 'none'}."


def _contents(header: Header, arrays: Arrays) -> object:
    """The arrays as what they are of; ArtifactError when another release has written them."""
    from recsys_assets.learn.als import AlsModel
    from recsys_assets.learn.recipe import Recipe
    from recsys_assets.learn.rules import BasketRules

    kinds: Mapping[str, type[object]] = {"als_model": AlsModel, "basket_rules": BasketRules}
    if header.name == "als_model":
        Recipe.from_parameters(header.parameters)
    return from_arrays(kinds[header.name], arrays)


def _materialization(folder: Path, header: Header, before: str | None) -> dg.AssetMaterialization:
    """What Dagster's history is told: the artifact is now this version again."""
    metadata: dict[str, Any] = {
        "version": header.version,
        "rolled_back_from": before,
        "path": dg.MetadataValue.path(artifact_path(folder, header.name)),
    }
    if header.orders_through:
        metadata["orders_through"] = dg.MetadataValue.timestamp(header.orders_through)
    return dg.AssetMaterialization(
        header.name, description="rolled back to a kept version", metadata=metadata
    )
