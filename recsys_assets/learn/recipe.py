"""The recipe of Top Buys: all that is chosen, by us, by `recsys tune` or by hand, to make lists.

It stands in the header of the artifact, so that a model is evaluated and served by the recipe it
was made with.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from recsys_assets.learn.als import AlsModel, AlsParameters, fit_als
from recsys_assets.learn.artifacts import ArtifactError
from recsys_assets.learn.blending import Blend, trend
from recsys_assets.learn.matrix import Histories, Interactions

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


def train(
    histories: Histories,
    as_of: datetime,
    recipe: Recipe,
    progress: Callable[[int], object] = lambda _: None,
) -> AlsModel:
    """A model by a recipe, of all users' histories as of a moment.

    ``progress`` is told the iterations done. Raises ValueError when there are no interactions.
    """
    interactions = Interactions(histories.weights, histories.user_ids, histories.product_ids)
    model = fit_als(interactions, recipe.als, progress)
    lately = trend(histories, as_of, timedelta(days=recipe.blend.trend_days))
    return replace(model, popularity=lately)


def _some(kind: type[_Kind], parameters: Mapping[str, Any]) -> _Kind:
    return kind(**{f.name: parameters[f.name] for f in fields(kind)})  # type: ignore[arg-type]
