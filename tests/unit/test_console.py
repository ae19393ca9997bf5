"""Ages as the command line writes them."""

from datetime import UTC, datetime, timedelta

import pytest

from recsys_assets.console import age

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (timedelta(0), "0 s ago"),
        (timedelta(seconds=59.9), "59 s ago"),
        (timedelta(minutes=1), "1 min ago"),
        (timedelta(minutes=59, seconds=59), "59 min ago"),
        (timedelta(hours=1), "1 h ago"),
        (timedelta(hours=23, minutes=59), "23 h ago"),
        (timedelta(days=1), "1 d ago"),
        (timedelta(days=1234, hours=5), "1,234 d ago"),
        (-timedelta(hours=2), "0 s ago"),
    ],
)
def test_an_age_in_its_largest_unit(passed: timedelta, text: str) -> None:
    assert age(NOW - passed, NOW) == text


def test_what_never_was() -> None:
    assert age(None, NOW) == "never"


def test_now_is_now() -> None:
    assert age(datetime.now(UTC) - timedelta(hours=3)) == "3 h ago"
