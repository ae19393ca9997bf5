"""Every setting has an environment variable that works, and a bad value is named."""

from datetime import timedelta
from pathlib import Path

import pytest

from recsys_assets.settings import Settings, SettingsError, ShopSettings, load_settings

OTHER_VALUES: dict[str, tuple[str, object]] = {
    "orders_table": ("sales.orders", "sales.orders"),
    "orders_id_column": ("order_no", "order_no"),
    "orders_user_id_column": ("customer", "customer"),
    "orders_created_at_column": ("placed_at", "placed_at"),
    "orders_updated_at_column": ("modified", "modified"),
    "orders_status_column": ("state", "state"),
    "purchase_statuses": (" done, paid ,,", ["done", "paid"]),
    "order_items_table": ("lines", "lines"),
    "order_items_order_id_column": ("order_no", "order_no"),
    "order_items_product_id_column": ("sku", "sku"),
    "order_items_quantity_column": ("pieces", "pieces"),
    "products_table": ("articles", "articles"),
    "products_id_column": ("sku", "sku"),
    "products_name_column": ("title", "title"),
    "products_available_column": ("stock", "stock"),
    "unavailable_products_query": ("SELECT 1", "SELECT 1"),
    "products_category_column": ("department", "department"),
    "most_per_category": ("3", 3),
    "schema_name": ("recsys", "recsys"),
    "half_life_days": ("30.5", 30.5),
    "repeat_purchases": ("only", "only"),
    "overlap_minutes": ("0", 0.0),
    "min_basket_products": ("3", 3),
    "max_basket_products": ("50", 50),
    "basket_window_days": ("365.5", 365.5),
    "statement_timeout_seconds": ("1.5", 1.5),
    "database_url": ("postgresql://shop/db", "postgresql://shop/db"),
    "redis_url": ("redis://cache/1", "redis://cache/1"),
    "data_dir": ("/srv/data", Path("/srv/data")),
    "state_dir": ("/srv/state", Path("/srv/state")),
    "kept_artifacts": ("5", 5),
    "interactions_fresh_minutes": ("5", 5.0),
    "top_buys_fresh_minutes": ("6", 6.0),
    "models_fresh_hours": ("48", 48.0),
    "retrain_cron": ("30 4 * * 1", "30 4 * * 1"),
    "automation_enabled": ("true", True),
}


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_read_from_its_variable(
    monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    text, value = OTHER_VALUES[field]
    assert getattr(load_settings(), field) != value
    monkeypatch.setenv(f"RECSYS_{field.upper()}", text)
    assert getattr(load_settings(), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("half_life_days", "0"),
        ("half_life_days", "long"),
        ("half_life_days", "inf"),
        ("half_life_days", "nan"),
        ("half_life_days", "1e300"),
        ("overlap_minutes", "-1"),
        ("overlap_minutes", "inf"),
        ("min_basket_products", "1"),
        ("max_basket_products", "2.5"),
        ("basket_window_days", "0"),
        ("basket_window_days", "inf"),
        ("kept_artifacts", "0"),
        ("most_per_category", "0"),
        ("statement_timeout_seconds", "-5"),
        ("statement_timeout_seconds", "inf"),
        ("interactions_fresh_minutes", "1"),
        ("models_fresh_hours", "nan"),
        ("repeat_purchases", "never"),
        ("automation_enabled", "perhaps"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, field: str, value: str) -> None:
    monkeypatch.setenv(f"RECSYS_{field.upper()}", value)
    with pytest.raises(SettingsError, match=f"^RECSYS_{field.upper()}: [^;]+$"):
        load_settings()


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_HALF_LIFE_DAYS", "0")
    monkeypatch.setenv("RECSYS_KEPT_ARTIFACTS", "0")
    with pytest.raises(SettingsError, match=r"RECSYS_HALF_LIFE_DAYS: .*; RECSYS_KEPT_ARTIFACTS: "):
        load_settings()


def test_an_optional_column_that_is_empty_is_not_one_that_is_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().orders_status_column is None
    monkeypatch.setenv("RECSYS_ORDERS_STATUS_COLUMN", "")
    assert load_settings().orders_status_column == ""


def test_relative_folders_start_from_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    monkeypatch.setenv("RECSYS_STATE_DIR", "state/here")
    settings = load_settings()
    assert settings.data_dir == tmp_path / "data"
    assert settings.state_dir == tmp_path / "state" / "here"


def test_durations() -> None:
    settings = ShopSettings(half_life_days=1.5, overlap_minutes=0.5, basket_window_days=2)
    assert settings.half_life == timedelta(hours=36)
    assert settings.overlap == timedelta(seconds=30)
    assert settings.basket_window == timedelta(days=2)
    assert ShopSettings().basket_window is None
