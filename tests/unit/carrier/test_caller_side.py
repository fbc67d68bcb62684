"""The carrier's side of Media Streams: every broken rule of a server is named."""

from __future__ import annotations

import base64
import json

import pytest

from app.carrier.base import StreamId
from app.carrier.twilio.caller_side import Clear, SendMark, SendMedia, parse_server_message
from app.carrier.twilio.media import render_clear, render_mark, render_media
from app.errors import RemoteProtocolError

STREAM = StreamId("MZ1")


def fault(frame: str | bytes) -> tuple[str, str]:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_server_message(frame, STREAM)
    return caught.value.code, caught.value.message


def test_our_own_server_breaks_no_rule() -> None:
    assert parse_server_message(render_media(STREAM, b"\xff" * 400), STREAM) == SendMedia(
        b"\xff" * 400
    )
    assert parse_server_message(render_mark(STREAM, "3:x:20"), STREAM) == SendMark("3:x:20")
    assert parse_server_message(render_clear(STREAM), STREAM) == Clear()


def test_a_binary_frame_is_31950() -> None:
    assert fault(b"\xff\xff") == ("31950", "a binary frame of 2 bytes: Media Streams are text")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("{", "the message is not JSON"),
        ("[" * 50_000, "the message is not JSON"),
        ("[]", "the message is not a JSON object"),
        ('{"event":"dtmf"}', 'event "dtmf" does not exist: only media, mark and clear do'),
        ("{}", "event null does not exist: only media, mark and clear do"),
        ('{"event":["media"]}', 'event ["media"] does not exist: only media, mark and clear do'),
        ('{"event":"clear"}', "clear lacks streamSid"),
        ('{"event":"clear","streamSid":"MZ2"}', 'clear.streamSid "MZ2" is not this stream\'s'),
        (
            '{"event":"clear","stream_sid":"MZ1"}',
            'clear lacks streamSid; clear has a field that Twilio does not know: "stream_sid"',
        ),
        ('{"event":"mark","streamSid":"MZ1"}', "mark lacks mark"),
        ('{"event":"mark","streamSid":"MZ1","mark":"x"}', "mark.mark is not an object"),
        ('{"event":"mark","streamSid":"MZ1","mark":{}}', "mark.mark lacks name"),
        (
            '{"event":"mark","streamSid":"MZ1","mark":{"name":""}}',
            "mark.mark.name must be a string that is not empty",
        ),
        (
            '{"event":"media","streamSid":"MZ1","media":{"payload":7}}',
            "media.media.payload must be a string that is not empty",
        ),
        (
            '{"event":"media","streamSid":"MZ1","media":{"payload":"_-_-"}}',
            "media.media.payload is not base64",
        ),
        (
            '{"event":"media","streamSid":"MZ1","media":{"payload":"/w==","track":"outbound"}}',
            'media.media has a field that Twilio does not know: "track"',
        ),
        (
            '{"event":"media","streamSid":"MZ2","media":{"track":"o"}}',
            'media.streamSid "MZ2" is not this stream\'s; media.media lacks payload; '
            'media.media has a field that Twilio does not know: "track"',
        ),
    ],
)
def test_invalid_messages_are_31951_and_say_all_that_is_wrong(message: str, sentence: str) -> None:
    assert fault(message) == ("31951", sentence)


def test_a_file_header_inside_the_sound_is_named() -> None:
    payload = base64.b64encode(b"RIFF\x24\x00\x00\x00WAVE").decode()
    message = {"event": "media", "streamSid": "MZ1", "media": {"payload": payload}}
    assert "file header" in fault(json.dumps(message))[1]


def test_long_values_are_cut_in_the_sentence() -> None:
    assert len(fault(json.dumps({"event": "x" * 5_000}))[1]) < 200
