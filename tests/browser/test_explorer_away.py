"""The explorer while Redis is away, for those who hear it and who use the keyboard."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.site import publish, served
from tests.browser.test_explorer import links

pytestmark = pytest.mark.browser


def try_again_twice(page: Page) -> None:
    """Wait while the page does so by itself."""
    for _ in range(2):
        with page.expect_response("**/api/**"):
            pass
    page.wait_for_timeout(200)


def test_what_is_wrong_is_announced_once(tmp_path: Path, open_page: OpenPage):
    with served(tmp_path) as site:
        page = open_page(site, "/#user=1", complains=True)
        expect(page.get_by_role("alert")).to_contain_text("Redis does not answer")
        page.evaluate(
            """() => {
              window.changes = 0;
              const alert = document.querySelector("#problem");
              const count = (changes) => (window.changes += changes.length);
              new MutationObserver(count).observe(alert, { childList: true, subtree: true });
            }"""
        )
        try_again_twice(page)
        assert page.evaluate("window.changes") == 0


def test_the_focus_stays_with_its_list(tmp_path: Path, open_page: OpenPage):
    with served(tmp_path) as site:
        with site.redis_server.in_use():
            publish(site.redis_server.url)
            page = open_page(site, "/#user=1", complains=True)
            links(page, "Top Buys").nth(1).focus()
        page.keyboard.press("Enter")
        title = page.get_by_role("heading", name="Top Buys")
        expect(page.get_by_role("alert")).to_contain_text("Redis does not answer")
        expect(title).to_be_focused()
        try_again_twice(page)
        expect(title).to_be_focused()
        with site.redis_server.in_use():
            expect(links(page, "Top Buys")).to_have_count(4)
            expect(title).to_be_focused()


def test_the_focus_goes_from_what_was_wrong_to_the_lists(tmp_path: Path, open_page: OpenPage):
    with served(tmp_path) as site:
        page = open_page(site, "/#user=1", complains=True)
        page.get_by_role("button", name="Try again").focus()
        with site.redis_server.in_use():
            publish(site.redis_server.url)
            expect(links(page, "Top Buys")).to_have_count(4)
            expect(page.get_by_role("heading", name="Top Buys")).to_be_focused()
