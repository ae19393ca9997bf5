"""Every setting: its environment variable, its default, its unit.

The variable is ``RECSYS_`` and the field's name in capitals: ``half_life_days`` is set by
``RECSYS_HALF_LIFE_DAYS``. Hyper-parameters of a single asset are not here but in that asset's
``Config``, where the Dagster launchpad shows and changes them.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def project_root() -> Path:
    """The folder that relative paths start from: ``RECSYS_HOME``, else the checkout, else here."""
    home = os.environ.get("RECSYS_HOME")
    if home:
        return Path(home).absolute()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "workspace.yaml").is_file() else Path.cwd()


class SettingsError(ValueError):
    """A setting is out of its bounds; the text names its environment variable, or its file."""


class ShopSettings(BaseModel):
    """The shop's tables, ours beside them, and what counts as a purchase or a basket."""

    # The shop's tables. An optional column whose setting is unset is used when the table has a
    # column of the default name.
    orders_table: str = Field("orders", description="table of orders, may be schema.table")
    orders_id_column: str = Field("id", description="integer, uuid or text")
    orders_user_id_column: str = Field(
        "user_id", description="integer, uuid or text; null for a guest's order"
    )
    orders_created_at_column: str = Field(
        "created_at", description="when the order was placed; without time zone: UTC"
    )
    orders_updated_at_column: str | None = Field(
        None, description="when the order last changed: `updated_at` if there is one; empty: none"
    )
    orders_status_column: str | None = Field(
        None, description="`status` if there is one; empty: none, and every order counts"
    )
    purchase_statuses: Annotated[list[str], NoDecode] = Field(
        ["completed", "paid", "shipped", "delivered"],
        description="statuses that count as a purchase, separated by commas",
    )
    order_items_table: str = Field(
        "order_items", description="table of order lines, may be schema.table"
    )
    order_items_order_id_column: str = Field("order_id", description="the order of the line")
    order_items_product_id_column: str = Field("product_id", description="integer, uuid or text")
    order_items_quantity_column: str | None = Field(
        None,
        description="a line counts if it is above 0; `quantity` if there is one; empty: none,"
        " and every line counts",
    )
    products_table: str | None = Field(
        None, description="table of products and their names; `products` if there is one"
    )
    products_id_column: str = Field("id", description="the product's id there")
    products_name_column: str = Field("name", description="what people call it")
    products_available_column: str | None = Field(
        None,
        description="there, whether the shop sells it: a boolean, or a number above 0;"
        " `is_active` if there is one; empty: none",
    )
    unavailable_products_query: str | None = Field(
        None,
        description="a SELECT of the ids of products that the shop does not sell now, beside those"
        " that the column tells of",
    )
    products_category_column: str | None = Field(
        None, description="the product's category in the table of products; unset: none"
    )
    most_per_category: int | None = Field(
        None, ge=1, description="products of one category in a list, at most; unset: any number"
    )

    # What counts.
    schema_name: str = Field("public", description="PostgreSQL schema of our own tables")
    half_life_days: float = Field(
        120.0, gt=0, le=100_000, description="days after which a purchase counts half"
    )
    repeat_purchases: Literal["blend", "exclude", "only"] = Field(
        "blend",
        description="what users have bought, in their Top Buys: `blend` ranks it with all else,"
        " `exclude` leaves it out, for shops where nobody buys twice, `only` lists nothing else",
    )
    overlap_minutes: float = Field(
        10.0,
        ge=0,
        le=1_000_000,
        description="minutes read again behind the watermark, for late commits",
    )
    min_basket_products: int = Field(
        2, ge=2, description="distinct products of a mined basket, at least"
    )
    max_basket_products: int = Field(
        100, ge=2, description="distinct products of a mined basket, at most"
    )
    basket_window_days: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="days before the latest change whose orders are mined; unset: all orders",
    )
    statement_timeout_seconds: float = Field(
        600.0,
        ge=0,
        le=1_000_000,
        description="seconds after which an SQL statement is ended, 0: never",
    )

    @field_validator("purchase_statuses", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @property
    def half_life(self) -> timedelta:
        """``half_life_days`` as a duration."""
        return timedelta(days=self.half_life_days)

    @property
    def basket_window(self) -> timedelta | None:
        """``basket_window_days`` as a duration; None: no window."""
        return None if self.basket_window_days is None else timedelta(days=self.basket_window_days)

    @property
    def overlap(self) -> timedelta:
        """``overlap_minutes`` as a duration."""
        return timedelta(minutes=self.overlap_minutes)


class Settings(ShopSettings, BaseSettings):
    """All settings of one code location, read from the environment once."""

    model_config = SettingsConfigDict(env_prefix="RECSYS_", frozen=True, extra="ignore")

    # Services. Unset: the embedded server of the extra `local` is started by the command line.
    database_url: str | None = Field(
        None, description="PostgreSQL of the shop, a libpq URL; unset: an embedded server"
    )
    redis_url: str | None = Field(
        None, description="Redis the lists are published to; unset: an embedded server"
    )

    # Places, relative to the project.
    data_dir: Path = Field(Path("data"), description="folder of the artifacts")
    state_dir: Path = Field(
        Path(".recsys"),
        description="folder of the embedded servers, of logs, and of Dagster's files",
    )
    kept_artifacts: int = Field(3, ge=1, description="versions of an artifact kept for rollback")

    # How old an asset may be before Dagster warns and fails its freshness.
    interactions_fresh_minutes: float = Field(
        60.0,
        gt=1,
        le=1_000_000,
        description="age of the interactions at which Dagster warns; it fails at twice that",
    )
    top_buys_fresh_minutes: float = Field(
        120.0, gt=1, le=1_000_000, description="the same for the Top Buys lists"
    )
    models_fresh_hours: float = Field(
        26.0, gt=1, le=100_000, description="the same for the models and Bought Together"
    )

    # Automation.
    retrain_cron: str = Field("0 3 * * *", description="when the job retrain_daily runs, UTC")
    automation_enabled: bool = Field(
        False, description="whether the sensor and the schedule start switched on"
    )

    @field_validator("data_dir", "state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value if value.is_absolute() else project_root() / value


def load_settings() -> Settings:
    """The settings of the environment, then those tuned; :class:`SettingsError` for a bad value."""
    from recsys_assets.tuned import HALF_LIFE, misfit, read_tuned

    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsError(
            "; ".join(
                f"RECSYS_{str(problem['loc'][0]).upper()}: {problem['msg']}"
                for problem in error.errors()
            )
        ) from error
    tuned = read_tuned(settings.data_dir)
    if HALF_LIFE not in tuned or HALF_LIFE in settings.model_fields_set:
        return settings
    try:
        return Settings(half_life_days=tuned[HALF_LIFE])
    except ValidationError as error:
        raise misfit(HALF_LIFE, error.errors()[0]["msg"]) from error
