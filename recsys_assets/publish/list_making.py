"""The users' lists, made from a model and their own purchases: Top Buys, why, and Buy Again.

A list is a function of the model, of the user's own interactions and of what the shop wants in
lists: it does not depend on whose lists are made beside it, or when.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_assets.learn.als import AlsModel
from recsys_assets.learn.artifacts import Header, from_arrays
from recsys_assets.learn.blending import Ranker, TopLists, own_scores
from recsys_assets.learn.explain import TopContributions, UserExplainer, user_explainer
from recsys_assets.learn.matrix import Histories, Ids, histories_from_arrow
from recsys_assets.learn.recipe import Recipe
from recsys_assets.publish.because import explanations
from recsys_assets.publish.buy_again import buy_again_lists
from recsys_assets.publish.changed_users import Lengths, Plan
from recsys_assets.publish.merchandising import Scope
from recsys_assets.publish.redis_writer import Edition
from recsys_assets.publish.selection import Assortment, selection
from recsys_assets.publish.top_buys import personal_lists
from serving.contract import Family, Source

FAMILIES = (Family.USER_TOP_BUYS, Family.USER_TOP_BUYS_BECAUSE, Family.USER_BUY_AGAIN)
"""The families that are made of one reading of a user's purchases."""

Item = tuple[str, bytes]
Items = Mapping[Family, list[Item]]
"""Keys and values of some users' lists, by family."""
LoadModel = Callable[[str | None], tuple[Header, Mapping[str, Any]]]


@dataclass(frozen=True)
class ListMaker:
    """What makes lists: a version of the model with its recipe, as of its date, and the plan."""

    ranker: Ranker
    plan: Plan

    @property
    def model(self) -> AlsModel:
        """The model that lists are made by."""
        return self.ranker.model

    @property
    def source(self) -> Source:
        """What a list says it comes from."""
        return "personal" if self.ranker.by_affinity else "own_purchases"

    @cached_property
    def explainer(self) -> UserExplainer | None:
        """Which purchases the scores of products come from; None where no model was proven."""
        return user_explainer(self.model) if self.ranker.by_affinity else None


def list_maker(
    artifact: tuple[Header, Mapping[str, Any]], lengths: Lengths, by_affinity: bool | None = None
) -> ListMaker:
    """What makes lists by an artifact of ALS; ArtifactError when it is of another release.

    Where the model is not proven, lists are of own purchases, filled up by popularity, unless
    ``by_affinity`` says otherwise. Weights are brought to one date, that of the model, so that a
    list does not depend on when it is made.
    """
    header, arrays = artifact
    by_affinity = header.is_relied_on if by_affinity is None else by_affinity
    ranker = Ranker(
        from_arrays(AlsModel, arrays),
        Recipe.from_parameters(header.parameters).blend,
        as_of=header.orders_through or header.created_at,
        by_affinity=by_affinity,
    )
    return ListMaker(ranker, Plan(header.version, lengths, by_affinity))


class ListMakers:
    """What makes lists by plan; the last one is kept, with all that lists of its model share.

    ``load_model`` gives the artifact of a version of ALS, of the current one for None, or raises
    ArtifactError.
    """

    def __init__(self, load_model: LoadModel) -> None:
        self._load_model = load_model
        self._kept: ListMaker | None = None

    def of(self, plan: Plan) -> ListMaker:
        """What makes lists of a plan, whether or not everybody has one by now."""
        if self._kept is None or replace(plan, complete=False) != self._kept.plan:
            return self._make(plan.model_version, plan.lengths, plan.by_affinity)
        return self._kept

    def of_current_model(self, lengths: Lengths) -> ListMaker:
        """What makes lists of the current version of the model."""
        return self._make(None, lengths, None)

    def _make(self, version: str | None, lengths: Lengths, by_affinity: bool | None) -> ListMaker:
        self._kept = None  # so that memory holds one model at a time
        self._kept = list_maker(self._load_model(version), lengths, by_affinity)
        return self._kept


def lists_of(
    purchases: pa.Table, maker: ListMaker, assortment: Assortment, edition: Edition
) -> tuple[Ids, Iterator[Items]]:
    """The users of a table of interactions, ascending, and their lists, some users at a time."""
    histories = histories_from_arrow(purchases, maker.model.product_ids)
    return histories.user_ids, _lists(histories, maker, assortment, edition)


def _lists(
    histories: Histories, maker: ListMaker, assortment: Assortment, edition: Edition
) -> Iterator[Items]:
    select, adjusted = selection(assortment, Scope.TOP_BUYS, histories.product_ids)
    blocks = maker.ranker.lists(histories, n=maker.plan.lengths.top_buys, select=select)
    own = own_scores(histories, maker.ranker.as_of, maker.ranker.blend.lapse)
    again = assortment.adjusted(Scope.BUY_AGAIN, histories.product_ids)
    explain = _explain(maker, histories)
    for block in blocks:
        top_buys = personal_lists(
            [block], histories.user_ids, adjusted.product_ids, edition, maker.source
        )
        because = explanations(
            [_first(block, maker.plan.lengths.explained)],
            histories,
            adjusted.product_ids,
            edition,
            explain=explain,
            pinned=adjusted.pinned,
        )
        users = slice(block.first_row, block.first_row + len(block.products))
        buy_again = buy_again_lists(
            histories, own, users, again, maker.plan.lengths.buy_again, edition
        )
        yield {
            Family.USER_TOP_BUYS: list(top_buys),
            Family.USER_TOP_BUYS_BECAUSE: list(because),
            Family.USER_BUY_AGAIN: list(buy_again),
        }


def _first(lists: TopLists, n: int) -> TopLists:
    return TopLists(lists.first_row, lists.products[:, :n], lists.scores[:, :n])


def _explain(
    maker: ListMaker, histories: Histories
) -> Callable[[slice, NDArray[np.int64]], TopContributions] | None:
    explainer = maker.explainer
    if explainer is None:
        return None
    known = histories.weights[:, : len(maker.model.product_ids)]
    return lambda users, products: explainer(known[users], products)
