"""The server's side of Media Streams: order, shapes, surprises, and what is written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from app.carrier.base import (
    CallerAudio,
    CarrierCallId,
    Dtmf,
    MarkReached,
    StreamId,
    StreamStarted,
    StreamStopped,
)
from app.carrier.twilio.media import (
    MAX_MESSAGE_CHARS,
    MAX_PAYLOAD_BYTES,
    MESSAGE_TOO_LARGE,
    SECOND_START,
    MediaProtocol,
    MediaState,
    Unknown,
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
from app.errors import LocalProtocolError, RemoteProtocolError
from audio.format import PCMU_8K

STREAM = StreamId("MZ00aa")
CALL = CarrierCallId("CA00")
FRAME = b"\x7f" * 160


def started() -> MediaProtocol:
    protocol = MediaProtocol()
    assert protocol.receive(render_connected()) is None
    start = render_start(STREAM, CALL, account_id="AC00", parameters={"token": "abc"})
    assert isinstance(protocol.receive(start), StreamStarted)
    return protocol


def media(number: int, **changes: Any) -> str:
    """Frame `number`, from 1; `changes` replace top fields, or those inside `media`."""
    text = render_caller_media(
        STREAM, FRAME, sequence=number + 1, chunk=number, timestamp_ms=(number - 1) * 20
    )
    message = json.loads(text)
    for name, value in changes.items():
        (message if name in message else message["media"])[name] = value
    return json.dumps(message)


def start_with(**changes: Any) -> str:
    message = json.loads(render_start(STREAM, CALL, account_id="AC00", parameters={}))
    for name, value in changes.items():
        (message if name in message and name != "streamSid" else message["start"])[name] = value
    return json.dumps(message)


def test_a_stream_goes_from_connected_to_stop() -> None:
    protocol = MediaProtocol()
    states = [protocol.state]
    assert protocol.receive(render_connected()) is None
    states.append(protocol.state)
    event = protocol.receive(
        render_start(STREAM, CALL, account_id="AC00", parameters={"token": "abc"})
    )
    assert event == StreamStarted(
        stream_id=STREAM,
        carrier_call_id=CALL,
        account_id="AC00",
        audio_format=PCMU_8K,
        parameters={"token": "abc"},
    )
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)
    assert protocol.receive(media(2)) == CallerAudio(FRAME, 20)
    assert protocol.receive(render_dtmf(STREAM, "#", sequence=4)) == Dtmf("#")
    assert protocol.receive(render_mark_reached(STREAM, "1:a", sequence=5)) == MarkReached("1:a")
    stop = render_stop(STREAM, CALL, account_id="AC00", sequence=6)
    states.append(protocol.state)
    assert protocol.receive(stop) == StreamStopped(hung_up=True)
    assert [*states, protocol.state] == ["new", "connected", "started", "stopped"]
    assert protocol.counters.media == 2
    assert protocol.counters.missing == protocol.counters.out_of_order == 0


def test_the_documented_samples_are_read_as_they_are() -> None:
    protocol = MediaProtocol()
    samples = [
        '{"event":"connected","protocol":"Call","version":"1.0.0"}',
        '{"event":"start","sequenceNumber":"1","streamSid":"MZ00aa","start":{"accountSid":"AC00",'
        '"callSid":"CA00","streamSid":"MZ00aa","tracks":["inbound"],"mediaFormat":{"encoding":'
        '"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{"agent":"reception"}}}',
        '{"event":"media","sequenceNumber":"4","streamSid":"MZ00aa","media":{"track":"inbound",'
        '"chunk":"3","timestamp":"60","payload":"//7+/w=="}}',
        '{"event":"dtmf","sequenceNumber":"90","streamSid":"MZ00aa",'
        '"dtmf":{"track":"inbound_track","digit":"5"}}',
        '{"event":"mark","sequenceNumber":"131","streamSid":"MZ00aa","mark":{"name":"item_7:2"}}',
        '{"event":"stop","sequenceNumber":"900","streamSid":"MZ00aa",'
        '"stop":{"accountSid":"AC00","callSid":"CA00"}}',
    ]
    events = [protocol.receive(sample) for sample in samples]
    assert events[2:] == [
        CallerAudio(b"\xff\xfe\xfe\xff", 60),
        Dtmf("5"),
        MarkReached("item_7:2"),
        StreamStopped(hung_up=True),
    ]


@pytest.mark.parametrize("number", ["4", 4])
def test_counts_may_be_strings_or_numbers(number: object) -> None:
    assert started().receive(media(1, sequenceNumber=number)) == CallerAudio(FRAME, 0)


@pytest.mark.parametrize(
    "text",
    [
        media(1),
        render_dtmf(STREAM, "1", sequence=1),
        render_mark_reached(STREAM, "m", sequence=1),
        media(1, streamSid=""),
    ],
)
def test_nothing_of_a_stream_may_come_before_start(text: str) -> None:
    protocol = MediaProtocol()
    protocol.receive(render_connected())
    with pytest.raises(RemoteProtocolError, match="before start"):
        protocol.receive(text)
    assert protocol.state is MediaState.CONNECTED


def test_start_before_connected_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="before connected"):
        MediaProtocol().receive(start_with())


def test_a_second_start_is_refused_and_the_stream_stays_as_it_was() -> None:
    protocol = started()
    with pytest.raises(RemoteProtocolError, match="second start") as caught:
        protocol.receive(start_with(callSid="CA99"))
    assert caught.value.code == SECOND_START
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)


def test_a_repeated_connected_is_counted_and_ignored() -> None:
    protocol = started()
    assert protocol.receive(render_connected()) is None
    assert protocol.counters.ignored == 1
    assert protocol.state is MediaState.STARTED


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaFormat": {"encoding": "audio/x-alaw", "sampleRate": 8000, "channels": 1}},
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}},
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2}},
        {"mediaFormat": None},
        {"tracks": ["outbound"]},
        {"tracks": "inbound"},
        {"callSid": ""},
        {"callSid": 'CA"0'},
        {"accountSid": "AC 0\n"},
        {"streamSid": "MZother"},
        {"streamSid": "x" * 65},
        {"customParameters": {"token": 5}},
        {"customParameters": []},
        {"start": None},
        {"sequenceNumber": "one"},
    ],
)
def test_a_start_that_is_not_right_does_not_start(changes: dict[str, Any]) -> None:
    protocol = MediaProtocol()
    protocol.receive(render_connected())
    with pytest.raises(RemoteProtocolError):
        protocol.receive(start_with(**changes))
    assert protocol.state is MediaState.CONNECTED
    assert isinstance(protocol.receive(start_with()), StreamStarted)


def test_a_start_without_parameters_has_none() -> None:
    protocol = MediaProtocol()
    protocol.receive(render_connected())
    message = json.loads(start_with())
    del message["start"]["customParameters"], message["streamSid"]
    event = protocol.receive(json.dumps(message))
    assert isinstance(event, StreamStarted)
    assert event.parameters == {}


@pytest.mark.parametrize(
    "text",
    [
        media(1, streamSid="MZother"),
        media(1, streamSid=""),
        media(1, streamSid=None),
        media(1, payload="@@@@"),
        media(1, payload="AAA"),
        media(1, payload="AA\nA="),
        media(1, payload=5),
        media(1, timestamp="-20"),
        media(1, timestamp="20.5"),
        media(1, timestamp="0x14"),
        media(1, timestamp=" 20"),
        media(1, timestamp=True),
        media(1, timestamp=str(2**60)),
        media(1, chunk="first"),
        media(1, sequenceNumber=[]),
        media(1, media="sound"),
        media(1, track=1),
        '{"event":"media","streamSid":"MZ00aa"}',
        '{"event":"mark","streamSid":"MZ00aa","mark":{}}',
        '{"event":"mark","streamSid":"MZother","mark":{"name":"m"}}',
        '{"event":"dtmf","streamSid":"MZ00aa","dtmf":{"digit":"12"}}',
        '{"event":"dtmf","streamSid":"MZ00aa","dtmf":{"digit":""}}',
        '{"event":"dtmf","streamSid":"MZ00aa","dtmf":{"digit":"E"}}',
        '{"event":"stop","streamSid":"MZother"}',
        '{"event":"stop"}',
        '{"event":3}',
        '{"event":null}',
        "{}",
        "[]",
        "null",
        '"media"',
        "",
        "{",
        media(1) + "x",
        "[" * 50_000,
        '{"event":"media","x":' + "[" * 50_000,
        '{"a":' * 10_000,
        "\ud800",
        '{"event":"\udfff"}',
    ],
)
def test_malformed_messages_are_refused_and_change_nothing(text: str) -> None:
    protocol = started()
    with pytest.raises(RemoteProtocolError) as caught:
        protocol.receive(text)
    assert len(caught.value.message) < 300
    assert protocol.state is MediaState.STARTED
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)
    assert protocol.counters.missing == 0


def test_an_error_does_not_repeat_the_peers_words() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        started().receive('{"event":"dtmf","streamSid":"MZ00aa","dtmf":{"digit":"4929555"}}')
    assert "4929" not in str(caught.value)


def test_a_payload_may_hold_8_kib_and_not_one_byte_more() -> None:
    most = base64.b64encode(bytes(MAX_PAYLOAD_BYTES)).decode()
    assert started().receive(media(1, payload=most)) == CallerAudio(bytes(MAX_PAYLOAD_BYTES), 0)
    more = base64.b64encode(bytes(MAX_PAYLOAD_BYTES + 1)).decode()
    with pytest.raises(RemoteProtocolError) as caught:
        started().receive(media(1, payload=more))
    assert caught.value.code == MESSAGE_TOO_LARGE


def test_a_message_may_not_be_larger_than_its_limit() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        started().receive(" " * (MAX_MESSAGE_CHARS + 1))
    assert caught.value.code == MESSAGE_TOO_LARGE


def test_after_stop_everything_is_ignored() -> None:
    protocol = started()
    protocol.receive(render_stop(STREAM, CALL, account_id="AC00", sequence=2))
    late = [media(1), start_with(), "not json", " " * 100_000, render_connected()]
    assert [protocol.receive(text) for text in late] == [None] * 5
    assert protocol.counters.ignored == 5
    assert protocol.state is MediaState.STOPPED


def test_a_stop_before_start_ends_the_stream() -> None:
    protocol = MediaProtocol()
    protocol.receive(render_connected())
    stop = render_stop(STREAM, CALL, account_id="AC00", sequence=1)
    assert protocol.receive(stop) == StreamStopped(hung_up=True)


def test_unknown_events_are_counted_and_named() -> None:
    protocol = started()
    assert protocol.receive('{"event":"weather","streamSid":"MZ00aa"}') == Unknown("weather")
    assert protocol.receive(json.dumps({"event": "x" * 500})) == Unknown("x" * 40)
    assert protocol.counters.unknown == 2
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)


def test_a_duplicate_chunk_is_dropped() -> None:
    protocol = started()
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)
    assert protocol.receive(media(1)) is None
    assert protocol.receive(media(2)) == CallerAudio(FRAME, 20)
    assert protocol.receive(media(1)) is None
    assert protocol.counters.duplicates == 2
    assert protocol.counters.media == 2
    assert protocol.counters.out_of_order == 2


def test_a_carrier_that_does_not_count_chunks_is_heard_all_the_same() -> None:
    protocol = started()
    frames = [media(number, chunk="1") for number in range(1, 6)]
    assert all(isinstance(protocol.receive(frame), CallerAudio) for frame in frames)


def test_holes_in_the_sequence_are_counted_by_their_size() -> None:
    protocol = started()
    for number in (1, 2, 5, 6, 16):
        protocol.receive(media(number))
    assert protocol.counters.missing == 2 + 9
    assert protocol.counters.media == 5


def test_the_agents_own_track_and_empty_payloads_are_ignored() -> None:
    protocol = started()
    assert protocol.receive(media(1, track="outbound")) is None
    assert protocol.receive(media(2, payload="")) is None
    assert protocol.counters.ignored == 2


def test_keys_are_read_in_either_case() -> None:
    keys = "0123456789*#ABCDabcd"
    protocol = started()
    events = [protocol.receive(render_dtmf(STREAM, key, sequence=0)) for key in keys]
    assert events == [Dtmf(key.upper()) for key in keys]


def test_sent_messages_have_exactly_the_fields_that_twilio_wants() -> None:
    assert json.loads(render_media(STREAM, b"\xff\x00")) == {
        "event": "media",
        "streamSid": "MZ00aa",
        "media": {"payload": "/wA="},
    }
    assert json.loads(render_mark(STREAM, "1:item:20")) == {
        "event": "mark",
        "streamSid": "MZ00aa",
        "mark": {"name": "1:item:20"},
    }
    assert json.loads(render_clear(STREAM)) == {"event": "clear", "streamSid": "MZ00aa"}


def test_names_and_ids_cannot_break_out_of_a_message() -> None:
    name = 'a"},"event":"clear\\ \u2028é\n'
    assert json.loads(render_mark(StreamId('MZ"\\'), name)) == {
        "event": "mark",
        "streamSid": 'MZ"\\',
        "mark": {"name": name},
    }


def test_messages_that_twilio_would_reject_are_our_own_error() -> None:
    with pytest.raises(LocalProtocolError):
        render_media(STREAM, b"")
    with pytest.raises(LocalProtocolError):
        render_mark(STREAM, "")
    with pytest.raises(LocalProtocolError):
        render_clear(StreamId(""))
