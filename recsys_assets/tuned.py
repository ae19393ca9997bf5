"""The settings that `recsys tune` has chosen for this shop: `tuned.toml` in the data folder.

A top-level `half_life_days`, and a table for each asset with fields of its config. The graph reads
it whenever it runs; the environment and run config go before it. It may be edited by hand, or
deleted.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from recsys_assets.settings import SettingsError

FILE = "tuned.toml"
HALF_LIFE = "half_life_days"
TABLES = ("als_model", "basket_rules")
"""The assets that have a table in it."""


def read_tuned(folder: Path) -> dict[str, Any]:
    """What the file holds; nothing where there is none.

    Raises :class:`SettingsError` if it is no TOML, or has something else at its top.
    """
    path = folder / FILE
    try:
        tuned = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}): mend it or delete it") from error
    for name, value in tuned.items():
        if name != HALF_LIFE and (name not in TABLES or not isinstance(value, dict)):
            tables = ", ".join(f"[{table}]" for table in TABLES)
            raise misfit(name, f"not one of {HALF_LIFE}, {tables}")
    return tuned


def misfit(name: str, problem: str) -> SettingsError:
    """The error of what stands in the file under a name and cannot be used."""
    return SettingsError(f"{FILE} does not fit: {name}: {problem}: mend it or delete it")


def write_tuned(
    folder: Path, half_life_days: float, assets: Mapping[str, Mapping[str, float]], remark: str
) -> Path:
    """Replace the file, in one step. ``remark`` stands above the settings."""
    lines = [f"# {line}" for line in remark.splitlines()]
    lines.append(f"{HALF_LIFE} = {half_life_days!r}")
    for asset, chosen in assets.items():
        lines += ["", f"[{asset}]", *(f"{name} = {value!r}" for name, value in chosen.items())]
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=folder, prefix=f".{FILE}-", delete=False) as file:
        file.write("\n".join(lines) + "\n")
        temporary = Path(file.name)
    temporary.chmod(0o644)
    return temporary.replace(folder / FILE)
