"""What the store of artifacts lets become current, and what it leaves behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.learn.artifacts import (
    ArtifactError,
    Header,
    artifact_path,
    candidate_path,
    load_artifact,
    load_candidate,
    make_current,
    save_artifact,
    versions,
)
from recsys_assets.resources import ArtifactStore
from tests import artifacts

UNPROVEN = {"verdict": "unproven", "forced": False}


def candidate_of(folder: Path) -> tuple[Header, Any]:
    candidate = load_candidate(folder, "model")
    assert candidate is not None
    return candidate


def store(folder: Path) -> ArtifactStore:
    return ArtifactStore(folder=str(folder))


@pytest.mark.parametrize(
    ("evaluation", "is_relied_on"),
    [
        ({}, True),  # of a release that evaluated nothing
        ({"verdict": "proven", "forced": False}, True),
        (UNPROVEN, False),
        ({"verdict": "refused", "forced": False}, False),
        ({"verdict": "unproven", "forced": True}, True),
        ({"verdict": "refused", "forced": True}, True),
    ],
)
def test_what_is_proven_or_forced_is_relied_on(
    evaluation: dict[str, Any], is_relied_on: bool
) -> None:
    assert Header("model", artifacts.START, None, {}, evaluation).is_relied_on is is_relied_on


# --- Accepting


def test_what_was_measured_by_the_current_version_takes_its_place(tmp_path: Path) -> None:
    artifacts.save(tmp_path, 1)
    artifacts.propose(tmp_path, 2)
    incumbent = load_artifact(tmp_path, "model")[0]
    store(tmp_path).accept(*candidate_of(tmp_path), instead_of=incumbent)
    assert artifacts.current(tmp_path) == 2
    assert load_candidate(tmp_path, "model") is None


def test_the_first_of_all_needs_nothing_to_take_the_place_of(tmp_path: Path) -> None:
    artifacts.propose(tmp_path, 1)
    store(tmp_path).accept(*candidate_of(tmp_path))
    assert artifacts.current(tmp_path) == 1


@pytest.mark.parametrize("first", [True, False])
def test_nothing_takes_the_place_of_what_it_was_not_measured_by(
    tmp_path: Path, first: bool
) -> None:
    """Another version has become current meanwhile."""
    incumbent = None
    if not first:
        artifacts.save(tmp_path, 1)
        incumbent = load_artifact(tmp_path, "model")[0]
    artifacts.propose(tmp_path, 3)
    artifacts.save(tmp_path, 2)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    told = f"model {artifacts.version(2)} has become current while {artifacts.version(3)} was"
    with pytest.raises(ArtifactError, match=told):
        store(tmp_path).accept(*candidate_of(tmp_path), instead_of=incumbent)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_what_has_been_rolled_back_meanwhile_is_another_current_version(tmp_path: Path) -> None:
    for number in (1, 2):
        artifacts.save(tmp_path, number)
    incumbent = load_artifact(tmp_path, "model")[0]
    artifacts.propose(tmp_path, 3)
    make_current(tmp_path, "model", artifacts.version(1))
    with pytest.raises(ArtifactError, match="has become current"):
        store(tmp_path).accept(*candidate_of(tmp_path), instead_of=incumbent)
    assert artifacts.current(tmp_path) == 1


def test_a_damaged_current_version_makes_way(tmp_path: Path) -> None:
    artifacts.save(tmp_path, 1)
    artifact_path(tmp_path, "model").write_bytes(b"")
    artifacts.propose(tmp_path, 2)
    store(tmp_path).accept(*candidate_of(tmp_path))
    assert artifacts.current(tmp_path) == 2


# --- Leaving behind


def test_what_is_left_behind_stays_with_its_evaluation(tmp_path: Path) -> None:
    artifacts.save(tmp_path, 1)
    artifacts.propose(tmp_path, 2)
    header, arrays = candidate_of(tmp_path)
    store(tmp_path).leave_behind(replace(header, evaluation=UNPROVEN), arrays)
    assert candidate_of(tmp_path)[0] == replace(header, evaluation=UNPROVEN)
    assert artifacts.current(tmp_path) == 1


def test_what_is_left_behind_does_not_stand_in_the_way_of_a_newer_one(tmp_path: Path) -> None:
    artifacts.propose(tmp_path, 2)
    header, arrays = candidate_of(tmp_path)
    artifacts.propose(tmp_path, 3)
    newer = candidate_path(tmp_path, "model").read_bytes()
    store(tmp_path).leave_behind(replace(header, evaluation=UNPROVEN), arrays)
    assert candidate_path(tmp_path, "model").read_bytes() == newer
    assert candidate_of(tmp_path)[0].version == artifacts.version(3)


# --- Killed in between


def test_who_was_killed_before_a_version_became_current_evaluates_it_again(
    tmp_path: Path,
) -> None:
    """Its file is there among the kept versions, and the one before is still current."""
    artifacts.save(tmp_path, 1)
    artifacts.propose(tmp_path, 2)
    header, arrays = candidate_of(tmp_path)
    evaluated = replace(header, evaluation=UNPROVEN)
    unaccepted = candidate_path(tmp_path, "model").read_bytes()
    save_artifact(tmp_path, evaluated, arrays, keep=3)
    candidate_path(tmp_path, "model").write_bytes(unaccepted)
    assert load_candidate(tmp_path, "model") is None  # it is current

    make_current(tmp_path, "model", artifacts.version(1))
    assert versions(tmp_path, "model") == [artifacts.version(2), artifacts.version(1)]
    assert candidate_of(tmp_path)[0] == header
    assert store(tmp_path).latest("model")[0] == header
    store(tmp_path).accept(*candidate_of(tmp_path), instead_of=load_artifact(tmp_path, "model")[0])
    assert artifacts.current(tmp_path) == 2
