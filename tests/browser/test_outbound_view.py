"""The console's view of placed calls in a real browser; the carrier and its phones are a test's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, until
from tests.integration.outbound_site import CALLEE, OPERATOR, OutboundSite, outbound_site

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

playwright = pytest.importorskip(
    "playwright.async_api", reason="the console is not tested: install playwright"
)
expect = playwright.expect
expect.set_options(timeout=TIME_LIMIT_S * 1000)

AXE = Path(__file__).with_name("axe") / "axe.min.js"
SCRIPT = '<img src=x onerror="window.ran=1">'
SIZES = {"wide": (1280, 800), "phone": (390, 844)}


@contextlib.asynccontextmanager
async def consoles(**sections: Any) -> AsyncIterator[tuple[OutboundSite, Browser]]:
    """A server that may place calls, and a browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the console is not tested: install chromium")
    replies = [Reply(audio_ms=300, text="Hello.")]
    async with (
        ScriptedVoiceServer(replies=replies) as voice,
        outbound_site(voice, **sections) as site,
        playwright.async_playwright() as driver,
    ):
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield site, browser
        finally:
            await browser.close()


async def opened(site: OutboundSite, browser: Browser, scheme: Any = "light") -> Page:
    """The view, by a page that has logged in and fails its test when its scripts fail."""
    page = await browser.new_page(color_scheme=scheme)
    page.set_default_timeout(TIME_LIMIT_S * 1000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.faults = faults  # type: ignore[attr-defined]
    await page.goto(f"{site.app.url}/console#/outbound")
    await page.get_by_label("API key").fill(OPERATOR)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="Outbound")).to_be_visible()
    return page


async def everybody_can_use(page: Page, name: str, *, checked: str) -> None:
    """No serious fault by axe, nothing wider than the screen; CONSOLE_SCREENSHOTS gets pictures."""
    kept = os.environ.get("CONSOLE_SCREENSHOTS")
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    for size, (width, height) in SIZES.items():
        await page.set_viewport_size({"width": width, "height": height})
        if size == checked:
            result = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            faults = [
                (one["id"], one["nodes"][0]["html"])
                for one in result["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert not faults, json.dumps(faults, indent=1)
        wider = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, (name, size, "is wider than the screen")
        if kept:
            await page.screenshot(path=Path(kept) / f"{name}-{size}.png", full_page=True)
    await page.set_viewport_size({"width": 1280, "height": 800})


async def test_a_call_is_placed_by_keyboard_rings_and_ends_and_a_refusal_says_why() -> None:
    async with consoles() as (site, browser):
        page = await opened(site, browser)
        await expect(page.get_by_text("No call was placed yet")).to_be_visible()
        await page.get_by_label("Number", exact=True).focus()
        await page.keyboard.type(CALLEE)
        for _ in range(3):  # the agent, the purpose, its variable
            await page.keyboard.press("Tab")
        await expect(page.get_by_label("name", exact=True)).to_be_focused()
        await page.keyboard.type(SCRIPT)
        await page.keyboard.press("Enter")
        link = page.get_by_role("link", name="see the call")
        await expect(link).to_be_visible()
        ringing = await site.rings()
        row = page.get_by_role("region", name="In progress").get_by_role("row").last
        await expect(row).to_contain_text("dialed")
        await site.phones.ring(ringing.sid)
        await expect(row).to_contain_text("rings")
        await expect(row).to_contain_text(SCRIPT)  # a variable, as text
        call = await site.answer(ringing)
        await expect(row).to_contain_text("talking")
        await site.gone(call)
        before = page.get_by_role("region", name="Placed before")
        await expect(before.get_by_role("row").last).to_contain_text("answered")

        await page.get_by_label("Number", exact=True).fill("+14155550124")
        await page.get_by_role("button", name="Call", exact=True).click()
        await site.ends(await site.rings(1), "busy", 486)
        await expect(before).to_contain_text("busy")

        await page.get_by_label("Number", exact=True).fill("911")
        await page.get_by_role("button", name="Call", exact=True).click()
        refused = page.get_by_role("region", name="Place a call").get_by_role("alert")
        said = (await site.place("911")).json()["detail"]
        await expect(refused).to_have_text(said)
        await everybody_can_use(page, "placed-light", checked="wide")

        busy = before.get_by_role("row").filter(has_text="busy")
        await busy.get_by_role("link").click()
        title = page.get_by_role("heading", name="Call to +14155550124")
        await expect(title).to_be_visible()
        await expect(page.locator("main")).to_contain_text("no conversation: the line was busy")
        await expect(page.get_by_role("button", name="Hang up")).to_have_count(0)
        placed = await site.placed()  # its page, before the history has it
        await page.goto(f"{site.app.url}/console#/call/{placed}")
        await expect(page.locator(".turns")).to_contain_text(f"{CALLEE} is called")
        await site.ends(await site.rings(2), "no-answer")
        await expect(page.locator("header.page")).to_contain_text("no answer")
        assert await page.evaluate("window.ran") is None
        assert page.faults == []  # type: ignore[attr-defined]


async def test_numbers_are_listed_and_a_campaign_is_made_started_and_canceled() -> None:
    async with consoles() as (site, browser):
        page = await opened(site, browser, "dark")
        listing = page.get_by_role("region", name="Do not call")
        await expect(listing).to_contain_text("Nobody is listed")
        await listing.get_by_label("Number never to call").fill("12")
        await listing.get_by_role("button", name="Never call").click()
        await expect(listing.get_by_role("alert")).to_be_visible()
        await listing.get_by_label("Number never to call").fill("+1 (415) 555-0125")
        await listing.get_by_label("Reason").fill(SCRIPT)
        await listing.get_by_role("button", name="Never call").click()
        await expect(listing.get_by_role("row")).to_contain_text(f"+14155550125{SCRIPT}")

        await expect(page.get_by_text("No campaigns yet")).to_be_visible()
        await page.get_by_text("New campaign", exact=True).click()
        form = page.get_by_role("form", name="New campaign")
        await form.get_by_label("Name").fill(SCRIPT)
        quoted = '"Ms.\nJones, ""Jo"""'  # a line break and commas within quotes
        rows = [f"+1415555{n},{quoted}" for n in ["0125", *range(2000, 3499)]]
        contacts = "\r\n".join(["number,name", *rows]).encode("utf-16")
        file = {"name": "contacts.csv", "mimeType": "text/csv", "buffer": contacts}
        await form.get_by_label("Contacts (CSV)").set_input_files(file)  # type: ignore[arg-type]
        await form.get_by_role("button", name="Make campaign").click()
        campaign = page.get_by_role("article", name=SCRIPT)
        await expect(campaign).to_contain_text("1500 waiting")
        await campaign.get_by_role("button", name="Start").click()
        await until(lambda: len(site.api.calls) >= 1)
        await expect(campaign).to_contain_text("1 refused")  # who is on the list
        await campaign.get_by_role("button", name="Pause").click()
        await expect(campaign.get_by_role("button", name="Resume")).to_be_visible()
        for sid in list(site.api.calls):
            await site.phones.end(sid, "busy", sip_code=486)
        await expect(campaign).to_contain_text("busy")
        bad = {"name": "bad.csv", "mimeType": "text/csv", "buffer": b"number\n0123\n"}
        await campaign.get_by_label("Add contacts").set_input_files(bad)  # type: ignore[arg-type]
        await expect(campaign.get_by_role("alert")).to_contain_text("line 2")
        content = "number,name\n+14155550126,Jürgen\n+14155550126,Jo\n".encode("cp1252")
        old = {"name": "old.csv", "mimeType": "text/csv", "buffer": content}
        await campaign.get_by_label("Add contacts").set_input_files(old)  # type: ignore[arg-type]
        await expect(campaign.get_by_role("alert")).to_contain_text("0xfc is not UTF-8")
        await campaign.get_by_label("Encoding").select_option("cp1252")
        await campaign.get_by_label("Add contacts").set_input_files(old)  # type: ignore[arg-type]
        await expect(campaign).to_contain_text("1 added, lines that repeat a number: 1")
        await everybody_can_use(page, "campaign-dark", checked="phone")
        await campaign.get_by_role("button", name="Cancel").click()
        await campaign.get_by_role("button", name="Really cancel?").click()
        await expect(campaign).to_contain_text("canceled")
        assert await page.evaluate("window.ran") is None
        assert page.faults == []  # type: ignore[attr-defined]
