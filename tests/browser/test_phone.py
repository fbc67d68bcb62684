"""The phone in the page: its sound in figures, and a call that is talked, cut and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio.g711 import decode_ulaw, encode_ulaw
from tests.browser.conftest import Launch, Site, open_page, spoken

PHONE = "window.trunklinePhone"


@pytest.fixture(scope="module")
def modules(launch: Launch, site: Site) -> Any:
    """A page in which the modules of the phone can be called."""
    return open_page(launch(None), site, "phone")


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


def test_a_call_is_talked_cut_off_hung_up_and_found_in_the_history(
    launch: Launch, site: Site, tmp_path: Path
) -> None:
    # The greeting, a question, words into its answer.
    caller = spoken(tmp_path / "caller.wav", 6.0, "hours", 2.5, "address", 60.0)
    page = open_page(launch(caller), site, "phone")
    page.get_by_role("button", name="Call", exact=True).click()
    turns = page.locator("ol.turns li")
    turns.filter(has_text="How can I help you").wait_for()
    # Until its words are known, the agent may still take what cut it off for a noise, and resume.
    turns.filter(has_text="Caller").nth(1).wait_for()
    page.locator("ol.turns del").first.wait_for()  # what it did not hear
    page.locator("ol.turns .wait").first.wait_for()
    figures = page.evaluate(f"({{ late: {PHONE}.underruns, id: {PHONE}.call.call_id }})")
    page.get_by_role("button", name="key 5").click()
    turns.filter(has_text="Key").wait_for()
    page.get_by_role("button", name="Hang up").click()
    page.get_by_text("Over: caller hung up").wait_for()
    page.get_by_role("link", name="See the call").click()
    page.locator("ol.turns del").first.wait_for()
    page.goto(f"{site.url}/console#/history")
    page.locator(f'a[href*="{figures["id"]}"]').first.wait_for()
    assert page.faults == []


def test_a_supervisor_listens_in_takes_a_call_over_and_hands_it_back(
    launch: Launch, site: Site, tmp_path: Path
) -> None:
    caller = open_page(launch(spoken(tmp_path / "caller.wav", 6.0, "hours", 90.0)), site, "phone")
    caller.get_by_role("button", name="Call", exact=True).click()
    caller.locator("ol.turns li").first.wait_for()
    call_id = caller.evaluate(f"{PHONE}.call.call_id")
    parts: list[str | float] = ["help", 0.3]
    words = spoken(tmp_path / "supervisor.wav", 1.0, *parts * 20)
    page = open_page(launch(words), site, f"call/{call_id}")
    page.get_by_role("button", name="Listen").click()
    heard = "window.trunklineListener.heard"
    until(page, f"{heard}[0] > 500 && {heard}[1] > 500")
    page.get_by_role("button", name="Take over").click()
    page.get_by_text("You speak to the caller").wait_for()
    until(caller, f"{PHONE}.levels.agent > 0.05")
    page.get_by_role("button", name="Hand back").click()
    page.get_by_text("You hear both sides").wait_for()
    caller.get_by_role("button", name="Hang up").click()
    caller.get_by_text("Over: caller hung up").wait_for()
    assert caller.faults == page.faults == []


def until(page: Any, holds: str) -> None:
    """Look every 50 ms; the driver's own way has the page evaluate text, which it must not."""
    for _ in range(1_200):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within 60 s: {holds}")
