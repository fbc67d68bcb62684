"""The carrier's end of a stream: order and counts of what it sends, and what it does with what
it gets.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from app.carrier.base import CallerAudio, CarrierCallId, Dtmf, MarkReached, StreamId, StreamStarted
from app.carrier.twilio.media import MediaProtocol, render_clear, render_mark, render_media
from app.dial.playout import MarkBack
from app.dial.stream import CarrierStream, StreamIdentity
from tests.fakes.caller import silence, tone

STREAM = StreamId("MZ" + "1" * 32)
IDENTITY = StreamIdentity(
    stream_id=STREAM,
    call_id=CarrierCallId("CA" + "2" * 32),
    account_id="AC" + "3" * 32,
    parameters={"token": "secret"},
)


def names(messages: list[str]) -> list[Any]:
    return [json.loads(message)["mark"]["name"] for message in messages]


def test_a_server_understands_everything_that_a_caller_sends() -> None:
    stream, server = CarrierStream(IDENTITY, 0), MediaProtocol()
    stream.player.say(tone(20))
    events = [server.receive(text) for text in stream.opening()]
    events += [server.receive(text) for text in stream.frame(20)]
    events.append(server.receive(stream.press("#")))
    stream.receive(render_media(STREAM, tone(20)), 20)
    stream.receive(render_mark(STREAM, "m1"), 20)
    events += [server.receive(text) for text in stream.frame(40)]
    events.append(server.receive(stream.stop()))
    started, audio, key, mark, more = events[1:6]
    assert isinstance(started, StreamStarted)
    assert started.parameters == {"token": "secret"}
    assert audio == CallerAudio(tone(20), 0)
    assert key == Dtmf("#")
    assert mark == MarkReached("m1")
    assert more == CallerAudio(silence(20), 20)
    assert server.counters.missing == server.counters.out_of_order == 0


def test_sequence_numbers_count_every_message_and_chunks_only_media() -> None:
    stream = CarrierStream(IDENTITY, 0)
    sent = [
        *stream.opening()[1:],
        *stream.frame(20),
        stream.press("1"),
        *stream.frame(40),
        stream.stop(),
    ]
    messages = [json.loads(text) for text in sent]
    assert [message["sequenceNumber"] for message in messages] == ["1", "2", "3", "4", "5"]
    assert [m["media"]["chunk"] for m in messages if m["event"] == "media"] == ["1", "2"]


def test_a_lost_frame_leaves_a_gap_in_the_timestamps() -> None:
    stream = CarrierStream(IDENTITY, 0)
    stream.frame(20)
    assert stream.frame(40, discard=True) == []
    media = json.loads(stream.frame(60)[0])["media"]
    assert (media["chunk"], media["timestamp"]) == ("2", "40")
    assert (stream.counters.frames_sent, stream.counters.frames_discarded) == (2, 1)


def test_marks_come_back_when_their_audio_has_been_played() -> None:
    stream = CarrierStream(IDENTITY, 0)
    assert stream.receive(render_media(STREAM, tone(100)), 0) == []
    assert stream.receive(render_mark(STREAM, "a"), 0) == []
    assert len(stream.frame(80)) == 1
    assert names(stream.frame(100)[:1]) == ["a"]


def test_a_mark_on_an_idle_line_comes_straight_back() -> None:
    assert names(CarrierStream(IDENTITY, 0).receive(render_mark(STREAM, "a"), 5)) == ["a"]


def test_marks_passed_while_other_messages_arrive_come_back_first() -> None:
    stream = CarrierStream(IDENTITY, 0)
    stream.receive(render_media(STREAM, tone(40)), 0)
    stream.receive(render_mark(STREAM, "a"), 0)
    assert names(stream.receive(render_mark(STREAM, "b"), 50)) == ["a", "b"]


def test_clear_brings_all_marks_back_and_silence_to_the_caller() -> None:
    stream = CarrierStream(IDENTITY, 0)
    for name in ("a", "b"):
        stream.receive(render_media(STREAM, tone(1_000)), 0)
        stream.receive(render_mark(STREAM, name), 0)
    stream.frame(300)
    assert stream.agent_audible(300)
    assert names(stream.receive(render_clear(STREAM), 310)) == ["a", "b"]
    assert not stream.agent_audible(320)
    assert stream.marks == [MarkBack("a", 310, cleared=True), MarkBack("b", 310, cleared=True)]
    assert (stream.clears[0].at_ms, stream.clears[0].discarded_ms) == (310, 1_690)
    assert stream.detector.last_audible_ms == 310


def test_the_silent_tail_of_an_answer_is_no_agent_speech() -> None:
    stream = CarrierStream(IDENTITY, 0)
    stream.receive(render_media(STREAM, tone(100) + silence(1_000)), 0)
    stream.frame(200)
    assert stream.agent_audible(200)
    stream.frame(500)
    assert not stream.agent_audible(500)


def test_both_sides_are_recorded_where_they_were_heard() -> None:
    class Tape:
        def __init__(self) -> None:
            self.caller: list[tuple[int, bytes]] = []
            self.agent: list[tuple[int, bytes]] = []

        def caller_audio(self, at_byte: int, ulaw: bytes) -> None:
            self.caller.append((at_byte, ulaw))

        def agent_audio(self, at_byte: int, ulaw: bytes) -> None:
            self.agent.append((at_byte, ulaw))

    tape = Tape()
    stream = CarrierStream(IDENTITY, 7_000, recorder=tape)
    stream.player.say(tone(20))
    stream.receive(render_media(STREAM, tone(10)), 7_013)
    stream.frame(7_020)
    stream.frame(7_040, discard=True)
    assert tape.caller == [(0, tone(20)), (160, silence(20))]
    assert b"".join(ulaw for _, ulaw in tape.agent) == tone(10)
    assert tape.agent[0][0] == 13 * 8


def media(payload: str, **extra: object) -> str:
    message = {"event": "media", "streamSid": STREAM, "media": {"payload": payload}, **extra}
    return json.dumps(message)


WAV_HEADER = base64.b64encode(b"RIFF\0\0\0\0WAVEfmt ").decode()


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        (b"\x00" * 160, "31950", "binary"),
        ("hello", "31951", "JSON"),
        ("[]", "31951", "object"),
        ('{"event": "audio"}', "31951", "audio"),
        (media("!!!"), "31951", "base64"),
        (media(WAV_HEADER), "31951", "header"),
        (media("AAAA", track="outbound"), "31951", "track"),
        (json.dumps({"event": "clear"}), "31951", "streamSid"),
        (json.dumps({"event": "clear", "stream_sid": STREAM}), "31951", "stream_sid"),
        (json.dumps({"event": "clear", "streamSid": "MZother"}), "31951", "MZother"),
        (json.dumps({"event": "mark", "streamSid": STREAM, "mark": {}}), "31951", "name"),
    ],
)
def test_every_broken_rule_of_a_server_is_kept(frame: str | bytes, code: str, words: str) -> None:
    stream = CarrierStream(IDENTITY, 1_000)
    assert stream.receive(frame, 1_250) == []
    (fault,) = stream.faults
    assert (fault.code, fault.at_ms) == (code, 250)
    assert words in fault.text
    assert stream.counters.media_received == 0


def test_more_than_ten_minutes_of_audio_are_a_fault() -> None:
    stream = CarrierStream(IDENTITY, 0)
    stream.receive(render_media(STREAM, b"\x10" * 4_800_000), 0)
    assert stream.faults == []
    stream.receive(render_media(STREAM, b"\x10" * 8_000), 0)
    assert stream.faults[0].code == "31931"
    assert "1000 ms" in stream.faults[0].text


def test_faults_are_counted_beyond_those_that_are_kept() -> None:
    stream = CarrierStream(IDENTITY, 0)
    for _ in range(150):
        stream.receive("?", 0)
    assert (len(stream.faults), stream.counters.faults) == (100, 150)


def test_no_telephone_has_that_key() -> None:
    with pytest.raises(ValueError, match="telephone key"):
        CarrierStream(IDENTITY, 0).press("x")
