"""Gates on made-up values of users, whose differences are known."""

import json

import numpy as np
import pytest

from recsys_assets.evaluate.gates import Rule, Verdict, judge

USERS = 400
ALL, NEW = "all purchases", "new products"
RULES = [
    Rule("global popularity", ALL, must_beat=True),
    Rule("global popularity", NEW),
    Rule("own frequency", ALL),
    Rule("incumbent", ALL, tolerance=0.02),
]


def recalls(mean: float, users: int = USERS, spread: float = 0.02) -> np.ndarray:
    """Values of users with exactly this mean; the same users are good ones under every list."""
    noise = np.random.default_rng(1).normal(0, spread, users)
    return np.clip(mean + noise - noise.mean(), 0, 1)


def judged(candidate: np.ndarray, *, min_users: int = 100, **baselines: np.ndarray):
    named = {(ALL, name.replace("_", " ")): values for name, values in baselines.items()}
    return judged_in_scopes({(ALL, "candidate"): candidate} | named, min_users=min_users)


def judged_in_scopes(values: dict[tuple[str, str], np.ndarray], min_users: int = 100):
    return judge(values, "candidate", RULES, metric="recall@10", min_users=min_users, seed=1)


def test_a_candidate_that_beats_all_is_proven():
    judgement = judged(
        recalls(0.11),
        global_popularity=recalls(0.04),
        own_frequency=recalls(0.10),
        incumbent=recalls(0.11),
    )
    assert judgement.verdict is Verdict.PROVEN
    assert [gate.verdict for gate in judgement.gates] == [Verdict.PROVEN] * 3
    assert judgement.failed_gates == []


@pytest.mark.parametrize("worse_than", ["global_popularity", "own_frequency", "incumbent"])
def test_one_that_is_worse_than_any_of_them_is_refused_and_says_by_what(worse_than: str):
    baselines = {
        "global_popularity": recalls(0.04),
        "own_frequency": recalls(0.08),
        "incumbent": recalls(0.08),
    }
    judgement = judged(recalls(0.08), **(baselines | {worse_than: recalls(0.10)}))
    assert judgement.verdict is Verdict.REFUSED
    (failed,) = judgement.failed_gates
    assert str(judgement) == str(failed)
    assert str(failed) == (
        f"recall@10 of all purchases: 0.0800 against 0.1000 of {worse_than.replace('_', ' ')},"
        " -0.0200 (-0.0200 to -0.0200)"
    )


def test_a_drop_within_the_tolerance_is_none():
    def against_incumbent(mean: float) -> Verdict:
        return judged(
            recalls(mean), global_popularity=recalls(0.04), incumbent=recalls(0.10)
        ).verdict

    assert against_incumbent(0.0981) is Verdict.PROVEN
    assert against_incumbent(0.0979) is Verdict.REFUSED


def test_a_drop_that_chance_explains_is_none():
    rng = np.random.default_rng(2)
    candidate, own = rng.uniform(0, 0.5, USERS), rng.uniform(0, 0.5, USERS)
    own += candidate.mean() - own.mean() + 0.005
    judgement = judged(candidate, own_frequency=own)
    assert judgement.gates[0].difference.mean == pytest.approx(-0.005)
    assert judgement.verdict is Verdict.PROVEN


def test_better_than_popularity_must_be_beyond_doubt():
    rng = np.random.default_rng(2)
    candidate, popular = rng.uniform(0, 0.5, USERS), rng.uniform(0, 0.5, USERS)
    popular += candidate.mean() - popular.mean() - 0.005
    assert judged(candidate, global_popularity=popular).verdict is Verdict.UNPROVEN


def test_few_users_prove_nothing_good_or_bad():
    for mean in (0.02, 0.2):
        judgement = judged(recalls(mean, users=99), global_popularity=recalls(0.1, users=99))
        assert judgement.verdict is Verdict.UNPROVEN
        assert str(judgement) == "99 measured, 100 are needed to tell"
    nobody = np.empty(0)
    assert judged(nobody, global_popularity=nobody).verdict is Verdict.UNPROVEN


def test_without_an_incumbent_its_gate_is_left_out():
    judgement = judged(recalls(0.11), global_popularity=recalls(0.04))
    assert [gate.against for gate in judgement.gates] == ["global popularity"]


def test_the_header_holds_plain_values():
    judgement = judged(recalls(0.11), global_popularity=recalls(0.04))
    header = judgement.to_header()
    assert json.loads(json.dumps(header)) == header
    assert header["verdict"] == "proven"
    assert header["gates"][0]["difference"] == pytest.approx([0.07] * 3, abs=1e-3)


def test_one_that_hides_a_bad_model_behind_repeats_is_found_by_new_products():
    values = {
        (ALL, "candidate"): recalls(0.11),
        (ALL, "global popularity"): recalls(0.04),
        (NEW, "candidate"): recalls(0.10, users=150),
        (NEW, "global popularity"): recalls(0.12, users=150),
    }
    judgement = judged_in_scopes(values)
    assert judgement.verdict is Verdict.REFUSED
    assert [(gate.against, gate.scope) for gate in judgement.failed_gates] == [
        ("global popularity", NEW)
    ]
    # With too few users there, that scope says nothing.
    assert judged_in_scopes(values, min_users=200).verdict is Verdict.PROVEN
