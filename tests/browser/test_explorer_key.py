"""The explorer of an API that wants a key: what a person sees who gives a right or a wrong one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from serving.api_keys import new_key
from tests.browser.conftest import OpenPage
from tests.browser.site import Site, publish, served
from tests.browser.test_explorer import LEAST_CONTRAST, PHONE, links

pytestmark = pytest.mark.browser

KEY, KEPT = new_key("browser")
LABEL = "This service asks for an API key"


@pytest.fixture(scope="module")
def closed_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The API over a small publication, for those who have the key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_API_KEYS", str(KEPT))
        folder: Path = tmp_path_factory.mktemp("closed")
        with served(folder) as site, site.redis_server.in_use():
            publish(site.redis_server.url)
            yield site


def give(page: Page, key: str) -> None:
    page.get_by_label(LABEL).fill(key)
    page.keyboard.press("Enter")


def test_a_wrong_key_is_told_in_the_form(closed_site: Site, open_page: OpenPage):
    page = open_page(closed_site, "/#user=1", complains=True)
    key = page.get_by_label(LABEL)
    expect(key).to_be_focused()
    expect(key).not_to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("alert")).to_have_text("")
    give(page, "wrong")
    alert = page.locator("#access").get_by_role("alert")
    expect(alert).to_have_text("This API key is not, or no longer, in force.")
    expect(key).to_be_focused()
    expect(key).to_have_attribute("aria-invalid", "true")
    expect(key).to_have_accessible_description("This API key is not, or no longer, in force.")
    page.reload()
    expect(alert).to_be_visible()
    give(page, KEY)
    expect(links(page, "Top Buys")).to_have_count(4)
    expect(key).to_be_hidden()
    expect(page.get_by_role("heading", name="Top Buys")).to_be_focused()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_each_wrong_key_is_announced(closed_site: Site, open_page: OpenPage):
    page = open_page(closed_site, "/#user=1", complains=True)
    give(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("not, or no longer, in force")
    page.evaluate(
        """() => {
          window.told = [];
          const alert = document.querySelector("#access [role=alert]");
          const see = () => window.told.push(alert.textContent);
          new MutationObserver(see).observe(alert, { childList: true, subtree: true });
        }"""
    )
    page.keyboard.type("wrong")  # takes the place of what was there
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("alert")).to_contain_text("not, or no longer, in force")
    assert page.evaluate("window.told") == ["", "This API key is not, or no longer, in force."]
    expect(page.get_by_label(LABEL)).to_have_value("wrong")
    expect(page.get_by_label(LABEL)).to_be_focused()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("recsys_a\N{EN DASH}b", "cannot have the character “\N{EN DASH}” (U+2013)"),
        ("recsys_\N{GRINNING FACE}", "cannot have the character “\N{GRINNING FACE}” (U+1F600)"),
        ("recsys_\N{ZERO WIDTH SPACE}a", "(U+200B)"),
        ("recsys_\x07", "(U+0007)"),
        ("  ", "only blanks"),
        ("k" * 100_000, "longer than any API key"),
    ],
)
def test_what_can_be_no_key_is_refused(
    closed_site: Site, open_page: OpenPage, given: str, why: str
):
    page = open_page(closed_site, "/#user=1", complains=True)
    give(page, given)
    alert = page.locator("#access").get_by_role("alert")
    expect(alert).to_contain_text(why)
    expect(page.get_by_label(LABEL)).to_be_focused()
    page.reload()
    expect(page.get_by_label(LABEL)).to_be_focused()
    give(page, KEY)
    expect(links(page, "Top Buys")).to_have_count(4)


def test_a_key_of_latin_letters_is_sent(closed_site: Site, open_page: OpenPage):
    page = open_page(closed_site, "/#user=1", complains=True)
    give(page, "clé à moi")
    expect(page.get_by_role("alert")).to_have_text("This API key is not, or no longer, in force.")


def test_a_search_tells_that_the_key_is_no_longer_in_force(closed_site: Site, open_page: OpenPage):
    page = open_page(closed_site, "/#user=1", complains=True)
    give(page, KEY)
    expect(links(page, "Top Buys")).to_have_count(4)
    page.evaluate("sessionStorage.setItem('api-key', 'wrong')")
    page.get_by_role("combobox", name="Product").fill("milk")
    expect(page.get_by_role("alert")).to_have_text("This API key is not, or no longer, in force.")
    expect(page.get_by_label(LABEL)).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_is_legible(closed_site: Site, open_page: OpenPage, scheme: str):
    page = open_page(closed_site, complains=True, color_scheme=scheme, viewport=PHONE)
    give(page, "wrong")
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(LEAST_CONTRAST) >= 4.5
