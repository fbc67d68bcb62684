"""`make demo-outbound`: the server calls people and machines, with the offline engine's voice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.demo.callees import CALLEES
from tests.demo.outbound import BUSY, NOBODY, run_demo

pytestmark = pytest.mark.offline_speech


async def test_each_call_of_the_demo_is_printed_and_kept(tmp_path: Path) -> None:
    """Those that are over soonest; the verdicts of the others have a test of their own."""
    callees = [one for one in CALLEES if one.name in ("a mailbox with a beep", "a menu")]
    told: list[tuple[str, str]] = []
    shown = await run_demo(
        [*callees, BUSY, NOBODY],
        lambda party, words: told.append((party, words)),
        tmp_path,
        at_once=True,
    )
    assert all(one.ok for one in shown), [(one.callee.name, one.outcome) for one in shown]
    words = [words for party, words in told if party == "agent"]
    assert [text.partition(",")[0] for text in words] == [
        "Hello", "Please remember your appointment tomorrow at ten o'clock."
    ]  # fmt: skip
    verdicts = [words.partition(" ")[0] for party, words in told if party == "verdict"]
    assert sorted(verdicts) == ["ivr", "voicemail"]
    explained = [one.explained for one in shown]
    for text, word in zip(explained, ("voicemail", "ivr", "busy", "nobody"), strict=True):
        assert word in text.lower(), text
