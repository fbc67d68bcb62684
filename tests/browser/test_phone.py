"""The phone in the page: its sound in figures, and a call that is talked, cut and found again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from audio.g711 import decode_ulaw, encode_ulaw
from tests.browser.conftest import open_page, say, until
from tests.browser.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.offline_speech

PHONE = "window.trunklinePhone"


@pytest.fixture(scope="module")
def modules(context: BrowserContext, site: Site) -> Any:
    """A page in which the modules of the phone can be called."""
    return open_page(context, site, "phone")


def test_mu_law_is_the_servers(modules: Any) -> None:
    codes, levels = modules.evaluate("""async () => {
        const { encode, decode } = await import("/console/phone/mulaw.js");
        return [Array.from({ length: 65536 }, (_, n) => encode(n - 32768)),
                Array.from({ length: 256 }, (_, code) => decode(code))];
    }""")
    every = np.arange(-32768, 32768).astype(np.int16)
    assert bytes(codes) == encode_ulaw(every)
    assert levels == decode_ulaw(bytes(range(256))).tolist()


@pytest.mark.parametrize("from_hz", [16_000, 44_100, 48_000, 96_000])
def test_a_microphone_is_passed_up_to_3400_hz_and_what_would_fold_is_stopped(
    modules: Any, from_hz: int
) -> None:
    levels = levels_db(modules, from_hz, 8_000, [300, 1_000, 3_400, 4_700, 7_000])
    assert levels[:3] == pytest.approx([0, 0, 0], abs=0.1)
    assert max(levels[3:]) < -55


@pytest.mark.parametrize("to_hz", [44_100, 48_000])
def test_the_agent_is_heard_as_it_was_sent(modules: Any, to_hz: int) -> None:
    assert levels_db(modules, 8_000, to_hz, [300, 1_000, 3_400]) == pytest.approx([0] * 3, abs=0.1)


def levels_db(page: Any, from_hz: int, to_hz: int, tones_hz: list[int]) -> list[float]:
    """The levels of tones behind the resampler, which gets them in quanta of 128 samples."""
    found: list[float] = page.evaluate(
        """async ([from, to, tones]) => {
        const { Resampler } = await import("/console/phone/resampler.js");
        return tones.map((hz) => {
            const resampler = new Resampler(from, to);
            const out = [];
            for (let at = 0; at < from / 2; at += 128) {
                const quantum = Float32Array.from({ length: 128 }, (_, n) =>
                    Math.sin((2 * Math.PI * hz * (at + n)) / from));
                out.push(...resampler.push(quantum));
            }
            const steady = out.slice(out.length / 4, out.length * 0.75);
            const power = steady.reduce((sum, x) => sum + x * x, 0) / steady.length;
            return 10 * Math.log10(2 * power + 1e-12);
        });
    }""",
        [from_hz, to_hz, tones_hz],
    )
    return found


def test_a_queue_plays_in_time_returns_marks_where_they_stand_and_all_of_them_when_cleared(
    modules: Any,
) -> None:
    passed, cleared, after, underruns = modules.evaluate("""async () => {
        const { Playout, TARGET_MS } = await import("/console/phone/playout.js");
        const marks = [];
        let at = 0;
        const playout = new Playout((name) => marks.push([name, at]));
        const run = (ms) => { for (let n = 0; n < ms; n++) { playout.pull(8); at++; } };
        playout.mark("nothing before it");
        playout.push(new Uint8Array(8 * 200).fill(0x10));
        playout.mark("two hundred");
        run(1 + TARGET_MS + 700);
        const passed = marks.splice(0);
        playout.push(new Uint8Array(8 * 5000).fill(0x10));
        playout.mark("cleared");
        run(100);
        playout.clear();
        const cleared = marks.splice(0);
        const tail = playout.pull(8 * 20);
        const loud = tail.reduce((count, x) => count + (x !== 0), 0) / 8;
        playout.push(new Uint8Array(8 * 100).fill(0x10));
        run(150 + TARGET_MS);
        playout.push(new Uint8Array(8 * 100).fill(0x10));
        run(400);
        return [passed, cleared, loud, playout.underruns];
    }""")
    assert [name for name, _ in passed] == ["nothing before it", "two hundred"]
    assert 199 <= passed[1][1] <= 200 + 42  # behind its sound, and the wait before that
    assert [name for name, _ in cleared] == ["cleared"]
    assert 0 < after <= 8
    assert underruns == 1


def called(page: Page) -> Any:
    """A call from the page, once its greeting was heard; the lines of its transcript."""
    page.get_by_role("link", name="Phone").click()
    page.get_by_role("button", name="Call", exact=True).click()
    turns = page.locator("ol.turns li")
    turns.filter(has_text="How can I help you").wait_for()
    # Its words are there before their sound has ended, which would pass for the next answer's.
    until(page, f"{PHONE}.levels.agent < 0.01")
    return turns


def test_a_call_is_talked_cut_off_hung_up_and_found_in_the_history(page: Page, site: Site) -> None:
    turns = called(page)
    say(page, "hours")
    turns.filter(has_text="Caller").first.wait_for()
    until(page, f"{PHONE}.levels.agent > 0.05")  # it answers
    say(page, "address")
    page.locator("ol.turns del").first.wait_for()  # what was not heard
    page.locator("ol.turns .wait").first.wait_for()
    turns.filter(has_text="Caller").nth(1).wait_for()
    call_id = page.evaluate(f"{PHONE}.call.call_id")
    page.get_by_role("button", name="key 5").click()
    turns.filter(has_text="Key").wait_for()
    page.get_by_role("button", name="Hang up").click()
    page.get_by_text("Over: caller hung up").wait_for()
    page.get_by_role("link", name="See the call").click()
    page.locator("ol.turns del").first.wait_for()
    page.get_by_role("link", name="History").click()
    page.locator(f'a[href*="{call_id}"]').first.wait_for()


def test_a_supervisor_listens_in_takes_a_call_over_and_hands_it_back(
    page: Page, context: BrowserContext, site: Site
) -> None:
    called(page)
    call_id = page.evaluate(f"{PHONE}.call.call_id")
    supervisor = open_page(context, site, f"call/{call_id}")
    supervisor.get_by_role("button", name="Listen").click()
    supervisor.get_by_text("You hear both sides").wait_for()
    say(page, "hours")
    heard = "window.trunklineListener.heard"
    until(supervisor, f"{heard}[0] > 500 && {heard}[1] > 500")
    supervisor.get_by_role("button", name="Take over").click()
    supervisor.get_by_text("You speak to the caller").wait_for()
    until(page, f"{PHONE}.levels.agent < 0.01")
    say(supervisor, "help")
    until(page, f"{PHONE}.levels.agent > 0.05")
    supervisor.get_by_role("button", name="Hand back").click()
    supervisor.get_by_text("You hear both sides").wait_for()
    page.get_by_role("button", name="Hang up").click()
    page.get_by_text("Over: caller hung up").wait_for()
    assert supervisor.faults == []
    supervisor.close()
