"""All that the console is for, by keyboard alone, in a real browser; the carrier is a test's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.credentials.console_logins import Logins
from tests.browser.conftest import spoken
from tests.browser.site import SCRIPT
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S
from tests.integration.outbound_site import CALLEE, OURS, OutboundSite, outbound_site

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

playwright = pytest.importorskip(
    "playwright.async_api", reason="the console is not tested: install playwright"
)
expect = playwright.expect
expect.set_options(timeout=TIME_LIMIT_S * 1000)

MOST_TABS = 120
SECTIONS: dict[str, Any] = {
    "agents": {
        "caller": {
            "variables": {"name": "you"},
            "greeting": "Hello {name}!",
            "tools": ["find_slot", "book"],
        }
    },
    "tools": {
        "find_slot": {"python": "tests.browser.test_keyboard:find_slot"},
        "book": {"python": "tests.browser.test_keyboard:book", "approval": "operator"},
    },
    "numbers": {OURS: {"agent": "caller"}},
    "destinations": {"shop": {"number": "+12125550199"}},
    "recording": {"enabled": True, "notice": ""},
}


def find_slot(people: int) -> dict[str, int]:
    """Finds a free time."""
    return {"slot": people + 4}


def book(people: int) -> str:
    """Books a table."""
    return "booked"


class Keyboard:
    """A person without a mouse: they see where the focus is, and press keys."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def reach(self, wanted: Locator) -> None:
        """Press Tab until it has the focus, which shows."""
        await expect(wanted).to_be_visible()
        for _ in range(MOST_TABS):
            await self.page.keyboard.press("Tab")
            if await wanted.evaluate("one => one === document.activeElement"):
                ring = "one => one.matches(':focus-visible') && getComputedStyle(one).outlineStyle"
                assert await wanted.evaluate(ring) == "solid", "where is the focus?"
                return
        raise AssertionError(f"Tab does not reach {wanted}")

    async def press(self, wanted: Locator) -> None:
        await self.reach(wanted)
        await self.page.keyboard.press("Enter")
        # Nobody has to begin at the top again: the focus stays, or goes to what has replaced it.
        await expect(self.page.locator(":focus")).to_have_count(1)

    async def write(self, wanted: Locator, text: str) -> None:
        """Into a field; Enter does what the field is for."""
        await self.reach(wanted)
        await self.page.keyboard.type(text)
        await self.page.keyboard.press("Enter")

    async def go(self, view: str) -> None:
        """To a view, by its link on top."""
        await self.press(self.page.get_by_role("link", name=view, exact=True))


async def talk(keys: Keyboard) -> None:
    """A call of one's own: mute, keypad, hang up."""
    page = keys.page
    await keys.go("Phone")
    await keys.press(page.get_by_role("button", name="Call", exact=True))
    said = page.get_by_role("region", name="Transcript")
    await expect(said).to_contain_text("Hello you!")
    mute = page.get_by_role("button", name="Mute")
    await keys.press(mute)
    await expect(mute).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("m")
    await expect(mute).to_have_attribute("aria-pressed", "false")
    await keys.press(page.get_by_role("button", name="key 5"))
    await page.keyboard.press("7")
    await expect(said.locator(".key")).to_have_text([re.compile("5$"), re.compile("7$")])
    await keys.press(page.get_by_role("button", name="Hang up"))
    await keys.press(page.get_by_role("link", name="See the call"))
    await expect(page.locator("main")).to_be_focused()


async def find_and_play(keys: Keyboard) -> None:
    """The call in the history; its recording, a note, a tag."""
    page = keys.page
    await keys.go("History")
    await keys.write(page.get_by_label("Words that were said"), "hello")
    await keys.press(page.get_by_role("region", name="Found").get_by_role("link").first)
    place = page.get_by_role("slider")
    await keys.reach(place)
    await expect(place).to_have_attribute("aria-valuemax", re.compile("[1-9]"))
    await page.keyboard.press("End")
    await expect(place).to_have_attribute("aria-valuenow", re.compile("[1-9]"))
    await page.keyboard.press("Home")
    await page.keyboard.press("Space")
    await expect(page.locator("audio")).to_have_js_property("paused", False)
    await expect(page.locator(".turns li.now")).to_have_count(1)
    await keys.reach(page.get_by_label("A note", exact=True))
    await page.keyboard.type(SCRIPT)
    await keys.press(page.get_by_role("button", name="Add note"))
    await expect(page.get_by_text("console, ")).to_be_visible()  # who has written it
    await keys.write(page.get_by_label("Tags, with commas"), "vip")
    await expect(page.get_by_role("status").filter(has_text="done")).not_to_have_count(0)


async def try_a_tool(keys: Keyboard) -> None:
    """A tool, outside of any call."""
    page = keys.page
    await keys.go("Agents")
    await keys.press(page.locator("summary", has_text="find_slot"))
    form = page.get_by_role("form", name="Try find_slot")
    await keys.write(form.get_by_label("people"), "3")
    await expect(page.locator("details.tool pre")).to_contain_text('"slot": 7')


async def step_in(keys: Keyboard, site: OutboundSite) -> None:
    """A call that is placed, listened to, taken over, transferred and ended."""
    page = keys.page
    await keys.go("Outbound")
    await keys.write(page.get_by_label("Number", exact=True), CALLEE)
    call = await site.answer(await site.rings())
    await keys.press(page.get_by_role("link", name="see the call"))
    await keys.press(page.get_by_role("button", name="Listen", exact=True))
    await expect(page.get_by_text("You hear both sides")).to_be_visible()
    whisper = page.get_by_label("Words for the agent alone")
    await keys.write(whisper, "They are in a hurry")
    await expect(whisper).to_have_value("")
    await keys.press(page.get_by_role("button", name="Take over"))
    await expect(page.get_by_text("You speak to the caller")).to_be_visible()
    await keys.press(page.get_by_role("button", name="Hand back"))
    approval = page.get_by_role("group", name="Approval of book")
    await expect(approval).to_contain_text('{"people":3}')  # it speaks again, and wants to act
    await keys.press(approval.get_by_role("button", name="Approve"))
    await expect(page.locator(".turns")).to_contain_text("It is booked.")
    await keys.reach(page.get_by_label("Destination"))
    await page.keyboard.type("shop")
    site.api.redirected = lambda _: call.leave_stream()
    await keys.press(page.get_by_role("button", name="Transfer"))
    await expect(page.locator(".turns")).to_contain_text("transfer to")
    await keys.press(page.get_by_role("button", name="Hang up"))
    await page.keyboard.press("Enter")  # really
    await expect(page.locator("header.page")).to_contain_text("operator hung up")


async def test_all_that_the_console_is_for_is_done_by_keyboard_alone(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the console is not tested: install chromium")
    microphone = spoken(tmp_path / "caller.wav", 60.0, "hours")
    arguments = [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    ]
    replies = [
        Reply(audio_ms=300, text=f"Hello you! {SCRIPT}"),
        Reply(audio_ms=300, text="One moment.", tool=("book", '{"people": 3}')),
        Reply(audio_ms=300, text="It is booked."),
    ]
    async with (
        ScriptedVoiceServer(replies=replies) as voice,
        outbound_site(voice, **SECTIONS) as site,
        playwright.async_playwright() as driver,
        await driver.chromium.launch(executable_path=chromium, args=arguments) as browser,
    ):
        page = await browser.new_page()
        page.set_default_timeout(TIME_LIMIT_S * 1000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        keys = Keyboard(page)
        link = Logins(site.app.settings.state_dir).make_link()
        await page.goto(f"{site.app.url}/console#login={link}")
        await expect(page.get_by_text("Nobody is on the phone")).to_be_visible()

        await keys.press(page.get_by_text("Skip to the content"))
        await expect(page.locator("main")).to_be_focused()
        await talk(keys)
        site.seen.clear()  # of an inbound call no disclosure is asked
        await find_and_play(keys)
        await try_a_tool(keys)
        await step_in(keys, site)
        await keys.press(page.get_by_role("button", name="Log out"))
        await expect(page.get_by_label("API key")).to_be_visible()
        assert await page.evaluate("window.ran") is None
        assert faults == []
