"""Versioned, atomic pickles of plain arrays, read through an allow-list.

An artifact is a header and named arrays. ``<name>-<version>.pkl`` are the kept versions;
``<name>.pkl`` beside them is the current one, which is the newest until an earlier one is made
current again. Both names are hard links to one file, where the file system has them. A new one is
``<name>-candidate.pkl`` first: nobody uses it before its backtest has accepted it.
Reading one never runs code: only numpy arrays and plain Python values are let through. A file ends
with the SHA-256 of what is before it, so that one whose bytes have changed is not used.
"""

import filecmp
import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
DIGEST_BYTES = 32
# A writer that was killed leaves a temporary file; no living one is as old as this.
LEFTOVER = timedelta(days=1)
Arrays = Mapping[str, NDArray[Any]]
_Kind = TypeVar("_Kind")


class ArtifactError(RuntimeError):
    """An artifact is missing, foreign, of another format or damaged: which file, what to do."""


@dataclass(frozen=True)
class Header:
    """What is known of an artifact beside its arrays."""

    name: str
    created_at: datetime
    orders_through: datetime | None
    parameters: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def version(self) -> str:
        """The version's name, which sorts by time: ``20260131T235959.123456Z``."""
        return self.created_at.strftime("%Y%m%dT%H%M%S.%fZ")

    @property
    def is_relied_on(self) -> bool:
        """Whether it is proven, accepted by force, or from before there were backtests."""
        evaluation = self.evaluation
        return not evaluation or evaluation["verdict"] == "proven" or bool(evaluation["forced"])


def artifact_path(folder: Path, name: str) -> Path:
    """Where the current version of an artifact is."""
    return folder / f"{name}.pkl"


def version_path(folder: Path, name: str, version: str) -> Path:
    """Where a kept version of an artifact is."""
    return folder / f"{name}-{version}.pkl"


def candidate_path(folder: Path, name: str) -> Path:
    """Where the artifact is that was made last, until it is accepted; a refused one stays."""
    return folder / f"{name}-candidate.pkl"


def versions(folder: Path, name: str) -> list[str]:
    """The kept versions of an artifact, newest first."""
    pattern = re.compile(re.escape(name) + r"-(\d{8}T\d{6}\.\d{6}Z)\.pkl")
    found = (pattern.fullmatch(path.name) for path in folder.glob(f"{name}-*.pkl"))
    return sorted((match[1] for match in found if match), reverse=True)


def current_version(folder: Path, name: str) -> str | None:
    """The kept version that is the current one, which need not load; None when it is none of them.

    Told by the files alone: the same one under both names, or the same content.
    """
    current = artifact_path(folder, name)
    paths = {version: version_path(folder, name, version) for version in versions(folder, name)}
    for is_same in (os.path.samefile, partial(filecmp.cmp, shallow=False)):
        for version, path in paths.items():
            with suppress(OSError):  # one of the two is not there, or no longer
                if is_same(path, current):
                    return version
    return None


def save_candidate(folder: Path, header: Header, arrays: Arrays) -> Path:
    """Write a candidate in place of the one before, if there was one; atomic.

    Raises :class:`ArtifactError` when the disk is full or the folder may not be written to.
    """
    path = candidate_path(folder, header.name)
    with _writing(folder, header):
        _write(path, header, arrays)
    return path


def load_candidate(folder: Path, name: str) -> tuple[Header, dict[str, NDArray[Any]]] | None:
    """The candidate that was not accepted yet; None when there is none.

    Raises :class:`ArtifactError` when it is damaged.
    """
    path = candidate_path(folder, name)
    if not path.exists():
        return None
    header, arrays = _load(path, name)
    # Who was killed right after a candidate was accepted has left its file.
    return None if header.version == current_version(folder, name) else (header, arrays)


def save_artifact(folder: Path, header: Header, arrays: Arrays, *, keep: int) -> Path:
    """Write a version, make it the current one, keep ``keep`` versions; its candidate is removed.

    Kept are this one, the one that was current before it, and the newest of the others: after a
    rollback, that earlier version is the last one known to be good. A version of this name that is
    there is replaced.

    A reader sees the version before or this one, never a part: temporary file, fsync, rename.
    Raises :class:`ArtifactError` when the disk is full or the folder may not be written to; the
    version before is then still the current one.
    """
    with _writing(folder, header):
        before = current_version(folder, header.name)
        _write(version_path(folder, header.name, header.version), header, arrays)
        make_current(folder, header.name, header.version)
        kept = [header.version, before, *versions(folder, header.name)]
        for old in list(dict.fromkeys(filter(None, kept)))[keep:]:
            version_path(folder, header.name, old).unlink(missing_ok=True)
        with suppress(ArtifactError, FileNotFoundError):
            path = candidate_path(folder, header.name)
            if _load(path, header.name)[0].version == header.version:
                path.unlink()
    return artifact_path(folder, header.name)


@contextmanager
def _writing(folder: Path, header: Header) -> Iterator[None]:
    """Make the folder ready to be written to; say what to do when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder, header.name, older_than=header.created_at - LEFTOVER)
        yield
    except OSError as error:
        raise ArtifactError(
            f"{folder}: {header.name} cannot be written: {error}. Let the folder have room and be"
            f" writable, or set RECSYS_DATA_DIR to another, then materialize {header.name} again"
        ) from error


def _write(path: Path, header: Header, arrays: Arrays) -> None:
    with NamedTemporaryFile(dir=path.parent, prefix=f".{header.name}-", delete=False) as file:
        temporary = Path(file.name)
        try:
            pickle.dump({"header": asdict(header), "arrays": dict(arrays)}, file, protocol=5)
            file.seek(0)
            file.write(hashlib.file_digest(file, "sha256").digest())
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _remove_leftovers(folder: Path, name: str, *, older_than: datetime) -> None:
    for path in folder.glob(f".{name}-*"):
        with suppress(FileNotFoundError):  # another writer has removed it
            if path.stat().st_ctime < older_than.timestamp():
                path.unlink()


def make_current(folder: Path, name: str, version: str) -> None:
    """Let ``<name>.pkl`` be this kept version, in one step."""
    path, link = version_path(folder, name, version), folder / f".{name}-{uuid4().hex}"
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, link)
    link.replace(artifact_path(folder, name))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_artifact(
    folder: Path, name: str, version: str | None = None
) -> tuple[Header, dict[str, NDArray[Any]]]:
    """The current version of an artifact, or the ``version`` asked for.

    Raises :class:`ArtifactError` when there is none, or when the file is not one of ours.
    """
    if version is None:
        return _load(artifact_path(folder, name), name)
    kept = versions(folder, name)
    path = version_path(folder, name, version) if version in kept else artifact_path(folder, name)
    header, arrays = _load(path, name)
    if header.version != version:
        raise ArtifactError(
            f"{path} is version {header.version} of {name}, wanted is {version}; kept:"
            f" {', '.join(kept) or 'none'}"
        )
    return header, arrays


def _load(path: Path, name: str) -> tuple[Header, dict[str, NDArray[Any]]]:
    try:
        with path.open("rb") as file:
            _require_intact(file)
            content = _PlainUnpickler(file).load()
        header = Header(**content["header"])
        arrays: dict[str, NDArray[Any]] = content["arrays"]
        sound = header.name == name and all(isinstance(a, np.ndarray) for a in arrays.values())
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no {path}: materialize {name}") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise ArtifactError(
            f"{path} is damaged or not an artifact of this project ({error}): materialize {name},"
            f" or go back to an earlier version: recsys rollback {name}"
        ) from error
    if not sound or header.format != FORMAT:
        raise ArtifactError(
            f"{path} holds {header.name!r} in format {header.format}, wanted is {name!r} in format"
            f" {FORMAT}: materialize {name}"
        )
    return header, arrays


def _require_intact(file: BinaryIO) -> None:
    """Raise unless the file ends with the digest of all that is before it; go to its start.

    To be called before unpickling, in which changed bytes can end the whole process.
    """
    left = file.seek(0, os.SEEK_END) - DIGEST_BYTES
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(max(0, min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    if file.read() != digest.digest():
        raise pickle.UnpicklingError("its content is not what was written")
    file.seek(0)


def to_arrays(value: Any) -> dict[str, NDArray[Any]]:
    """The fields of a dataclass as arrays, numbers as arrays without dimension."""
    return {f.name: np.asarray(getattr(value, f.name)) for f in fields(value)}


def from_arrays(kind: type[_Kind], arrays: Arrays) -> _Kind:
    """The inverse of :func:`to_arrays`; :class:`ArtifactError` when the fields do not fit."""
    try:
        return kind(**{name: a if a.ndim else a.item() for name, a in arrays.items()})
    except TypeError as error:
        raise ArtifactError(
            f"the artifact is of another release ({error}): materialize it again"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    """Lets through what plain arrays and dates are pickled with, and nothing else."""

    _ALLOWED = frozenset(
        {
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("datetime", "datetime"),
            ("datetime", "timezone"),
            ("datetime", "timedelta"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no artifact holds")
        return super().find_class(module, name)
