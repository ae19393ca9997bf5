"""Where the packages of the extra ``local`` keep their programs and data."""

from importlib.util import find_spec
from pathlib import Path

from recsys_assets.local.errors import MissingPackageError


def package_folder(package: str, *, otherwise: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises MissingPackageError, with the advice to install the extra or ``otherwise``, when the
    package is missing.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingPackageError(
            f"the package {package} is not installed: "
            f"pip install 'recsys-assets[local]', or {otherwise}"
        )
    return Path(spec.origin).parent
