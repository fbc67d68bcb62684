"""The console in a real browser, on a real server with a simulated caller."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect

from app.credentials.api_keys import ApiKeys, Scope
from tests.browser.conftest import until
from tests.browser.site import SCRIPT, Site, dialing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the console is not tested: install playwright"
)
expect = playwright.expect

pytestmark = pytest.mark.offline_speech

AXE = Path(__file__).with_name("axe") / "axe.min.js"
VIEWS = ["wall", "phone", "history?days=30", "agents", "outbound", "health", "call/call_evil"]
SIZES = {"wide": (1280, 800), "phone": (390, 844)}


def test_a_call_is_followed_found_and_played(page: Page, site: Site, tmp_path: Path) -> None:
    expect(page.get_by_text("Nobody is on the phone")).to_be_visible()
    assert "login=" not in page.url
    with dialing(site, tmp_path, most_s=60):
        card = page.locator("a.card")
        expect(card).to_be_visible()
        expect(card.locator(".last")).to_contain_text("How can I help you?")
        until(page, "[...document.querySelectorAll('a.card meter')].some(one => one.value > 20)")
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


def test_a_session_of_the_gateway_shows_while_it_goes_on_and_is_kept(
    page: Page, site: Site
) -> None:
    token = ApiKeys(site.state_dir).create("shop", Scope.REALTIME)[1]
    url = f"{site.url.replace('http', 'ws')}/v1/realtime?model=robot"
    sessions = page.get_by_role("region", name="Sessions of the gateway")
    with connect(url, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None) as one:
        one.recv()
        expect(sessions.get_by_role("link", name="shop")).to_be_visible()
        expect(sessions).to_contain_text("robot")
        page.reload()  # and for those who come later
        sessions.get_by_role("link", name="shop").click()
        expect(page.get_by_role("heading", name="Session of shop")).to_be_visible()
        expect(page.get_by_role("button", name="Listen")).to_have_count(0)  # nobody is on a phone
        page.get_by_role("link", name="Live", exact=True).click()
        expect(sessions).to_be_visible()
    expect(sessions).to_have_count(0)
    page.get_by_role("link", name="History", exact=True).click()
    row = page.get_by_role("region", name="Calls").get_by_role("row").filter(has_text="session")
    expect(row).to_contain_text("shop")


def test_what_was_not_heard_is_struck_through(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/console#/call/call_evil")
    expect(page.locator(".turns del")).to_have_text(" until nine.")


def test_scripts_in_what_people_say_do_not_run(page: Page, site: Site) -> None:
    for view in [*VIEWS, "history?days=30&q=script"]:
        page.goto(f"{site.url}/console#/{view}")
        page.wait_for_selector("main h1")
        expect(page.get_by_text("Loading …")).to_have_count(0)
    page.goto(f"{site.url}/console#/call/call_evil")
    expect(page.locator(".turns li")).not_to_have_count(0)
    assert page.locator("main").inner_text().count(SCRIPT) > 20  # shown, as text; see `page`


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


def test_the_difference_of_the_file_on_disk_is_shown_line_by_line(page: Page, site: Site) -> None:
    path = site.state_dir.parent / "config.yaml"
    in_force = path.read_text(encoding="utf-8")
    try:
        path.write_text(in_force.replace("Help.", "Help all."), encoding="utf-8")
        page.get_by_role("link", name="Agents").click()
        lines = page.get_by_role("region", name="The file on disk").locator("pre .line")
        expect(lines.filter(has_text="-")).not_to_have_count(0)
        told = [line.strip() for line in lines.all_inner_texts() if "instructions" in line]
        assert told == ["-    instructions: Help.", "+    instructions: Help all."]
        page.get_by_text("All settings").click()
        expect(page.get_by_role("region", name="In force")).to_contain_text("instructions: Help.")
    finally:
        path.write_text(in_force, encoding="utf-8")


def test_doctors_results_say_what_to_do(page: Page) -> None:
    page.get_by_role("link", name="Health").click()
    page.get_by_role("button", name="Run the checks", exact=True).click()
    results = page.get_by_role("region", name="Doctor").locator("li")
    expect(results.filter(has_text="state_dir")).to_contain_text("can be written")
    expect(results.filter(has_text="Twilio")).to_contain_text("What to do: set TWILIO_ACCOUNT_SID")


def test_where_no_calls_are_placed_it_says_what_to_set(page: Page) -> None:
    page.get_by_role("link", name="Outbound").click()
    expect(page.get_by_text("This server places no calls")).to_be_visible()
    expect(page.locator("main")).to_contain_text("outbound.enabled")
    expect(page.get_by_role("region", name="Do not call")).to_be_visible()


def test_what_was_shown_stays_while_the_server_is_unwell_or_gone(
    page: Page, context: BrowserContext
) -> None:
    cut = page.get_by_text("The live feed is cut")
    page.get_by_role("link", name="Health").click()
    shown = page.get_by_text("the offline engine", exact=True)
    expect(shown).to_be_visible()
    expect(cut).to_have_count(0)
    unwell = {"code": "store_unavailable", "detail": "The database does not answer"}
    page.route("**/api/v1/status", lambda route: route.fulfill(status=503, json=unwell))
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_role("alert")).to_contain_text("database does not answer")
    expect(shown).to_be_visible()
    page.unroute("**/api/v1/status")
    expect(page.get_by_role("alert")).to_have_count(0)  # asked again by itself
    context.set_offline(True)
    page.get_by_role("button", name="Refresh").click()
    expect(cut).to_be_visible()
    expect(shown).to_be_visible()  # what it knows stays
    page.get_by_role("link", name="Agents").click()
    expect(page.get_by_text("could not be loaded")).to_be_visible()
    context.set_offline(False)
    expect(cut).to_have_count(0)
    expect(page.get_by_role("heading", name="Agents and numbers")).to_be_visible()


def test_a_key_logs_in_and_out(browser: Browser, site: Site) -> None:
    context = browser.new_context()
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
    context.close()


@pytest.mark.parametrize(("scheme", "checked"), [("light", "wide"), ("dark", "phone")])
def test_everybody_can_use_each_view(page: Page, site: Site, scheme: str, checked: str) -> None:
    """No serious fault by axe, and nothing wider than the screen.

    Screenshots go to the folder CONSOLE_SCREENSHOTS, if it is set.
    """
    kept = os.environ.get("CONSOLE_SCREENSHOTS")
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.evaluate(AXE.read_text(encoding="utf-8"))  # once: an address of a view loads no page
    for view in VIEWS:
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            page.goto(f"{site.url}/console#/{view}")
            page.wait_for_selector("main h1")
            expect(page.get_by_text("Loading …")).to_have_count(0)
            across = "document.documentElement.scrollWidth - innerWidth"
            assert page.evaluate(across) <= 0, (view, size, "is wider than the screen")
            if size == checked:
                _check_with_axe(page, view)
            if kept:
                folder = Path(kept)
                folder.mkdir(parents=True, exist_ok=True)
                file = f"{re.split('[/?]', view)[0]}-{scheme}-{size}.png"
                page.screenshot(path=folder / file, full_page=True)


def _check_with_axe(page: Page, view: str) -> None:
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    faults = [
        (view, one["id"], one["nodes"][0]["html"])
        for one in result["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert not faults, json.dumps(faults, indent=1)
