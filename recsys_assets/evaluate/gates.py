"""Whether a candidate may be published: it must be better than what is obvious, and told apart.

Every gate compares the same users (or baskets) under two lists. What counts is the interval of the
mean difference, not the difference alone; so a gate has three outcomes: it is passed, it is
failed, or the data are too few to tell.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_assets.evaluate.metrics import Interval, bootstrap_difference

Values = NDArray[np.float64]


class Verdict(StrEnum):
    """What follows from all gates together."""

    PROVEN = "proven"
    """It is published."""
    UNPROVEN = "unproven"
    """The data are too few to tell: what needs no proof is published in its stead."""
    REFUSED = "refused"
    """It is worse than what it has to beat: nothing is published."""


@dataclass(frozen=True)
class Rule:
    """What a candidate is held against.

    ``must_beat``: it has to be better, beyond doubt. Otherwise it must not be worse, beyond doubt,
    by more than ``tolerance``, a share of what it is held against.
    """

    against: str
    must_beat: bool = False
    tolerance: float = 0.0


@dataclass(frozen=True)
class Gate:
    """One comparison: the two means, the interval of their difference, and what it says."""

    against: str
    metric: str
    candidate: float
    baseline: float
    difference: Interval
    verdict: Verdict

    def __str__(self) -> str:
        difference = self.difference
        return (
            f"{self.metric} {self.candidate:.4f} against {self.baseline:.4f} of {self.against}:"
            f" {difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
        )


@dataclass(frozen=True)
class Judgement:
    """All gates of a candidate and what follows; ``users`` are those it was measured on."""

    verdict: Verdict
    users: int
    min_users: int
    gates: tuple[Gate, ...]

    @property
    def failed(self) -> list[Gate]:
        """The gates that refuse the candidate."""
        return [gate for gate in self.gates if gate.verdict is Verdict.REFUSED]

    def __str__(self) -> str:
        if self.users < self.min_users:
            return f"{self.users:,} measured, {self.min_users:,} are needed to tell"
        decisive = [gate for gate in self.gates if gate.verdict is self.verdict]
        return "; ".join(map(str, decisive or self.gates))

    def to_header(self) -> dict[str, Any]:
        """The judgement in plain values, for the header of an artifact."""
        return {
            "verdict": self.verdict.value,
            "users": self.users,
            "gates": [
                asdict(gate) | {"difference": list(gate.difference), "verdict": gate.verdict.value}
                for gate in self.gates
            ],
        }


def judge(
    candidate: Values,
    baselines: Mapping[str, Values],
    rules: list[Rule],
    *,
    metric: str,
    min_users: int,
    seed: int,
) -> Judgement:
    """Hold a candidate against the baselines that the rules name, as far as there are any.

    ``candidate`` and each of ``baselines`` are the metric of the same users, float64 [users].
    Fewer than ``min_users`` prove nothing, whatever their numbers say.
    """
    few = len(candidate) < min_users
    gates = tuple(
        _gate(candidate, baselines[rule.against], rule, metric=metric, seed=seed)
        for rule in rules
        if rule.against in baselines and len(candidate)
    )
    verdicts = {gate.verdict for gate in gates}
    if few or not gates:
        verdict = Verdict.UNPROVEN
    elif Verdict.REFUSED in verdicts:
        verdict = Verdict.REFUSED
    else:
        verdict = Verdict.UNPROVEN if Verdict.UNPROVEN in verdicts else Verdict.PROVEN
    return Judgement(verdict, len(candidate), min_users, gates)


def _gate(candidate: Values, baseline: Values, rule: Rule, *, metric: str, seed: int) -> Gate:
    difference = bootstrap_difference(candidate, baseline, seed=seed)
    held_against = float(baseline.mean())
    if rule.must_beat:
        refused, proven = difference.high <= 0, difference.low > 0
    else:
        allowed = rule.tolerance * held_against
        refused = difference.high < 0 and difference.mean < -allowed
        proven = not refused
    verdict = Verdict.REFUSED if refused else Verdict.PROVEN if proven else Verdict.UNPROVEN
    return Gate(rule.against, metric, float(candidate.mean()), held_against, difference, verdict)
