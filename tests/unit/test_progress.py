"""Who hears of progress, and how often."""

import pytest

from recsys_assets.progress import Progress, watching

NEVER = 1e9


def test_watchers_hear_every_report_while_they_watch() -> None:
    heard: list[tuple[str, int, int | None]] = []
    progress = Progress(lambda _: None, "users", 30)
    progress(1)
    with watching(lambda *report: heard.append(report)):
        progress(10)
        Progress(lambda _: None, "products")(5)
    progress(30)
    assert heard == [("users", 10, 30), ("products", 5, None)]


def test_a_watcher_stops_watching_when_the_work_fails() -> None:
    heard: list[int] = []
    with pytest.raises(KeyError), watching(lambda _what, done, _total: heard.append(done)):
        raise KeyError
    Progress(lambda _: None, "users")(1)
    assert heard == []


def test_the_end_is_logged_though_little_time_has_passed() -> None:
    lines: list[str] = []
    progress = Progress(lines.append, "users published", 1234, seconds=NEVER)
    progress(500)
    progress(1234)
    assert len(lines) == 1
    assert lines[0].startswith("users published: 1,234 of 1,234, ")
    assert lines[0].endswith("/s")


def test_a_line_is_logged_whenever_the_time_has_passed() -> None:
    lines: list[str] = []
    progress = Progress(lines.append, "lines", seconds=0)
    progress(1000)
    progress(2000)
    assert [line.split(",")[0] for line in lines] == ["lines: 1", "lines: 2"]
    assert " of " not in lines[0]
