"""Whether a candidate may be published: it must be better than what is obvious, and told apart.

Every gate compares the same users (or baskets) under two lists. What counts is the interval of the
mean difference, not the difference alone; so a gate has three outcomes: it is passed, it is
failed, or the data are too few to tell.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
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
    """What a candidate is held against, and in which scope.

    ``must_beat``: it has to be better, beyond doubt. Otherwise it must not be worse, beyond doubt,
    by more than ``tolerance``, a share of what it is held against.
    """

    against: str
    scope: str
    must_beat: bool = False
    tolerance: float = 0.0


@dataclass(frozen=True)
class Gate:
    """One comparison: the two means, the interval of their difference, and what it says."""

    against: str
    scope: str
    metric: str
    candidate: float
    baseline: float
    difference: Interval
    verdict: Verdict

    @property
    def is_passed(self) -> bool:
        """Whether nothing is said against the candidate, and no doubt is left."""
        return self.verdict is Verdict.PROVEN

    def __str__(self) -> str:
        difference = self.difference
        return (
            f"{self.metric} of {self.scope}: {self.candidate:.4f} against {self.baseline:.4f} of"
            f" {self.against}, {difference.mean:+.4f}"
            f" ({difference.low:+.4f} to {difference.high:+.4f})"
        )


@dataclass(frozen=True)
class Judgement:
    """All gates of a candidate and what follows; ``users`` are those it was measured on."""

    verdict: Verdict
    users: int
    min_users: int
    gates: tuple[Gate, ...]

    @property
    def is_proven(self) -> bool:
        """Whether it may be published without anybody's leave."""
        return self.verdict is Verdict.PROVEN

    @property
    def is_too_few(self) -> bool:
        """Whether too few were measured for any gate to count."""
        return self.users < self.min_users

    @property
    def failed_gates(self) -> list[Gate]:
        """The gates that refuse the candidate."""
        return [gate for gate in self.gates if gate.verdict is Verdict.REFUSED]

    def __str__(self) -> str:
        if self.is_too_few:
            return f"{self.users:,} measured, {self.min_users:,} are needed to tell"
        decisive = [gate for gate in self.gates if gate.verdict is self.verdict]
        return "; ".join(map(str, decisive or self.gates))

    def to_header(self) -> dict[str, Any]:
        """The judgement in plain values, for the header of an artifact."""
        return {
            "verdict": self.verdict.value,
            "judgement": str(self),
            "users": self.users,
            "gates": [
                asdict(gate) | {"difference": list(gate.difference), "verdict": gate.verdict.value}
                for gate in self.gates
            ],
        }


def judge(
    values: Mapping[tuple[str, str], Values],
    candidate: str,
    rules: list[Rule],
    *,
    metric: str,
    min_users: int,
    seed: int,
) -> Judgement:
    """Hold a candidate against what the rules name, as far as it was measured.

    ``values`` are the metric by scope and name, float64 [users]: in a scope, of the same users for
    all names. ``min_users`` in the scope of the first rule are needed for anything to be proven;
    in another scope, for its rules to count.
    """
    nobody = np.empty(0)
    users = len(values.get((rules[0].scope, candidate), nobody))
    gates = tuple(
        _gate(values[rule.scope, candidate], baseline, rule, metric=metric, seed=seed)
        for rule in rules
        if (baseline := values.get((rule.scope, rule.against))) is not None
        and (rule.scope == rules[0].scope or len(baseline) >= min_users)
        and len(baseline)
    )
    verdicts = {gate.verdict for gate in gates}
    if users < min_users:
        gates = tuple(replace(gate, verdict=Verdict.UNPROVEN) for gate in gates)
        verdict = Verdict.UNPROVEN
    elif not gates:
        verdict = Verdict.UNPROVEN
    elif Verdict.REFUSED in verdicts:
        verdict = Verdict.REFUSED
    else:
        verdict = Verdict.UNPROVEN if Verdict.UNPROVEN in verdicts else Verdict.PROVEN
    return Judgement(verdict, users, min_users, gates)


def _gate(candidate: Values, baseline: Values, rule: Rule, *, metric: str, seed: int) -> Gate:
    difference = bootstrap_difference(candidate, baseline, seed=seed)
    held_against = float(baseline.mean())
    if rule.must_beat:
        refused, proven = difference.high < 0, difference.low > 0
    else:
        refused = difference.high < 0 and difference.mean < -rule.tolerance * held_against
        proven = not refused
    verdict = Verdict.REFUSED if refused else Verdict.PROVEN if proven else Verdict.UNPROVEN
    return Gate(
        rule.against,
        rule.scope,
        metric,
        float(candidate.mean()),
        held_against,
        difference,
        verdict,
    )
