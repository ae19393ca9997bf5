"""Versions of artifacts: the last few kept, any of them current, each loaded by its name."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.learn.artifacts import (
    ArtifactError,
    Header,
    artifact_path,
    candidate_path,
    current_version,
    load_artifact,
    load_candidate,
    make_current,
    save_artifact,
    version_path,
    versions,
)
from tests.artifacts import START, current, propose, save, version


def no_links(*_: object) -> None:
    """A file system without hard links."""
    raise OSError("no hard links here")


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


# --- Candidates


def candidate(folder: Path) -> int | None:
    """The number of the candidate that waits for its backtest."""
    found = load_candidate(folder, "model")
    return int(found[1]["values"][0]) if found else None


def test_a_candidate_is_no_version_until_it_is_accepted(tmp_path: Path) -> None:
    assert candidate(tmp_path) is None
    propose(tmp_path, 1)
    assert candidate(tmp_path) == 1
    assert versions(tmp_path, "model") == []
    with pytest.raises(ArtifactError, match="materialize model"):
        load_artifact(tmp_path, "model")
    save(tmp_path, 1)
    assert candidate(tmp_path) is None
    assert not candidate_path(tmp_path, "model").exists()
    assert current(tmp_path) == 1


def test_a_refused_candidate_stays_until_the_next_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    propose(tmp_path, 2)
    propose(tmp_path, 2, evaluation={"verdict": "refused"})
    found = load_candidate(tmp_path, "model")
    assert found is not None
    assert found[0].evaluation == {"verdict": "refused"}
    assert (current(tmp_path), versions(tmp_path, "model")) == (1, [version(1)])
    propose(tmp_path, 3)
    assert candidate(tmp_path) == 3
    save(tmp_path, 3)
    assert (current(tmp_path), versions(tmp_path, "model")) == (3, [version(3), version(1)])


def test_the_candidate_that_an_accepted_version_has_left_is_none(tmp_path: Path) -> None:
    left = propose(tmp_path, 1).read_bytes()
    save(tmp_path, 1)
    candidate_path(tmp_path, "model").write_bytes(left)  # as by who was killed before removing it
    assert candidate(tmp_path) is None
    propose(tmp_path, 2)
    assert candidate(tmp_path) == 2


def test_a_candidate_is_not_removed_with_another_version(tmp_path: Path) -> None:
    propose(tmp_path, 2)
    save(tmp_path, 1)
    assert (current(tmp_path), candidate(tmp_path)) == (1, 2)


@pytest.mark.parametrize("number", [0, 2])
def test_a_candidate_changes_nothing_about_going_back(tmp_path: Path, number: int) -> None:
    for each in range(3):
        save(tmp_path, each)
    propose(tmp_path, 3)
    make_current(tmp_path, "model", version(number))
    assert current_version(tmp_path, "model") == version(number)
    assert (current(tmp_path), candidate(tmp_path)) == (number, 3)
    assert versions(tmp_path, "model") == [version(2), version(1), version(0)]


def test_a_damaged_candidate_is_told_and_hinders_no_version(tmp_path: Path) -> None:
    propose(tmp_path, 1).write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"model-candidate\.pkl is damaged"):
        load_candidate(tmp_path, "model")
    save(tmp_path, 2)
    assert current(tmp_path) == 2
    propose(tmp_path, 3)
    assert candidate(tmp_path) == 3
