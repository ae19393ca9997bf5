"""Chromium, and the explorer page of a small shop in it.

The Chromium is the system's, never a downloaded one. One test is part of every run; the others are
run by ``make test-browser``.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.site import CHROMIUM_FLAGS, Site, Watch, publish, served

ALL = os.environ.get("RECSYS_TEST_BROWSER") == "1"

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window.

    Ends with its tests, for as long as it is there an event loop runs in which nobody else can run
    one.
    """
    program = shutil.which("chromium")
    if program is None:
        reason = "no chromium here: apt-get install chromium"
        pytest.fail(reason) if ALL else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The API over a small publication, which no test changes."""
    with served(tmp_path_factory.mktemp("site")) as site, site.redis_server.in_use():
        publish(site.redis_server.url)
        yield site


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens a page of its own; at the end none has complained, or asked anybody else.

    ``complains``: its failed requests are the test's intention. Other options are the browser's.
    """
    watches: list[tuple[str, Watch, bool]] = []
    with ExitStack() as stack:

        def opened(site: Site, path: str = "/", *, complains: bool = False, **options: Any) -> Page:
            context = stack.enter_context(chromium.new_context(**options))
            context.set_default_timeout(10_000)
            page = context.new_page()
            watches.append((site.url, Watch(page), complains))
            page.goto(site.url + path)
            return page

        yield opened
        for url, watch, complains in watches:
            assert complains or watch.complaints == []
            assert [asked for asked in watch.requests if not asked.startswith((url, "data:"))] == []
