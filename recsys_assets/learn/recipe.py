"""The recipe of Top Buys: all that is chosen, by us, by `recsys tune` or by hand, to make lists.

It stands in the header of the artifact, so that a model is evaluated and served by the recipe it
was made with.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Any, TypeVar

from recsys_assets.learn.als import AlsParameters
from recsys_assets.learn.artifacts import ArtifactError
from recsys_assets.learn.blending import Blend

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Recipe:
    """What a model is trained with, and how its scores become lists."""

    als: AlsParameters
    blend: Blend
    half_life: timedelta

    def to_parameters(self) -> dict[str, Any]:
        """The recipe as parameters of an artifact's header."""
        days = self.half_life / timedelta(days=1)
        return {**asdict(self.als), **asdict(self.blend), "half_life_days": days}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "Recipe":
        """The inverse of :meth:`to_parameters`; ArtifactError where one is missing."""
        try:
            return cls(
                _some(AlsParameters, parameters),
                _some(Blend, parameters),
                timedelta(days=parameters["half_life_days"]),
            )
        except KeyError as error:
            raise ArtifactError(
                f"the artifact is of another release (no {error}): materialize it again"
            ) from error


def _some(kind: type[_Kind], parameters: Mapping[str, Any]) -> _Kind:
    return kind(**{f.name: parameters[f.name] for f in fields(kind)})  # type: ignore[arg-type]
