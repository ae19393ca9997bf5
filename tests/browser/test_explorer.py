"""The explorer as a person uses it, in Chromium, over the running API and a real Redis."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import OpenPage
from tests.browser.site import LARGE_ID, MARKUP, Site, publish, served

PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}
# The least contrast of texts with what they stand on, by the formula of WCAG 2.
LEAST_CONTRAST = """() => {
  const channel = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    const color = rgba(getComputedStyle(node).backgroundColor);
    return color[3] === 0 && node.parentElement ? ground(node.parentElement) : color;
  };
  const hasText = (node) => [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const ratios = [...document.querySelectorAll("body *")]
    .filter((node) => node.checkVisibility() && hasText(node))
    .map((node) => [luminance(rgba(getComputedStyle(node).color)), luminance(ground(node))])
    .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  return Math.min(...ratios);
}"""


def listed(page: Page, title: str) -> Locator:
    """The section of a list, by its heading."""
    return page.get_by_role("region", name=title)


def links(page: Page, title: str) -> Locator:
    return listed(page, title).get_by_role("listitem").get_by_role("link")


def address(page: Page) -> str:
    return urlsplit(page.url).fragment


def test_the_page_shows_three_lists_side_by_side(site: Site, open_page: OpenPage):
    page = open_page(site)
    expect(links(page, "Top Buys")).to_have_text(["Whole milk", "Crème fraîche", "Honey", MARKUP])
    expect(links(page, "Buy Again")).to_have_text(["Rye bread", "Butter"])
    expect(links(page, "Bought Together")).to_have_count(6)
    expect(listed(page, "Bought Together")).to_contain_text("With Whole milk")
    expect(page.get_by_role("status")).to_contain_text("Customer 1: 4 in Top Buys")


@pytest.mark.browser
def test_a_product_is_found_by_part_of_its_name(site: Site, open_page: OpenPage):
    page = open_page(site)
    search = page.get_by_role("combobox", name="Product")
    search.press_sequentially("MIL")
    expect(page.get_by_role("option")).to_have_text(["Whole milk 1", "Oat milk 2"])
    search.fill("creme")
    page.get_by_role("option", name="Crème fraîche").click()
    expect(listed(page, "Bought Together")).to_contain_text("With Crème fraîche")
    assert address(page) == "user=1&product=3"
    search.fill("nothing of the kind")
    expect(page.get_by_text("No name found")).to_be_visible()
    search.press("Escape")
    expect(page.get_by_text("No name found")).to_be_hidden()


@pytest.mark.browser
def test_a_product_is_found_by_its_id(site: Site, open_page: OpenPage):
    page = open_page(site)
    page.get_by_role("combobox", name="Product").fill(str(LARGE_ID))
    page.get_by_role("button", name="Find").click()
    expect(listed(page, "Bought Together")).to_contain_text("With Honey")
    page.get_by_role("combobox", name="Product").fill("77")
    page.get_by_role("button", name="Find").click()
    expect(listed(page, "Bought Together")).to_contain_text("With Product 77")
    expect(listed(page, "Bought Together")).to_contain_text("No product shares enough orders")


@pytest.mark.browser
def test_a_guest_sees_what_is_popular(site: Site, open_page: OpenPage):
    page = open_page(site)
    page.get_by_role("link", name="Be a guest").click()
    expect(links(page, "Top Buys")).to_have_text(["Rye bread", "Whole milk", "Butter"])
    expect(listed(page, "Top Buys")).to_contain_text("Popular now")
    expect(listed(page, "Buy Again")).to_contain_text("Guests have no history")
    assert address(page) == "guest"


@pytest.mark.browser
def test_a_customer_is_typed_or_chosen(site: Site, open_page: OpenPage):
    page = open_page(site)
    page.get_by_label("Customer", exact=True).fill("2")
    page.get_by_role("button", name="Show").click()
    expect(links(page, "Top Buys")).to_have_text(["Oat milk", "Butter"])
    expect(listed(page, "Buy Again")).to_contain_text("Nothing is known that they buy again")
    page.get_by_role("link", name="1", exact=True).click()
    expect(links(page, "Top Buys")).to_have_count(4)
    page.get_by_label("Customer", exact=True).fill("nobody & co")
    page.get_by_role("button", name="Show").click()
    expect(links(page, "Top Buys")).to_have_text(["Rye bread", "Whole milk", "Butter"])
    assert address(page) == "user=nobody%20%26%20co"


@pytest.mark.browser
def test_a_click_leads_from_product_to_product_and_back(site: Site, open_page: OpenPage):
    page = open_page(site)
    links(page, "Top Buys").get_by_text("Honey").click()
    expect(listed(page, "Bought Together")).to_contain_text("With Honey")
    assert address(page) == f"user=1&product={LARGE_ID}"
    links(page, "Bought Together").get_by_text("Butter").click()
    expect(listed(page, "Bought Together")).to_contain_text("With Butter")
    page.go_back()
    expect(listed(page, "Bought Together")).to_contain_text("With Honey")
    other = open_page(site, f"/#{address(page)}")
    expect(listed(other, "Bought Together")).to_contain_text("With Honey")


@pytest.mark.browser
def test_every_product_shows_strength_and_evidence(site: Site, open_page: OpenPage):
    page = open_page(site, "/#user=1&product=3")
    expect(listed(page, "Top Buys").get_by_role("listitem")).to_have_text(
        [
            "Whole milkstrength 1.00Bought 7 times, last on 1 Mar 2025",
            "Crème fraîchestrength 0.500Goes with Oat milk (75%), Rye bread (20%)",
            "Honeystrength 0.333Popular now",
            f"{MARKUP}strength 0.250No reason is published",
        ]
    )
    expect(listed(page, "Buy Again").get_by_role("listitem")).to_have_text(
        [
            "Rye breadstrength 2.00Bought 3 times, last on 1 Mar 2025; due since 1 Mar 2025",
            "Butterstrength 2.00Bought once, on 1 Mar 2025",
        ]
    )
    pairs = listed(page, "Bought Together").get_by_role("listitem")
    expect(pairs.first).to_have_text(
        "Whole milkstrength 8.00In 10 orders together, 50% of those with it;"
        " 2.5 times what chance would bring"
    )
    expect(pairs.nth(1)).to_have_text("Oat milkstrength 4.00No evidence is published")
    for title in ("Top Buys", "Buy Again"):
        made, known = listed(page, title).get_by_role("time").all()
        assert made.get_attribute("datetime") == "2025-03-01T03:00:00Z"
        assert known.get_attribute("datetime") == "2025-03-01T02:59:00Z"


@pytest.mark.browser
def test_the_call_that_is_copied_gives_the_list(site: Site, open_page: OpenPage):
    page = open_page(site, "/#user=1", permissions=["clipboard-read", "clipboard-write"])
    for title, first in [("Top Buys", 1), ("Buy Again", 4), ("Bought Together", 2)]:
        copy = listed(page, title).get_by_role("button")
        copy.click()
        expect(copy).to_have_text("Copied")
        command, quoted = page.evaluate("navigator.clipboard.readText()").split(" ")
        assert command == "curl"
        assert quoted == f"'{quoted[1:-1]}'"
        body = httpx.get(quoted[1:-1], trust_env=False).raise_for_status().json()
        assert body["products"][0]["product_id"] == first


@pytest.mark.browser
def test_a_call_is_selected_where_the_clipboard_is_closed(site: Site, open_page: OpenPage):
    page = open_page(site, "/#guest")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    copy = listed(page, "Top Buys").get_by_role("button")
    copy.click()
    expect(copy).to_have_text("Selected")
    assert page.evaluate("getSelection().toString()").startswith("curl 'http")


@pytest.mark.browser
def test_all_of_it_works_by_the_keyboard(site: Site, open_page: OpenPage):
    page = open_page(site)
    expect(links(page, "Top Buys")).to_have_count(4)

    def tab_to(wanted: Locator) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if wanted.evaluate("node => node === document.activeElement"):
                assert wanted.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
                return
        raise AssertionError(f"the keyboard does not reach {wanted}")

    tab_to(page.get_by_label("Customer", exact=True))
    page.keyboard.press("Control+A")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    expect(links(page, "Top Buys")).to_have_text(["Oat milk", "Butter"])
    search = page.get_by_role("combobox", name="Product")
    tab_to(search)
    page.keyboard.type("milk")
    expect(page.get_by_role("option")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    active = search.get_attribute("aria-activedescendant")
    expect(page.locator(f"#{active}")).to_contain_text("Oat milk")
    page.keyboard.press("Enter")
    expect(listed(page, "Bought Together")).to_contain_text("With Oat milk")
    tab_to(links(page, "Top Buys").nth(1))
    page.keyboard.press("Enter")
    expect(listed(page, "Bought Together")).to_contain_text("With Butter")
    expect(links(page, "Top Buys").nth(1)).to_be_focused()
    tab_to(links(page, "Bought Together").first)
    page.keyboard.press("Enter")
    expect(listed(page, "Bought Together")).to_contain_text("With Whole milk")
    expect(page.get_by_role("heading", name="Bought Together")).to_be_focused()


@pytest.mark.browser
def test_it_has_landmarks_and_says_what_it_shows(site: Site, open_page: OpenPage):
    page = open_page(site)
    for role in ("banner", "navigation", "main", "search", "contentinfo", "status"):
        expect(page.get_by_role(role)).to_have_count(1)
    expect(page.get_by_role("heading")).to_have_text(
        ["Product recommendations", "Top Buys", "Buy Again", "Bought Together"]
    )
    unnamed = page.locator("a:visible, button:visible, input:visible").evaluate_all(
        "nodes => nodes.filter((n) => !(n.textContent.trim() || n.labels?.length)).map(String)"
    )
    assert unnamed == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_fits_and_is_legible(site: Site, open_page: OpenPage, scheme: str, size: dict[str, int]):
    page = open_page(site, color_scheme=scheme, viewport=size)
    expect(links(page, "Top Buys")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate(LEAST_CONTRAST) >= 4.5
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(shade) > 128) == (scheme == "light")
    places = [listed(page, title).bounding_box() for title in ("Top Buys", "Bought Together")]
    assert None not in places
    side_by_side = places[0]["y"] == places[1]["y"]  # type: ignore[index]
    assert side_by_side == (size is DESKTOP)


@pytest.mark.browser
def test_on_a_phone_a_choice_brings_its_list_into_view(site: Site, open_page: OpenPage):
    page = open_page(site, viewport=PHONE)
    links(page, "Top Buys").first.click()
    links(page, "Top Buys").nth(1).click()
    expect(page.get_by_role("heading", name="Bought Together")).to_be_in_viewport()


@pytest.mark.browser
def test_it_tells_that_redis_is_away_and_comes_back_by_itself(tmp_path: Path, open_page: OpenPage):
    with served(tmp_path) as site:
        page = open_page(site, "/#user=1", complains=True)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("Redis does not answer")
        expect(listed(page, "Top Buys")).to_contain_text("Not available now")
        with site.redis_server.in_use():
            publish(site.redis_server.url)
            expect(links(page, "Top Buys")).to_have_count(4)
            expect(alert).to_be_hidden()
        page.get_by_role("link", name="Be a guest").click()
        expect(alert).to_contain_text("Redis does not answer")
        with site.redis_server.in_use():
            alert.get_by_role("button", name="Try again").click()
            expect(links(page, "Top Buys")).to_have_count(3)


@pytest.mark.browser
def test_it_asks_for_a_key_and_keeps_it(site: Site, open_page: OpenPage):
    page = open_page(site, "/schema", complains=True)

    def only_with_a_key(route: Route) -> None:
        if route.request.headers.get("x-api-key") == "a secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"status": 401, "detail": "An API key is required."})

    page.route("**/api/**", only_with_a_key)
    page.goto(f"{site.url}/#user=1")
    key = page.get_by_label("This service asks for an API key")
    expect(key).to_be_focused()
    key.fill("a secret")
    page.keyboard.press("Enter")
    expect(links(page, "Top Buys")).to_have_count(4)
    expect(key).to_be_hidden()
    expect(listed(page, "Top Buys").get_by_label("The HTTP call")).to_contain_text(
        'curl -H "X-API-Key: $API_KEY"'
    )
    page.reload()
    expect(links(page, "Top Buys")).to_have_count(4)


@pytest.mark.browser
def test_the_reference_shows_every_operation(site: Site, open_page: OpenPage):
    page = open_page(site, "/schema")
    for path in ("/api/recommendations/top-buys", "/api/explorer/products"):
        expect(page.get_by_text(path, exact=True).first).to_be_visible()
