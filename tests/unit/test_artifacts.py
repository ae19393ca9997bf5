"""Artifacts on disk: whole or not at all, the last few kept, and never code."""

import hashlib
import os
import pickle
import re
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from recsys_assets.learn.als import AlsModel
from recsys_assets.learn.artifacts import (
    ArtifactError,
    Header,
    artifact_path,
    current_version,
    from_arrays,
    load_artifact,
    make_current,
    save_artifact,
    to_arrays,
    version_path,
    versions,
)

START = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)


def save(folder: Path, number: float, *, keep: int = 3, size: int = 10, **header: Any) -> Path:
    """Save a version whose array is filled with its number."""
    created = START + timedelta(days=number)
    whole = Header("model", created, orders_through=None, **header)
    return save_artifact(folder, whole, {"values": np.full(size, number)}, keep=keep)


def version(number: int) -> str:
    """The name of the version that is filled with this number."""
    return Header("model", START + timedelta(days=number), None).version


def no_links(*_: object) -> None:
    """A file system without hard links."""
    raise OSError("no hard links here")


def sealed(data: bytes) -> bytes:
    """What a file with this pickle looks like to whom may write into the folder."""
    return data + hashlib.sha256(data).digest()


def current(folder: Path) -> int:
    return int(load_artifact(folder, "model")[1]["values"][0])


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


def test_the_newest_versions_are_kept(tmp_path: Path) -> None:
    other = save_artifact(tmp_path, Header("model-b", START, None), {"x": np.zeros(1)}, keep=1)
    for number in range(5):
        save(tmp_path, number, keep=2)
    assert versions(tmp_path, "model") == ["20250305T030000.000000Z", "20250304T030000.000000Z"]
    assert current(tmp_path) == 4
    assert other.exists()
    assert len(list(tmp_path.iterdir())) == 3 + 2  # ours, the other's two, nothing temporary


def test_an_earlier_version_can_be_made_current_again(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path, number)
    make_current(tmp_path, "model", versions(tmp_path, "model")[1])
    assert current(tmp_path) == 1
    assert len(versions(tmp_path, "model")) == 3
    save(tmp_path, 3)
    assert current(tmp_path) == 3


@pytest.mark.parametrize("number", [0, 2])
def test_a_kept_version_is_loaded_by_its_name(tmp_path: Path, number: int) -> None:
    for each in range(3):
        save(tmp_path, each)
    header, arrays = load_artifact(tmp_path, "model", version(number))
    assert (header.version, arrays["values"][0]) == (version(number), number)


def test_the_current_version_is_loaded_by_its_name_if_it_is_no_longer_kept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    version_path(tmp_path, "model", version(1)).unlink()
    assert load_artifact(tmp_path, "model", version(1))[1]["values"][0] == 1


@pytest.mark.parametrize("missing", ["20250304T030000.000000Z", "", "../model", "*", "latest"])
def test_a_version_that_is_not_kept_is_told_with_those_that_are(
    tmp_path: Path, missing: str
) -> None:
    for number in (1, 2):
        save(tmp_path, number)
    told = f"version {version(2)} of model, wanted is {missing}; kept: {version(2)}, {version(1)}"
    with pytest.raises(ArtifactError, match=re.escape(told)):
        load_artifact(tmp_path, "model", missing)


def test_a_kept_file_that_holds_another_version_is_told(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path, number)
    kept = version_path(tmp_path, "model", version(1))
    kept.write_bytes(version_path(tmp_path, "model", version(2)).read_bytes())
    with pytest.raises(ArtifactError, match=rf"model-{version(1)}\.pkl is version {version(2)}"):
        load_artifact(tmp_path, "model", version(1))


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "copied"])
def test_the_current_version_is_told_by_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    assert current_version(tmp_path, "model") is None
    for number in range(3):
        save(tmp_path, number)
        assert current_version(tmp_path, "model") == version(number)
    make_current(tmp_path, "model", version(1))
    assert current_version(tmp_path, "model") == version(1)
    assert artifact_path(tmp_path, "model").stat().st_nlink == 1 + linked
    version_path(tmp_path, "model", version(1)).unlink()
    assert current_version(tmp_path, "model") is None


def test_a_damaged_current_version_is_still_told(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2).write_bytes(b"damaged")
    assert current_version(tmp_path, "model") == version(2)


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "copied"])
def test_the_version_that_was_current_outlives_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    for number in range(3):
        save(tmp_path, number)
    make_current(tmp_path, "model", version(0))
    save(tmp_path, 3)
    assert versions(tmp_path, "model") == [version(3), version(2), version(0)]
    assert current(tmp_path) == 3
    save(tmp_path, 4)  # as ever: the last three
    assert versions(tmp_path, "model") == [version(4), version(3), version(2)]


@given(
    keep=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["save", "back"]), st.integers(0, 9)), max_size=12),
)
def test_the_current_version_is_always_kept(keep: int, steps: list[tuple[str, int]]) -> None:
    """Whatever is made current again in between, and even if the clock runs backwards."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        save(folder, 5, keep=keep)
        for step, number in steps:
            kept = versions(folder, "model")
            before = current_version(folder, "model")
            if step == "save":
                save(folder, number, keep=keep)
                assert current_version(folder, "model") == version(number)
                assert keep == 1 or before in versions(folder, "model")
            else:
                make_current(folder, "model", kept[number % len(kept)])
            assert current_version(folder, "model") in versions(folder, "model")
            assert 1 <= len(versions(folder, "model")) <= keep
            assert load_artifact(folder, "model")[0].version == current_version(folder, "model")


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
