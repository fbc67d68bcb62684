"""Whole dialogues as the vendor's documentation has them, line by line through both sides.

A line of `data/realtime_*.jsonl` names the sender, the event that we read it as, and the message.
Servers' messages hold fields that we have no name for; clients' are exactly what we would write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.realtime import events as ev
from app.realtime.dialect import BETA, GA, Dialect
from app.realtime.protocol import RealtimeProtocol, ResponseGate, Side
from audio.format import PCMU_8K

DATA = Path(__file__).parent / "data"
DIALOGUES = sorted(DATA.glob("realtime_*.jsonl"))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _dialect(path: Path) -> Dialect:
    return BETA if "beta" in path.name else GA


def _read(path: Path) -> list[Any]:
    dialect = _dialect(path)
    return [
        (dialect.decode_server if line["from"] == "server" else dialect.decode_client)(
            json.dumps(line["wire"])
        )
        for line in _lines(path)
    ]


@pytest.fixture(params=DIALOGUES, ids=lambda path: path.stem)
def dialogue(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def test_there_are_dialogues() -> None:
    assert len(DIALOGUES) == 3


def test_every_line_is_read_as_its_event(dialogue: Path) -> None:
    expected = [line["is"] for line in _lines(dialogue)]
    assert [type(event).__name__ for event in _read(dialogue)] == expected


def test_client_lines_are_written_exactly(dialogue: Path) -> None:
    client = RealtimeProtocol(Side.CLIENT, _dialect(dialogue))
    for line, event in zip(_lines(dialogue), _read(dialogue), strict=True):
        if line["from"] == "server":
            client.receive(json.dumps(line["wire"]))
        else:
            assert json.loads(client.send(event)) == line["wire"]
            assert client.last_event_id == line["wire"]["event_id"]


def test_server_lines_keep_their_meaning_when_written_again(dialogue: Path) -> None:
    server = RealtimeProtocol(Side.SERVER, _dialect(dialogue))
    for line, event in zip(_lines(dialogue), _read(dialogue), strict=True):
        if line["from"] == "server":
            assert _dialect(dialogue).decode_server(server.send(event)) == event


def test_the_gate_is_free_after_every_dialogue(dialogue: Path) -> None:
    gate = ResponseGate()
    for event in _read(dialogue):
        match event:
            case ev.ResponseCreate(event_id=event_id):
                gate.request(event_id, 0)
            case ev.ResponseCreated(response=response):
                gate.on_created(response.id)
            case ev.ResponseDone(response=response):
                gate.on_done(response.id)
            case ev.ErrorEvent(error=error):
                gate.on_error(error.client_event_id, error.code)
            case _:
                pass
    assert not gate.busy


def test_the_confirmed_session_is_read_whole() -> None:
    events = _read(DATA / "realtime_ga_spoken_turn.jsonl")
    session = next(event.session for event in events if isinstance(event, ev.SessionUpdated))
    assert (session.id, session.expires_at) == ("sess_C1", 1_790_000_000)
    assert (session.input_format, session.output_format) == (PCMU_8K, PCMU_8K)
    assert session.voice == "cedar"
    assert session.noise_reduction is None
    assert session.transcription == ev.Transcription(model="whisper-1")
    assert session.turn_detection == ev.ServerVad(
        threshold=0.6, prefix_padding_ms=200, silence_duration_ms=300
    )
    assert session.parallel_tool_calls is ev.UNSET


def test_usage_is_read_by_billing_class() -> None:
    events = _read(DATA / "realtime_ga_spoken_turn.jsonl")
    done = events[-1]
    assert isinstance(done, ev.ResponseDone)
    assert done.response.usage == ev.Usage(
        total_tokens=253,
        input_tokens=132,
        output_tokens=121,
        input_text_tokens=119,
        input_audio_tokens=13,
        cached_tokens=64,
        cached_text_tokens=64,
        output_text_tokens=30,
        output_audio_tokens=91,
    )


def test_a_failed_response_says_why() -> None:
    events = _read(DATA / "realtime_ga_tool_and_barge_in.jsonl")
    failed = [
        event.response.error
        for event in events
        if isinstance(event, ev.ResponseDone) and event.response.status is ev.ResponseStatus.FAILED
    ]
    assert [error.code for error in failed if error] == ["insufficient_quota"]
