"""Artifacts on disk: whole or not at all, and never code."""

import hashlib
import os
import pickle
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from recsys_assets.learn.als import AlsModel
from recsys_assets.learn.artifacts import (
    ArtifactError,
    Header,
    artifact_path,
    from_arrays,
    load_artifact,
    make_current,
    save_artifact,
    to_arrays,
    versions,
)
from tests.artifacts import START, current, save


def sealed(data: bytes) -> bytes:
    """What a file with this pickle looks like to whom may write into the folder."""
    return data + hashlib.sha256(data).digest()


@contextmanager
def disk_full(after: int) -> Iterator[None]:
    """Files cannot grow beyond a number of bytes, for whoever this runs as."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@dataclass(frozen=True)
class Model:
    factors: np.ndarray
    ids: np.ndarray
    count: int
    share: float


@pytest.mark.parametrize(
    "ids",
    [np.array([3, 5], np.int64), np.array(["a", "ü"], object), np.array([], object)],
    ids=["integer", "text", "none"],
)
def test_what_is_saved_is_loaded(tmp_path: Path, ids: np.ndarray) -> None:
    model = Model(np.asfortranarray(np.eye(2, dtype=np.float32)), ids, 7, 0.25)
    header = Header(
        "model",
        created_at=START,
        orders_through=START - timedelta(minutes=5),
        parameters={"factors": 2, "engine": "sparse", "min_support": None},
        evaluation={"recall@10": 0.1, "gates": ["popularity"]},
    )
    path = save_artifact(tmp_path / "new" / "data", header, to_arrays(model), keep=3)

    assert path == tmp_path / "new" / "data" / "model.pkl"
    loaded_header, arrays = load_artifact(path.parent, "model")
    assert loaded_header == header
    loaded = from_arrays(Model, arrays)
    assert_array_equal(loaded.factors, model.factors)
    assert (loaded.factors.dtype, loaded.ids.dtype) == (np.float32, ids.dtype)
    assert loaded.ids.tolist() == ids.tolist()
    assert (loaded.count, loaded.share) == (7, 0.25)


def test_a_slice_of_a_larger_array_survives(tmp_path: Path) -> None:
    values = np.arange(20).reshape(4, 5)[::2, 1:3]
    save_artifact(tmp_path, Header("model", START, None), {"values": values}, keep=1)
    assert_array_equal(load_artifact(tmp_path, "model")[1]["values"], [[1, 2], [11, 12]])


def test_the_version_sorts_by_time() -> None:
    header = Header("model", datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC), None)
    assert header.version == "20260131T235959.123456Z"


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    save(tmp_path, 0, size=200_000)
    done = threading.Event()
    seen: set[int] = set()
    problems: list[Exception] = []

    def read() -> None:
        while not done.is_set():
            try:
                values = load_artifact(tmp_path, "model")[1]["values"]
                assert len(values) == 200_000
                assert (values == values[0]).all()
                seen.add(int(values[0]))
            except Exception as problem:
                problems.append(problem)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 40):
        save(tmp_path, number, keep=1, size=200_000)
    done.set()
    reader.join()
    assert problems == []
    assert len(seen) > 1


def test_two_writers_at_once_leave_whole_versions(tmp_path: Path) -> None:
    problems: list[Exception] = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 60, 2):
                save(tmp_path, number, keep=100)
        except Exception as problem:
            problems.append(problem)

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert problems == []
    assert len(versions(tmp_path, "model")) == 60
    for number, kept in enumerate(reversed(versions(tmp_path, "model"))):
        make_current(tmp_path, "model", kept)
        assert current(tmp_path) == number
    assert len(list(tmp_path.iterdir())) == 61


def test_a_full_disk_leaves_the_old_version(tmp_path: Path) -> None:
    save(tmp_path, 1)
    before = sorted(tmp_path.iterdir())
    told = f"{tmp_path}: model cannot be written: .*File too large.*RECSYS_DATA_DIR"
    with disk_full(after=50_000), pytest.raises(ArtifactError, match=told):
        save(tmp_path, 2, size=100_000)
    assert sorted(tmp_path.iterdir()) == before
    assert current(tmp_path) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_leaves_the_old_version(tmp_path: Path) -> None:
    save(tmp_path, 1)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match=f"Permission denied: '{tmp_path}"):
            save(tmp_path, 2)
        assert current(tmp_path) == 1
    finally:
        tmp_path.chmod(0o700)


def test_a_missing_artifact_names_itself(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no .*/model\.pkl: materialize model"):
        load_artifact(tmp_path, "model")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    artifact_path(tmp_path, "model").mkdir()
    with pytest.raises(ArtifactError, match=r"/model\.pkl cannot be read"):
        load_artifact(tmp_path, "model")


def test_every_truncation_is_told(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.unlink()
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"/model\.pkl is damaged"):
            load_artifact(tmp_path, "model")


def test_every_byte_that_has_changed_is_told(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.unlink()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"/model\.pkl .* materialize model"):
            load_artifact(tmp_path, "model")


def test_what_a_killed_writer_has_left_is_removed_after_a_day(tmp_path: Path) -> None:
    left = tmp_path / ".model-a1b2c3"
    left.write_bytes(b"half a mod")
    written = datetime.fromtimestamp(left.stat().st_ctime, UTC) - START
    save(tmp_path, written / timedelta(days=1) + 0.9)
    assert left.exists()  # its writer may live
    save(tmp_path, written / timedelta(days=1) + 1.1)
    assert not left.exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"arrays": {}},
        {"header": {"name": "model"}, "arrays": {}},
        {"header": {"name": "model", "created_at": START, "orders_through": None}, "arrays": [1]},
        {"header": {"surprise": 1}, "arrays": {}},
        {"header": 1, "arrays": {}},
    ],
)
def test_a_foreign_pickle_is_told(tmp_path: Path, content: object) -> None:
    artifact_path(tmp_path, "model").write_bytes(sealed(pickle.dumps(content)))
    with pytest.raises(ArtifactError, match=r"/model\.pkl is damaged or not an artifact"):
        load_artifact(tmp_path, "model")


class Evil:
    """Unpickling this runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_never_runs_code(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    data = pickle.dumps({"header": Evil(f"touch '{victim}'"), "arrays": {}}, protocol)
    artifact_path(tmp_path, "model").write_bytes(sealed(data))
    with pytest.raises(ArtifactError, match=r"/model\.pkl is damaged .* asks for posix\.system"):
        load_artifact(tmp_path, "model")
    assert not victim.exists()
    pickle.loads(data)  # it would have
    assert victim.exists()


def test_code_hidden_in_an_array_of_objects_does_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    arrays = {"ids": np.array([Evil(f"touch '{victim}'")], object)}
    save_artifact(tmp_path, Header("model", START, None), arrays, keep=1)
    with pytest.raises(ArtifactError, match=r"asks for posix\.system"):
        load_artifact(tmp_path, "model")
    assert not victim.exists()


def test_the_artifact_of_another_name_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1).rename(tmp_path / "rules.pkl")
    with pytest.raises(ArtifactError, match=r"/rules\.pkl holds 'model' .* wanted is 'rules'"):
        load_artifact(tmp_path, "rules")


def test_the_artifact_of_another_format_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1, format=2)
    with pytest.raises(ArtifactError, match=r"/model\.pkl holds 'model' in format 2"):
        load_artifact(tmp_path, "model")


def test_arrays_that_are_not_arrays_are_refused(tmp_path: Path) -> None:
    header: Any = {"name": "model", "created_at": START, "orders_through": None}
    content = {"header": header, "arrays": {"values": [1, 2]}}
    artifact_path(tmp_path, "model").write_bytes(sealed(pickle.dumps(content)))
    with pytest.raises(ArtifactError, match=r"/model\.pkl"):
        load_artifact(tmp_path, "model")


def test_arrays_of_another_release_are_refused() -> None:
    with pytest.raises(ArtifactError, match="another release"):
        from_arrays(AlsModel, {"user_factors": np.zeros((1, 1))})
