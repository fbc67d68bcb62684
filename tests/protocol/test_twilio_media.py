"""Media Streams under fire: any text, any order, and both halves against each other."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.calls.media.uplink import Uplink
from app.carrier.base import CallerAudio, CarrierCallId, Dtmf, MarkReached, StreamId, StreamStopped
from app.carrier.twilio.media import (
    Clear,
    MediaProtocol,
    MediaState,
    SendMark,
    SendMedia,
    parse_server_message,
    render_caller_media,
    render_clear,
    render_connected,
    render_dtmf,
    render_mark,
    render_mark_reached,
    render_media,
    render_start,
    render_stop,
)
from app.errors import RemoteProtocolError
from app.events import CallCounters
from audio.format import PCMU_8K
from tests.fakes.stress import few_or

STREAM = StreamId("MZ00aa")
CALL = CarrierCallId("CA00")
PRELUDE = [render_connected(), render_start(STREAM, CALL, account_id="AC00", parameters={})]

GONE = object()
scalars = st.sampled_from(
    [None, True, -1, 0, 7.5, 2**70, "", "x", "-1", "7.5", "1e3", "AA==", "*", [], [1], {}, {"a": 1}]
)
json_values = st.recursive(
    scalars | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)
seeds = st.integers(0, 2**32)
names = st.sampled_from(
    [
        "event",
        "streamSid",
        "sequenceNumber",
        "media",
        "start",
        "mark",
        "dtmf",
        "stop",
        "payload",
        "timestamp",
        "chunk",
        "track",
        "digit",
        "name",
        "mediaFormat",
        "tracks",
        "callSid",
    ]
)


def conversation() -> list[str]:
    """One valid stream of 500 frames with keys and marks in it, each message once."""
    messages = list(PRELUDE)
    for number in range(1, 501):
        sequence = len(messages)
        if number % 100 == 0:
            messages.append(render_dtmf(STREAM, "5", sequence=sequence))
            messages.append(render_mark_reached(STREAM, f"m{number}", sequence=sequence + 1))
            sequence += 2
        frame = bytes([number % 256]) * 160
        messages.append(
            render_caller_media(
                STREAM, frame, sequence=sequence, chunk=number, timestamp_ms=(number - 1) * 20
            )
        )
    messages.append(render_stop(STREAM, CALL, account_id="AC00", sequence=len(messages)))
    return messages


MESSAGES = conversation()
SHAPES = [json.loads(MESSAGES[place]) for place in (0, 1, 2, 101, 102, -1)]


def feed(protocol: MediaProtocol, text: str) -> object:
    """The protocol's result, or its one allowed error; anything else fails the test."""
    try:
        return protocol.receive(text)
    except RemoteProtocolError as error:
        return error


def started() -> MediaProtocol:
    protocol = MediaProtocol()
    for text in PRELUDE:
        protocol.receive(text)
    return protocol


@settings(max_examples=few_or(100, 500), deadline=None)
@given(st.text(max_size=300) | json_values.map(json.dumps))
def test_only_protocol_errors_leave_for_any_text(text: str) -> None:
    for protocol in (MediaProtocol(), started()):
        feed(protocol, text)
        assert protocol.state in (MediaState.NEW, MediaState.CONNECTED, MediaState.STARTED)


@settings(max_examples=few_or(150, 1_000), deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.lists(st.tuples(names, st.just(GONE) | scalars, st.booleans()), min_size=1, max_size=3),
)
def test_only_protocol_errors_leave_for_messages_with_wrong_fields(
    shape: dict[str, Any], changes: list[tuple[str, object, bool]]
) -> None:
    message = json.loads(json.dumps(shape))
    for name, value, deep in changes:
        inner = [part for part in message.values() if isinstance(part, dict)]
        target = inner[-1] if deep and inner else message
        target[name] = None if value is GONE else json.loads(json.dumps(value))
        if value is GONE:
            del target[name]
    for protocol in (MediaProtocol(), started()):
        feed(protocol, json.dumps(message))


@settings(max_examples=few_or(150, 1_000), deadline=None)
@given(st.sampled_from([MESSAGES[place] for place in (0, 1, 2, 101, 102, -1)]), st.data())
def test_only_protocol_errors_leave_for_messages_with_wrong_characters(
    text: str, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 3))
        text = text[:place] + data.draw(st.text(max_size=3)) + text[place + cut :]
    feed(started(), text)


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0, 0.3), st.floats(0, 0.3))
def test_lost_and_doubled_messages_neither_crash_nor_double_the_sound(
    seed: int, loss: float, doubling: float
) -> None:
    chance = random.Random(seed)
    sent = [text for text in MESSAGES[2:] if chance.random() >= loss]
    arrived = [text for text in sent for _ in range(2 if chance.random() < doubling else 1)]
    protocol = started()
    sound = [event for text in arrived if isinstance(event := protocol.receive(text), CallerAudio)]
    unique = [text for text in sent if '"media"' in text]
    assert len(sound) == len(unique)
    stamps = [event.timestamp_ms for event in sound]
    assert stamps == sorted(set(stamps))
    assert protocol.counters.duplicates == sum(1 for text in arrived if '"media"' in text) - len(
        sound
    )


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_messages_in_any_order_never_sound_twice(seed: int) -> None:
    shuffled = list(MESSAGES)
    random.Random(seed).shuffle(shuffled)
    protocol = MediaProtocol()
    events = [feed(protocol, text) for text in shuffled]
    stamps = [event.timestamp_ms for event in events if isinstance(event, CallerAudio)]
    assert len(stamps) == len(set(stamps))
    assert sum(1 for event in events if isinstance(event, StreamStopped)) == 1
    assert protocol.state is MediaState.STOPPED


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_frames_in_any_order_never_sound_twice_within_a_stream(seed: int) -> None:
    shuffled = MESSAGES[2:-1]
    random.Random(seed).shuffle(shuffled)
    protocol = started()
    events = [protocol.receive(text) for text in shuffled]
    stamps = [event.timestamp_ms for event in events if isinstance(event, CallerAudio)]
    assert len(stamps) == len(set(stamps))
    assert protocol.counters.media + protocol.counters.duplicates == 500
    assert sum(1 for event in events if isinstance(event, Dtmf | MarkReached)) == 10


@given(st.binary(min_size=1, max_size=2_000), st.text(min_size=1, max_size=80))
def test_what_the_server_writes_the_carrier_reads(payload: bytes, name: str) -> None:
    payload = b"\xff" + payload  # so that it does not begin like a file
    assert parse_server_message(render_media(STREAM, payload), STREAM) == SendMedia(payload)
    if name.isprintable():  # a socket cannot carry a lone surrogate
        assert parse_server_message(render_mark(STREAM, name), STREAM) == SendMark(name)
    assert parse_server_message(render_clear(STREAM), STREAM) == Clear()


@given(
    st.binary(min_size=1, max_size=2_000),
    st.integers(0, 10**9),
    st.sampled_from("0123456789*#ABCD"),
    st.text(max_size=80),
    st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5),
)
def test_what_the_carrier_writes_the_server_reads(
    payload: bytes, at_ms: int, digit: str, name: str, parameters: dict[str, str]
) -> None:
    protocol = MediaProtocol()
    protocol.receive(render_connected())
    started = protocol.receive(render_start(STREAM, CALL, account_id="AC00", parameters=parameters))
    assert getattr(started, "parameters", None) == parameters
    media = render_caller_media(STREAM, payload, sequence=2, chunk=1, timestamp_ms=at_ms)
    assert protocol.receive(media) == CallerAudio(payload, at_ms)
    assert protocol.receive(render_dtmf(STREAM, digit, sequence=3)) == Dtmf(digit)
    assert protocol.receive(render_mark_reached(STREAM, name, sequence=4)) == MarkReached(name)


@settings(max_examples=few_or(100, 500), deadline=None)
@given(st.text(max_size=200) | json_values.map(json.dumps) | st.binary(max_size=50))
def test_the_carrier_reads_anything_or_names_a_fault(frame: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_server_message(frame, STREAM)
    assert caught.value.code in ("31950", "31951")


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0, 0.3), st.floats(0, 0.3), st.sampled_from([0, 3, 500]))
def test_what_the_model_hears_is_as_long_as_the_timeline(
    seed: int, loss: float, doubling: float, disorder: int
) -> None:
    chance = random.Random(seed)
    sent = [text for text in MESSAGES[2:-1] if chance.random() >= loss]
    arrived = [text for text in sent for _ in range(2 if chance.random() < doubling else 1)]
    places = {at: at + chance.uniform(0, disorder) for at in range(len(arrived))}
    protocol = started()
    uplink = Uplink(PCMU_8K, PCMU_8K, CallCounters())
    heard_bytes = 0
    stamps = []
    for at in sorted(places, key=places.__getitem__):
        event = protocol.receive(arrived[at])
        if isinstance(event, CallerAudio):
            heard_bytes += len(uplink.push(event.payload, event.timestamp_ms, event.timestamp_ms))
            stamps.append(event.timestamp_ms)
    timeline_ms = stamps[-1] + 20 - stamps[0]
    assert abs(PCMU_8K.bytes_to_ms(heard_bytes) - timeline_ms) <= 20
