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
    MAX_PAYLOAD_MS,
    MEDIA_FORMAT,
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
from audio.format import PCM16_8K, PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat

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
def test_nothing_of_a_stream_counts_before_start(text: str) -> None:
    protocol = MediaProtocol()
    protocol.receive(render_connected())
    assert protocol.receive(text) is None
    assert protocol.state is MediaState.CONNECTED
    assert protocol.counters.ignored == 1
    assert isinstance(protocol.receive(start_with()), StreamStarted)


def test_start_may_come_without_connected() -> None:
    protocol = MediaProtocol()
    assert isinstance(protocol.receive(start_with()), StreamStarted)
    assert protocol.receive(render_connected()) is None
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)


@pytest.mark.parametrize("changes", [{"callSid": "CA99"}, {"streamSid": "MZ99"}])
def test_another_start_is_refused_and_the_stream_stays_as_it_was(changes: dict[str, str]) -> None:
    protocol = started()
    text = start_with(**changes)
    if "streamSid" in changes:
        text = text.replace("MZ00aa", "MZ99")
    with pytest.raises(RemoteProtocolError, match="second start") as caught:
        protocol.receive(text)
    assert caught.value.code == SECOND_START
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)


def test_the_same_start_again_is_counted_and_ignored() -> None:
    protocol = started()
    assert protocol.receive(start_with()) is None
    assert protocol.counters.ignored == 1


def test_a_repeated_connected_is_counted_and_ignored() -> None:
    protocol = started()
    assert protocol.receive(render_connected()) is None
    assert protocol.counters.ignored == 1
    assert protocol.state is MediaState.STARTED


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}},
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2}},
        {"mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 44100, "channels": 1}},
        {"mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 8000, "channels": 2}},
        {"mediaFormat": {"encoding": "audio/x-l16"}},
        {"mediaFormat": {"encoding": "audio/opus", "sampleRate": 48000}},
        {"mediaFormat": {"encoding": 7, "sampleRate": 8000}},
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": "fast"}},
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": [8000]}},
        {"mediaFormat": "audio/x-l16"},
        {"mediaFormat": []},
        {"tracks": ["outbound"]},
        {"callSid": ""},
        {"callSid": None},
        {"callSid": 'CA"0'},
        {"callSid": 5},
        {"accountSid": "AC 0\n"},
        {"streamSid": "MZother"},
        {"streamSid": "x" * 65},
        {"start": None},
    ],
)
def test_a_start_that_cannot_be_used_does_not_start(changes: dict[str, Any]) -> None:
    protocol = MediaProtocol()
    protocol.receive(render_connected())
    with pytest.raises(RemoteProtocolError) as caught:
        protocol.receive(start_with(**changes))
    if "mediaFormat" in changes:
        assert caught.value.code == MEDIA_FORMAT
        assert "L16 at 8000, 16000 or 24000 Hz" in caught.value.message
    assert protocol.state is MediaState.CONNECTED
    assert isinstance(protocol.receive(start_with()), StreamStarted)


GONE = object()
ABSENT = [GONE, None, [], {}, 5, True, 2.5]


@pytest.mark.parametrize(
    ("field", "odd"),
    [
        *(("mediaFormat", odd) for odd in (GONE, None, {})),
        *(("tracks", odd) for odd in (*ABSENT, "inbound")),
        *(("customParameters", odd) for odd in (*ABSENT, "token")),
        *(("accountSid", odd) for odd in (*ABSENT, "")),
        *(("sequenceNumber", odd) for odd in (*ABSENT, "one", "-1", "9" * 30)),
    ],
)
def test_a_start_needs_no_more_than_the_ids_of_stream_and_call(field: str, odd: Any) -> None:
    message = json.loads(start_with())
    target = message if field in message else message["start"]
    target[field] = odd
    if odd is GONE:
        del target[field]
    event = MediaProtocol().receive(json.dumps(message))
    assert event == StreamStarted(
        stream_id=STREAM,
        carrier_call_id=CALL,
        account_id="" if field == "accountSid" else "AC00",
        audio_format=PCMU_8K,
        parameters={},
    )


@pytest.mark.parametrize("where", ["start", "message"])
def test_the_id_of_the_stream_may_stand_in_either_place(where: str) -> None:
    message = json.loads(start_with())
    del (message["start"] if where == "message" else message)["streamSid"]
    protocol = MediaProtocol()
    assert isinstance(protocol.receive(json.dumps(message)), StreamStarted)
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)


def test_parameters_that_are_no_text_are_left_out() -> None:
    event = MediaProtocol().receive(start_with(customParameters={"token": "t", "n": 5, "m": None}))
    assert isinstance(event, StreamStarted)
    assert event.parameters == {"token": "t"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, PCMU_8K),
        ({}, PCMU_8K),
        ({"encoding": "audio/x-mulaw"}, PCMU_8K),
        ({"encoding": "audio/PCMU", "sampleRate": "8000"}, PCMU_8K),
        ({"encoding": "audio/x-alaw", "sampleRate": 8000, "channels": 1}, PCMA_8K),
        ({"encoding": "PCMA"}, PCMA_8K),
        ({"encoding": "audio/x-l16", "sampleRate": 8000, "channels": 1}, PCM16_8K),
        ({"encoding": "audio/x-l16", "sampleRate": 16000, "channels": 1}, PCM16_16K),
        ({"encoding": "audio/L16", "sampleRate": "24000", "channels": "1"}, PCM16_24K),
        ({"sampleRate": 8000}, PCMU_8K),
    ],
)
def test_the_format_that_is_given_is_obeyed(given: Any, expected: AudioFormat) -> None:
    event = MediaProtocol().receive(start_with(mediaFormat=given))
    assert isinstance(event, StreamStarted)
    assert event.audio_format == expected


def test_half_a_sample_waits_for_its_other_half() -> None:
    protocol = MediaProtocol()
    protocol.receive(start_with(mediaFormat={"encoding": "audio/x-l16", "sampleRate": 16000}))
    sound = bytes(range(200)) * 2
    heard = b""
    for number, cut in enumerate((1, 3, 100, 101, 195), 1):
        payload, sound = sound[:cut], sound[cut:]
        event = protocol.receive(media(number, payload=base64.b64encode(payload).decode()))
        assert event is None or isinstance(event, CallerAudio)
        assert event is None or len(event.payload) % 2 == 0
        heard += event.payload if event else b""
    assert heard == bytes(range(200)) * 2


def test_a_start_without_parameters_has_none() -> None:
    protocol = MediaProtocol()
    protocol.receive(render_connected())
    message = json.loads(start_with())
    del message["start"]["customParameters"], message["streamSid"]
    event = protocol.receive(json.dumps(message))
    assert isinstance(event, StreamStarted)
    assert event.parameters == {}


ODD: list[Any] = [GONE, None, 5, True, "", "?", [], {}, 2.5, -1, "-20", " 20", "0x14", 2**60]


def media_lacking(*fields: str, **changes: Any) -> str:
    """Frame 1 without some fields, and with others changed."""
    message = json.loads(media(1, **changes))
    for name in fields:
        (message if name in message else message["media"]).pop(name)
    return json.dumps(message)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["streamSid", "sequenceNumber", "timestamp", "chunk", "track"])
def test_sound_is_heard_whatever_is_odd_around_it(field: str, odd: Any) -> None:
    protocol = started()
    text = media_lacking(field) if odd is GONE else media(1, **{field: odd})
    event = protocol.receive(text)
    if field in ("streamSid", "track") and isinstance(odd, str):
        assert event is None  # it says that it is something else
    else:
        at_ms = odd if field == "timestamp" and odd in (5, 2**60) and odd is not True else 0
        assert event == CallerAudio(FRAME, 0 if at_ms == 2**60 else at_ms)
    assert isinstance(protocol.receive(media(2)), CallerAudio)


def test_frames_without_any_counts_follow_one_another() -> None:
    protocol = started()
    bare = json.dumps(
        {"event": "media", "media": {"payload": base64.b64encode(FRAME).decode("ascii")}}
    )
    assert [protocol.receive(bare) for _ in range(4)] == [
        CallerAudio(FRAME, at) for at in (0, 20, 40, 60)
    ]
    assert protocol.counters.odd == {"streamSid": 4, "media.timestamp": 4}


def test_a_timestamp_that_is_missing_follows_the_one_before_it() -> None:
    protocol = started()
    texts = [media(1), media(2, timestamp=None), media(3, timestamp="x"), media(9)]
    stamps = [protocol.receive(text) for text in texts]
    assert stamps == [CallerAudio(FRAME, at) for at in (0, 20, 40, 160)]


@pytest.mark.parametrize("counts", [{}, {"chunk": 0}, {"sequenceNumber": "7"}])
def test_counts_that_never_move_silence_nobody(counts: dict[str, Any]) -> None:
    protocol = started()
    frames = []
    for number in range(1, 6):
        payload = base64.b64encode(bytes([number]) * 160).decode()
        text = media(1, payload=payload, **counts)
        if "sequenceNumber" not in counts:
            message = json.loads(text)
            del message["sequenceNumber"]
            text = json.dumps(message)
        frames.append(protocol.receive(text))
    if "sequenceNumber" in counts:
        assert frames[1:] == [None] * 4  # one and the same frame, as its number says
    else:
        assert all(isinstance(frame, CallerAudio) for frame in frames)


@pytest.mark.parametrize(
    "text",
    [
        media(1, payload="@@@@"),
        media(1, payload="AAA"),
        media(1, payload="AA\nA="),
        media(1, payload=5),
        media(1, payload=None),
        media(1, media="sound"),
        media(1, media=None),
        '{"event":"media","streamSid":"MZ00aa"}',
        '{"event":"mark","streamSid":"MZ00aa","mark":{}}',
        '{"event":"mark","streamSid":"MZ00aa","mark":null}',
        '{"event":"mark","streamSid":"MZother","mark":{"name":"m"}}',
        '{"event":"dtmf","streamSid":"MZ00aa","dtmf":{"digit":"12"}}',
        '{"event":"dtmf","streamSid":"MZ00aa","dtmf":{"digit":""}}',
        '{"event":"dtmf","streamSid":"MZ00aa","dtmf":{"digit":"E"}}',
        '{"event":"dtmf","streamSid":"MZ00aa","dtmf":{"digit":[]}}',
        '{"event":"stop","streamSid":"MZother"}',
    ],
)
def test_a_message_that_cannot_be_used_is_counted_and_ignored(text: str) -> None:
    protocol = started()
    for _ in range(50):
        assert protocol.receive(text) is None
    assert sum(protocol.counters.odd.values()) == 50
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)


def test_keys_marks_and_stop_need_no_id_of_the_stream() -> None:
    protocol = started()
    events = [
        protocol.receive(text)
        for text in (
            '{"event":"dtmf","dtmf":{"digit":5}}',
            '{"event":"mark","mark":{"name":"m"},"streamSid":7}',
            '{"event":"stop","streamSid":null}',
        )
    ]
    assert events == [Dtmf("5"), MarkReached("m"), StreamStopped(hung_up=True)]


@pytest.mark.parametrize(
    "text",
    [
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
def test_what_is_no_message_is_refused_and_changes_nothing(text: str) -> None:
    protocol = started()
    with pytest.raises(RemoteProtocolError) as caught:
        protocol.receive(text)
    assert len(caught.value.message) < 300
    assert protocol.state is MediaState.STARTED
    assert protocol.receive(media(1)) == CallerAudio(FRAME, 0)
    assert protocol.counters.missing == 0


def test_a_payload_may_hold_a_second_of_sound_and_not_one_byte_more() -> None:
    limit = PCMU_8K.ms_to_bytes(MAX_PAYLOAD_MS)
    most = base64.b64encode(bytes(limit)).decode()
    assert started().receive(media(1, payload=most)) == CallerAudio(bytes(limit), 0)
    more = base64.b64encode(bytes(limit + 1)).decode()
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
