"""What tests of `recsys tune` share: the sample to search by, and the command itself."""

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from recsys_assets.evaluate import tune
from recsys_assets.evaluate.tune import Periods
from recsys_assets.ingest.interactions import refresh_interactions
from recsys_assets.learn.als import AlsParameters
from recsys_assets.learn.blending import Blend
from recsys_assets.learn.recipe import Recipe
from recsys_assets.session import Session
from recsys_assets.settings import Settings
from recsys_assets.shop_session import ShopSession
from recsys_assets.tuning import tune_shop

DAYS = timedelta(days=28)
QUICK = Recipe(AlsParameters(factors=8, iterations=2), Blend(), timedelta(days=120))
LONG = 1e6  # seconds


def counted(session: ShopSession) -> ShopSession:
    refresh_interactions(
        session.connection,
        session.shop,
        half_life=session.half_life,
        overlap=session.overlap,
        rebuild=True,
    )
    return session


def periods_of(session: ShopSession) -> Periods:
    periods = tune.periods_of(session, DAYS)
    assert periods is not None
    return periods


def tuned_by(url: str, data: Path, **options: Any) -> tuple[Path | None, str]:
    """What `recsys tune` returns and prints."""
    console = Console(file=io.StringIO(), width=160)
    settings = Settings(database_url=url, data_dir=data, half_life_days=60)
    chosen = {"minutes": 0.0, "held_out_days": 28, "seed": 7} | options
    path = tune_shop(console, Session(settings), **chosen)
    return path, console.file.getvalue()  # type: ignore[attr-defined]
