"""Live answers whose texts hold what no socket can carry, as words from Python may."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from app.calls.observers.live_feed import FeedEntry
from app.events import CallerSaid, CallEvent, CallId
from app.web.api.feed import _text
from app.web.transcript import _lines

ODD = pytest.mark.parametrize("odd", ["\0", "\ud800", "\udc00", "\n", "\u2028"], ids=ascii)


@ODD
def test_the_feed_goes_on(odd: str) -> None:
    sent = _text(FeedEntry("1", 1, {"type": "caller_said", "text": f"Hello {odd}"})).encode()
    *_, data, _, _ = sent.split(b"\n")
    assert json.loads(data.removeprefix(b"data: "))["text"][:6] == "Hello "


@ODD
async def test_a_live_transcript_goes_on(odd: str) -> None:
    async def events() -> AsyncIterator[CallEvent]:
        for text in (f"Hello {odd}", "Goodbye"):
            yield CallerSaid(call_id=CallId("call_1"), at_ms=1, item_id="item_1", text=text)

    sent = b"".join([line.encode() async for line in _lines(events())])
    assert [json.loads(line)["text"][:6] for line in sent.splitlines()] == ["Hello ", "Goodby"]
