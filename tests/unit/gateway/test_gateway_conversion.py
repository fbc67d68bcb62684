"""Formats of one session that differ from the upstream's, event by event."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from app.gateway.conversion import FORMATS, Conversion
from audio.format import PCM16_24K, PCMU_8K
from audio.transcoder import Transcoder

PCMU = {"type": "audio/pcmu"}
PCM = {"type": "audio/pcm", "rate": 24_000}
TONE = (8_000 * np.sin(np.arange(4_800) * 2 * np.pi * 440 / 24_000)).astype("<i2").tobytes()


def asked(conversion: Conversion, spec: Any, side: str = "output") -> Any:
    session = {"type": "realtime", "audio": {side: {"format": spec, "voice": "sage"}}}
    sent = conversion.to_upstream({"type": "session.update", "session": session})
    assert sent["session"]["audio"][side]["voice"] == "sage"
    return sent["session"]["audio"][side]["format"]


@pytest.mark.parametrize(
    ("has", "spec", "sent"),
    [
        (["pcm16"], PCMU, PCM),
        (["pcm16"], PCM, PCM),
        (["pcmu"], PCM, PCMU),
        (["pcma", "pcm16"], PCMU, {"type": "audio/pcma"}),
        (["pcm16", "pcma"], {"type": "audio/pcma"}, {"type": "audio/pcma"}),
        (["pcm16"], {"type": "audio/opus"}, {"type": "audio/opus"}),  # the upstream refuses it
        (["pcm16"], "g711_ulaw", "pcm16"),
        (["pcm16"], None, None),
        (["pcm16"], ["odd"], ["odd"]),
    ],
)
def test_the_upstream_is_asked_for_a_format_that_it_has(
    has: list[str], spec: Any, sent: Any
) -> None:
    assert asked(Conversion([FORMATS[name] for name in has]), spec) == sent


def test_the_client_hears_what_was_said_however_it_is_cut() -> None:
    conversion = Conversion([PCM16_24K])
    asked(conversion, PCMU)
    whole = Transcoder(PCM16_24K, PCMU_8K).push(TONE)
    heard = b""
    for start in range(0, len(TONE), 960):
        piece = base64.b64encode(TONE[start : start + 960]).decode()
        event = {"type": "response.output_audio.delta", "item_id": "item_1", "delta": piece}
        heard += base64.b64decode(json.loads(conversion.delta(json.dumps(event)))["delta"])
    assert heard == whole


def test_sound_in_items_is_converted_whole() -> None:
    conversion = Conversion([PCM16_24K])
    asked(conversion, PCMU, "input")
    said = base64.b64encode(Transcoder(PCM16_24K, PCMU_8K).push(TONE)).decode()
    item = {"type": "message", "content": [{"type": "input_audio", "audio": said}]}
    sent = conversion.to_upstream({"type": "conversation.item.create", "item": item})
    assert len(base64.b64decode(sent["item"]["content"][0]["audio"])) == len(TONE)
    told = {"type": "conversation.item.retrieved", "item": sent["item"]}
    back = json.loads(conversion.to_client(json.dumps(told)))
    assert len(base64.b64decode(back["item"]["content"][0]["audio"])) == len(TONE) // 6


@pytest.mark.parametrize(
    "event",
    [
        {"type": "input_audio_buffer.append"},
        {"type": "input_audio_buffer.append", "audio": 5},
        {"type": "input_audio_buffer.append", "audio": "no base64!"},
        {"type": "session.update", "session": None},
        {"type": "session.update", "session": {"audio": "odd"}},
        {"type": "response.create", "response": {"audio": {"output": "odd"}}},
        {"type": "conversation.item.create", "item": {"content": [None, {"type": "input_audio"}]}},
    ],
)
def test_what_cannot_be_read_is_left_to_the_upstream(event: dict[str, Any]) -> None:
    before = json.loads(json.dumps(event))
    sent = Conversion([PCMU_8K]).to_upstream(event)
    assert {key: value for key, value in sent.items() if value is not None} == {
        key: value for key, value in before.items() if value is not None
    }
    assert Conversion([PCMU_8K]).to_client("no json") == "no json"


def test_a_response_has_the_format_of_its_session() -> None:
    response = {"output_audio_format": "g711_ulaw", "audio": {"output": {"format": PCMU}}}
    sent = Conversion([PCM16_24K]).to_upstream({"type": "response.create", "response": response})
    assert sent["response"] == {"audio": {"output": {}}}
