"""The explorer of shops whose ids and names are long, odd or missing."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from playwright.sync_api import expect

from recsys_assets.publish.names import hold_names
from serving.contract import ExampleUsers, Family, encode_example_users, example_users_key
from tests.browser.conftest import OpenPage
from tests.browser.site import Site, served
from tests.browser.test_explorer import DESKTOP, PHONE, links, listed
from tests.published import Publisher

pytestmark = pytest.mark.browser

LONG_ID = "x" * 150
PRODUCTS = {
    "a/b c": "Organic stone-ground whole-wheat sourdough bread with sunflower seeds, family size",
    "sku?x=1&y#2": "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenpoliermittelflasche",
    "50% off'": "Half",
    LONG_ID: None,
}
USERS = ["jane doe/7", "o'brien & co", "u" * 150]


@pytest.fixture(scope="module")
def odd_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose ids are any text."""
    with served(tmp_path_factory.mktemp("odd")) as site, site.redis_server.in_use():
        with closing(redis.Redis.from_url(site.redis_server.url)) as client:
            publisher = Publisher(client)
            for family in Family:
                publisher.record(family, "text")
            for user in (None, *USERS):
                publisher.top_buys(user, *PRODUCTS)
            for product in PRODUCTS:
                others = [other for other in PRODUCTS if other != product]
                publisher.bought_together(product, *others)
            hold_names(client, {key: name for key, name in PRODUCTS.items() if name})
            users = ExampleUsers(user_ids=list(USERS))
            client.set(example_users_key(), encode_example_users(users))
        yield site


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_long_ids_and_names_fit(odd_shop: Site, open_page: OpenPage, size: dict[str, int]):
    page = open_page(odd_shop, f"/#user={USERS[-1]}&product={LONG_ID}", viewport=size)
    expect(listed(page, "Bought Together")).to_contain_text(f"With Product {LONG_ID}")
    page.get_by_role("combobox", name="Product").fill("donau")
    expect(page.get_by_role("option")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    too_wide = page.locator("main, main form, .panel, .row, [role=listbox], #status").evaluate_all(
        "nodes => nodes.filter((n) => n.scrollWidth > n.clientWidth).map((n) => n.outerHTML)"
    )
    assert too_wide == []


def test_every_id_leads_to_its_product(odd_shop: Site, open_page: OpenPage):
    page = open_page(odd_shop, "/#guest")
    for place, (product, name) in enumerate(PRODUCTS.items()):
        links(page, "Top Buys").nth(place).click()
        about = listed(page, "Bought Together").locator(".about")
        expect(about).to_have_text(f"With {name or f'Product {product}'}")
        expect(links(page, "Bought Together")).to_have_count(len(PRODUCTS) - 1)


def test_nothing_published_is_told(tmp_path_factory: pytest.TempPathFactory, open_page: OpenPage):
    with served(tmp_path_factory.mktemp("empty")) as site, site.redis_server.in_use():
        page = open_page(site)
        expect(listed(page, "Top Buys")).to_contain_text("Nothing is published yet.")
        expect(page.get_by_role("status")).to_contain_text("A guest: 0 in Top Buys")
        expect(page.get_by_role("alert")).to_have_count(0)
