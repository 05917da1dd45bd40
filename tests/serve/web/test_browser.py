"""The page in a real browser: by mouse, by keys, in the dark, on a phone, and without its script.

Chromium is looked for under its usual names, or where CHROMIUM says; without one these tests skip.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from modalign_serve.command.bench import Running, running

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
RULES = {
    "light": {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]},
    "dark": {"runOnly": {"type": "rule", "values": ["color-contrast"]}},
}
GALLERY = ".gallery h2 a"
ADDRESSES = (
    "recommend", "recommend?user=u3", "recommend?liked=i1&liked=i4", "compare?user=u3",
    "search?q=item", "item?item=i5&user=u3", "reach?item=i5", "new", "card", "key",
    "item?item=nope",
)  # fmt: skip


@pytest.fixture(scope="module")
def live(web_shops: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = str(tmp_path_factory.mktemp("store") / "f.sqlite")
    both = [str(web_shops / "shop"), str(web_shops / "other")]
    with running(both, "--feedback", store) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed, and CHROMIUM is not set")
    with sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=path, args=QUIET)
        yield found
        found.close()


@contextmanager
def opened(browser: Browser, live: Running, address: str, **how: object) -> Iterator[Page]:
    """A page, on which nothing may go wrong: no error, no warning, nothing asked of other hosts."""
    context = browser.new_context(base_url=f"{live.url}/page/", **how)  # type: ignore[arg-type]
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if told.type != "log" else None)
    page.on("request", lambda one: None if one.url.startswith(live.url) else wrong.append(one.url))
    page.goto(address)
    yield page
    context.close()
    refused = "the server responded with a status of 404"
    assert [one for one in wrong if refused not in one or "nope" not in address] == []


def titles(page: Page) -> list[str]:
    return page.locator(GALLERY).all_inner_texts()


@pytest.mark.slow
def test_a_taste_is_built_by_clicking(browser: Browser, live: Running) -> None:
    with opened(browser, live, "recommend") as page:
        loads: list[str] = []
        page.on("domcontentloaded", lambda _: loads.append(page.url))
        page.locator(".tiles a").nth(2).click()
        expect(page.get_by_role("heading", name="Recommended for you")).to_be_visible()
        first = titles(page)
        assert len(first) == 12
        page.locator("#choice-3").click()
        expect(page.locator(".tile.on")).to_have_count(2)
        second = titles(page)
        assert second != first
        expect(page.locator("#said")).to_have_text(re.compile("12 items recommended"))
        page.locator("#liked-2").click()
        expect(page.locator(".tile.on")).to_have_count(1)
        assert titles(page) == first
        page.go_back()
        expect(page.locator(".tile.on")).to_have_count(2)
        assert titles(page) == second
        page.select_option("#k", "6")
        expect(page.locator(GALLERY)).to_have_count(6)
        assert titles(page) == second[:6]
        page.locator("#like-1").click()
        expect(page.locator(".tile.on")).to_have_count(3)
        page.evaluate("history.go(-4)")
        expect(page.get_by_role("heading", name="What would you like?")).to_be_visible()
        assert loads == []  # the script saved every reload


@pytest.mark.slow
def test_without_its_script_all_works_the_same(browser: Browser, live: Running) -> None:
    with opened(browser, live, "recommend", java_script_enabled=False) as page:
        page.locator(".tiles a").nth(2).click()
        first = titles(page)
        page.locator("#choice-3").click()
        expect(page.locator(".tile.on")).to_have_count(2)
        assert titles(page) != first
        page.select_option("#k", "6")
        page.get_by_role("button", name="Apply").click()
        expect(page.locator(GALLERY)).to_have_count(6)
        page.get_by_role("link", name="Compare").click()
        expect(page.locator(".ranks")).to_have_count(2)


@pytest.mark.slow
def test_a_user_two_models_and_the_way_back(browser: Browser, live: Running) -> None:
    with opened(browser, live, "recommend") as page:
        page.get_by_role("textbox", name="User").fill("u3")
        page.get_by_role("textbox", name="User").press("Enter")
        expect(page.get_by_role("heading", name="Recommended for u3")).to_be_visible()
        by_shop = titles(page)
        page.get_by_role("navigation", name="Models").get_by_role("link", name="other").click()
        expect(page.get_by_role("link", name="other")).to_have_attribute("aria-current", "true")
        by_other = titles(page)
        assert by_other != by_shop
        page.get_by_role("link", name="Compare").click()
        lists = page.locator(".ranks")
        expect(lists).to_have_count(2)
        assert lists.nth(0).locator("h3").all_inner_texts() == by_other
        assert lists.nth(1).locator("h3").all_inner_texts() == by_shop
        common = len(set(by_shop) & set(by_other))
        expect(page.locator("main .lead b")).to_have_text(str(common))
        expect(page.locator(".ranks .both")).to_have_count(2 * common)
        page.get_by_role("link", name="Swap sides").click()
        expect(page.locator("#side-1")).to_contain_text("shop")
        page.select_option("#other", "shop")
        expect(page.locator("#side-2")).to_contain_text("other")


@pytest.mark.slow
def test_search_as_one_types(browser: Browser, live: Running) -> None:
    with opened(browser, live, "search") as page:
        field = page.get_by_label("Words of the title")
        field.press_sequentially("item 12", delay=5)
        expect(page.locator(".gallery h2")).to_have_text(["Item 12"])
        assert field.input_value() == "item 12"
        assert field.evaluate("one => one === document.activeElement")
        assert page.url.endswith("q=item+12")
        page.get_by_text("I like Item 12").click(force=True)
        expect(page.locator(".heart.on")).to_have_count(1)
        page.get_by_role("link", name="Recommend for the 1 item you like").click()
        expect(page.locator("#liked-1")).to_contain_text("Item 12")


@pytest.mark.slow
def test_a_new_item_and_whom_it_reaches(browser: Browser, live: Running) -> None:
    with opened(browser, live, "item?item=i5&model=other") as page:
        page.get_by_role("link", name="Add a similar item").click()
        page.get_by_label("Title").fill("A brand new thing")
        page.get_by_label("Its picture is similar to").fill("i9")
        page.get_by_role("button", name="Add it").click()
        expect(page.get_by_role("status").first).to_contain_text("is ranked for all users")
        expect(page.locator("h1")).to_contain_text("A brand new thing")
        expect(page.locator("main .lead")).to_contain_text("of 30 users")
        for one in page.locator(".moved").all():
            expect(one.locator(".this")).to_have_count(1)


@pytest.mark.slow
def test_by_keys_alone(browser: Browser, live: Running) -> None:
    with opened(browser, live, "recommend") as page:
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        expect(skip).to_be_focused()
        assert skip.bounding_box()["y"] >= 0  # type: ignore[index]
        page.keyboard.press("Enter")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "choice-1":
                break
        focused = page.locator("#choice-1")
        expect(focused).to_be_focused()
        assert focused.evaluate("one => getComputedStyle(one).outlineStyle") != "none"
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Recommended for you")).to_be_visible()
        expect(page.locator("#choice-1")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".tile.on")).to_have_count(2)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_hard_to_read_or_to_reach(browser: Browser, live: Running, scheme: str) -> None:
    axe = Axe()
    with opened(browser, live, ADDRESSES[0], color_scheme=scheme) as page:
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        dark = sum(map(int, re.findall(r"\d+", back)[:3])) < 200
        assert dark == (scheme == "dark")
        for address in ADDRESSES[:-1]:
            page.goto(address)
            found = axe.run(page, options=RULES[scheme])
            assert found.violations_count == 0, (address, found.generate_report())


@pytest.mark.slow
def test_a_failure_is_readable_too(browser: Browser, live: Running) -> None:
    with opened(browser, live, "item?item=nope") as page:
        assert Axe().run(page).violations_count == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 768])
def test_no_page_is_wider_than_the_screen(browser: Browser, live: Running, width: int) -> None:
    screen = {"width": width, "height": 800}
    with opened(browser, live, "recommend", viewport=screen) as page:
        for address in ADDRESSES[:-1]:
            page.goto(address)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, address
