"""The search of the explorer: what it finds, in which order, and what it announces."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Locator, Page, expect

from recsys_assets.publish.names import hold_names
from serving.contract import search_key
from tests.browser.conftest import OpenPage
from tests.browser.site import NAMES, Site, publish, served
from tests.browser.test_explorer import listed

pytestmark = pytest.mark.browser

MORE_NAMES = {
    8: "77 Up lemonade",
    9: "88 keys",
    88: "Grand piano",
    90: "91 octane",
    91: "91 octane, too",
    92: "91 others",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of which some names begin with the ids of others."""
    with served(tmp_path_factory.mktemp("shop")) as site, site.redis_server.in_use():
        publish(site.redis_server.url)
        with closing(redis.Redis.from_url(site.redis_server.url)) as client:
            hold_names(client, {str(i): name for i, name in (NAMES | MORE_NAMES).items()})
        yield site


def search_of(page: Page) -> Locator:
    return page.get_by_role("combobox", name="Product")


def told(page: Page) -> Locator:
    """What is announced of the search."""
    return page.get_by_role("search").locator("[aria-live=polite]")


@pytest.mark.parametrize(
    ("typed", "options", "taken"),
    [
        ("77", ["Product 77", "77 Up lemonade 8"], "Product 77"),
        ("88", ["Grand piano 88", "88 keys 9"], "Grand piano"),
        ("91", ["91 octane, too 91", "91 octane 90", "91 others 92"], "91 octane, too"),
        ("77 up", ["77 Up lemonade 8"], "77 Up lemonade"),
    ],
)
def test_an_id_comes_before_the_names_that_begin_with_it(
    shop: Site, open_page: OpenPage, typed: str, options: list[str], taken: str
):
    page = open_page(shop, "/#user=1")
    search_of(page).fill(typed)
    expect(page.get_by_role("option")).to_have_text(options)
    search_of(page).press("Enter")
    expect(listed(page, "Bought Together")).to_contain_text(f"With {taken}")


def test_a_name_that_begins_with_an_id_can_be_chosen(shop: Site, open_page: OpenPage):
    page = open_page(shop, "/#user=1")
    search_of(page).fill("77")
    expect(page.get_by_role("option")).to_have_count(2)
    search_of(page).press("ArrowUp")
    search_of(page).press("Enter")
    expect(listed(page, "Bought Together")).to_contain_text("With 77 Up lemonade")


def test_what_the_search_finds_is_announced(shop: Site, open_page: OpenPage):
    page = open_page(shop, "/#user=1")
    search, announced = search_of(page), told(page)
    expect(announced).to_have_text("")
    search.fill("milk")
    expect(announced).to_have_text("2 products to choose from.")
    search.fill("honey")
    expect(announced).to_have_text("1 product to choose from.")
    assert page.get_by_role("listbox").locator("> :not([role=option])").count() == 0
    search.fill("nothing of the kind")
    expect(announced).to_have_text("No name found.")
    expect(announced).to_be_visible()
    expect(page.locator("[role=listbox]")).to_be_hidden()
    expect(search).to_have_attribute("aria-expanded", "false")
    search.press("Escape")
    expect(announced).to_have_text("")


def test_a_text_without_a_letter_finds_no_name(shop: Site, open_page: OpenPage):
    page = open_page(shop, "/#user=1", complains=True)
    search_of(page).fill("?!")
    expect(told(page)).to_have_text("No name found.")
    search_of(page).press("Enter")
    expect(listed(page, "Bought Together")).to_contain_text("With Product ?!")


def test_it_tells_that_the_search_does_not_work(tmp_path: Path, open_page: OpenPage):
    with served(tmp_path) as site, site.redis_server.in_use():
        publish(site.redis_server.url)
        with closing(redis.Redis.from_url(site.redis_server.url)) as client:
            client.set(search_key(), "no search")
        page = open_page(site, "/#user=1&product=3", complains=True)
        expect(listed(page, "Bought Together")).to_contain_text("With Crème fraîche")
        search_of(page).fill("milk")
        expect(told(page)).to_contain_text("The search does not work: ")
        expect(told(page)).to_be_visible()
        search_of(page).press("Enter")
        expect(told(page)).to_contain_text("The search does not work: ")
        expect(search_of(page)).to_have_value("milk")
        expect(listed(page, "Bought Together")).to_contain_text("With Crème fraîche")


def test_who_types_on_leaves_the_option(shop: Site, open_page: OpenPage):
    page = open_page(shop, "/#user=1")
    search_of(page).fill("milk")
    expect(page.get_by_role("option")).to_have_count(2)
    search_of(page).press("ArrowDown")
    search_of(page).fill("honey")
    search_of(page).press("Enter")  # before anything of it is found
    expect(listed(page, "Bought Together")).to_contain_text("With Honey")


def test_in_colours_of_the_system_the_option_is_seen(shop: Site, open_page: OpenPage):
    page = open_page(shop, "/#user=1", forced_colors="active")
    search_of(page).fill("milk")
    option = page.get_by_role("option").first
    before = option.screenshot()
    search_of(page).press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    assert option.screenshot() != before
