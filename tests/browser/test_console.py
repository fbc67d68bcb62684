"""The console in a real browser, on a real server with a simulated caller."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.events import AgentSaid, CallAdmitted, MessageTaken, OperatorActed, ToolRan
from app.store.sql.store import SqlStore
from tests.browser.site import SCRIPT, Site, dialing, serving
from tests.fakes.call_events import call_events, recorded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the console is not tested: install playwright"
)
expect = playwright.expect

AXE = Path(__file__).with_name("axe") / "axe.min.js"
TIME_LIMIT_MS = 20_000
VIEWS = ["wall", "phone", "history?days=30", "agents", "outbound", "health", "call/call_evil"]
SIZES = {"wide": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("console")
    with ThreadPoolExecutor(1) as thread:  # the browser's own loop may run in this one
        thread.submit(lambda: asyncio.run(_kept(folder / "state" / "calls.db"))).result()
    with serving(folder) as found:
        yield found


@pytest.fixture(scope="module")
def browser(launch: Any) -> Any:
    return launch(None)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    found = browser.new_context()
    found.set_default_timeout(TIME_LIMIT_MS)
    expect.set_options(timeout=TIME_LIMIT_MS)
    yield found
    found.close()


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Page:
    """A page that has logged in."""
    found = context.new_page()
    _refuse_faults(found)
    found.goto(site.link)
    expect(found.get_by_role("heading", name="Live calls")).to_be_visible()
    return found


def _refuse_faults(page: Page) -> None:
    """Fail at the policy's refusals, at scripts that fail and at dialogs."""

    def fault(text: str) -> None:
        raise AssertionError(text)

    page.on("pageerror", lambda error: fault(str(error)))
    page.on("dialog", lambda dialog: fault(dialog.message))
    page.on(
        "console",
        lambda said: fault(said.text) if "Content Security Policy" in said.text else None,
    )


def _until(page: Page, holds: Callable[[], bool]) -> None:
    for _ in range(TIME_LIMIT_MS // 50):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("not within the time limit")


async def _kept(database: Path) -> None:
    """A history with a call in which everybody says scripts."""
    store = SqlStore(database)
    await store.open()
    began = datetime.now(UTC) - timedelta(hours=30)
    evil: list[Any] = []
    for event in call_events("call_evil", said=[SCRIPT], answer=SCRIPT):
        if isinstance(event, CallAdmitted):
            evil.append(replace(event, agent=SCRIPT, caller_number=SCRIPT))
        else:
            evil.append(event)
    of = evil[0].call_id
    evil[-1:-1] = [
        ToolRan(call_id=of, at_ms=2_100, name=SCRIPT, duration_ms=1, error=SCRIPT),
        MessageTaken(call_id=of, at_ms=2_200, item_id="x", recipient=SCRIPT, text=SCRIPT),
        OperatorActed(call_id=of, at_ms=2_300, action="say", by=SCRIPT, text=SCRIPT),
        AgentSaid(
            call_id=of,
            at_ms=2_400,
            item_id="y",
            text="We are open until nine.",
            heard_text="We are open",
            cut_off=True,
        ),
    ]
    await store.append(recorded(evil, began=began), instance="a test")
    await store.add_note(of, SCRIPT, author=SCRIPT)
    await store.set_tags(of, [SCRIPT])
    await store.close()


def test_a_call_is_followed_found_and_played(page: Page, site: Site, tmp_path: Path) -> None:
    expect(page.get_by_text("Nobody is on the phone")).to_be_visible()
    assert "login=" not in page.url
    with dialing(site, tmp_path, most_s=60):
        card = page.locator("a.card")
        expect(card).to_be_visible()
        expect(card.locator(".last")).to_contain_text("How can I help you?")
        loud = "meters => meters.some(meter => meter.value > 20)"
        _until(page, lambda: card.locator("meter").evaluate_all(loud))
        card.click()
        expect(page.get_by_role("heading", name=re.compile("Call from"))).to_be_visible()
        expect(page.locator(".turns .caller")).not_to_have_count(0)
        now = page.get_by_role("region", name="Now")
        expect(now.get_by_text("Cost so far")).to_be_visible()
        now.get_by_role("button", name="Pause recording").click()
        now.get_by_role("button", name="Record again").click()
        expect(now.get_by_text("The call is recorded.")).to_be_visible()
        page.get_by_label("A note", exact=True).fill("Wants the hours")
        page.get_by_role("button", name="Add note").click()
        expect(page.get_by_text("Wants the hours")).to_be_visible()
        page.get_by_role("button", name="Hang up").click()
        page.get_by_role("button", name="Really hang up?").click()
        expect(page.locator("header.page").get_by_text("operator hung up")).to_be_visible()
    call = page.url
    page.get_by_role("link", name="History").click()
    page.get_by_label("Words that were said").fill("opening hours")
    page.get_by_role("button", name="Search").click()
    found = page.get_by_role("region", name="Found")
    expect(found.get_by_text("opening hours").last).to_be_visible()
    found.get_by_role("link", name="call").first.click()
    expect(page).to_have_url(call)
    recording = page.get_by_role("region", name="Recording")
    recording.wait_for()
    page.locator(".turns .caller button.at").first.click()  # seeks there, and plays
    expect(page.locator(".turns li.now")).to_have_count(1)
    page.wait_for_function("document.querySelector('audio').currentTime > 0.5")
    drawn = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    assert page.locator("canvas").evaluate(drawn) > 3


def test_what_was_not_heard_is_struck_through(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/console#/call/call_evil")
    expect(page.locator(".turns del")).to_have_text(" until nine.")


def test_scripts_in_what_people_say_do_not_run(page: Page, site: Site) -> None:
    for view in ("call/call_evil", "history?days=30&q=script", "wall", "agents", "health"):
        page.goto(f"{site.url}/console#/{view}")
        page.wait_for_selector("main h1")
        page.wait_for_timeout(300)
        assert page.evaluate("window.ran") is None
    page.goto(f"{site.url}/console#/call/call_evil")
    expect(page.locator(".turns li")).not_to_have_count(0)
    assert page.locator("main").inner_text().count(SCRIPT) > 5  # it is shown, as text


def test_a_tool_is_tried_and_what_it_answers_is_shown_as_text(page: Page) -> None:
    page.get_by_role("link", name="Agents").click()
    page.locator("summary", has_text="find_slot").click()
    form = page.get_by_role("form", name="Try find_slot")
    expect(form.get_by_label("people")).to_have_attribute("type", "number")
    form.get_by_label("people").fill("3")
    form.get_by_label("outside").select_option("true")
    form.get_by_role("button", name="Run it").click()
    output = page.locator("details.tool pre")
    expect(output).to_contain_text('"people": 3')
    expect(output).to_contain_text('"outside": true')
    expect(output).to_contain_text("<script>window.ran=1</script>")
    assert page.evaluate("window.ran") is None


def test_doctors_results_say_what_to_do(page: Page) -> None:
    page.get_by_role("link", name="Health").click()
    page.get_by_role("button", name="Look", exact=True).click()
    results = page.get_by_role("region", name="Doctor").locator("li")
    expect(results.filter(has_text="state_dir")).to_contain_text("can be written")
    expect(results.filter(has_text="Twilio")).to_contain_text("What to do: set TWILIO_ACCOUNT_SID")


def test_where_no_calls_are_placed_it_says_what_to_set(page: Page) -> None:
    page.get_by_role("link", name="Outbound").click()
    expect(page.get_by_text("This server places no calls")).to_be_visible()
    expect(page.locator("main")).to_contain_text("outbound.enabled")
    expect(page.get_by_role("region", name="Do not call")).to_be_visible()


def test_it_says_that_the_feed_is_cut_and_resumes(page: Page, context: BrowserContext) -> None:
    cut = page.get_by_text("The live feed is cut")
    expect(cut).to_have_count(0)
    context.set_offline(True)
    expect(cut).to_be_visible()
    context.set_offline(False)
    expect(cut).to_have_count(0)


def test_a_key_logs_in_and_out(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(f"{site.url}/console")
    page.get_by_label("API key").fill("tk_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("there is no such key")
    page.get_by_label("API key").fill(site.environment["OPERATOR_TOKEN"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Live calls")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.reload()
    expect(page.get_by_label("API key")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_each_view(browser: Browser, site: Site, scheme: str) -> None:
    """No serious fault by axe; screenshots go to the folder CONSOLE_SCREENSHOTS, if it is set."""
    kept = os.environ.get("CONSOLE_SCREENSHOTS")
    source = AXE.read_text(encoding="utf-8")
    context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        page.goto(site.link)
        for view in VIEWS:
            for name, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                page.goto(f"{site.url}/console#/{view}")
                page.wait_for_selector("main h1")
                expect(page.get_by_text("Loading …")).to_have_count(0)
                page.evaluate(source)
                result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
                faults = [
                    (view, name, one["id"], one["nodes"][0]["html"])
                    for one in result["violations"]
                    if one["impact"] in ("serious", "critical")
                ]
                assert not faults, json.dumps(faults, indent=1)
                across = "document.documentElement.scrollWidth - innerWidth"
                assert page.evaluate(across) <= 0, (view, name, "is wider than the screen")
                if kept:
                    folder = Path(kept)
                    folder.mkdir(parents=True, exist_ok=True)
                    file = f"{re.split('[/?]', view)[0]}-{scheme}-{name}.png"
                    page.screenshot(path=folder / file, full_page=True)
    finally:
        context.close()
