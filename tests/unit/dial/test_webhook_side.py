"""URLs, signatures, TwiML and WAV files: what stands before a simulated call."""

from __future__ import annotations

import io

import numpy as np
import pytest
from twilio.request_validator import RequestValidator

from app.dial.carrier_http import Endpoints, SpokenLine, parse_spoken_line, sign
from app.dial.faults import check_stream
from app.dial.script import AwaitHangUp, BargeIn, Listen, Say
from app.dial.speech import SpeechFolder, demo_script, parse_wav, read_script
from app.dial.twiml import StreamOrder, Verb, parse_twiml, stream_of
from app.errors import ConfigError, RemoteProtocolError
from audio.g711 import decode_ulaw
from audio.level import level_dbfs
from audio.wav import StereoRecorder
from tests.fakes.caller import PHRASES

CONNECT = """<?xml version="1.0"?>
<Response>
  <Connect action="/after">
    <Stream url="wss://a.example/media"><Parameter name="token" value="t&amp;1"/></Stream>
  </Connect>
  <Say>We lost  the
    agent.</Say>
  <Hangup/>
</Response>"""


@pytest.mark.parametrize("form", [{}, {"CallSid": "CA1", "From": "+1555", "Body": "ü &=+"}])
def test_twilios_own_validator_accepts_our_signature(form: dict[str, str]) -> None:
    url = "https://voice.example.com/twilio/voice?x=1"
    assert RequestValidator("token").validate(url, form, sign("token", url, form))
    assert not RequestValidator("other").validate(url, form, sign("token", url, form))


def test_a_base_url_means_trunklines_own_paths() -> None:
    for to in ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"):
        endpoints = Endpoints.of(to)
        assert endpoints.voice_url == "http://127.0.0.1:8080/twilio/voice"
        assert endpoints.status_url == "http://127.0.0.1:8080/twilio/status"
        assert endpoints.transcript_url("CA1") == "http://127.0.0.1:8080/calls/CA1/transcript"
        assert endpoints.as_public(endpoints.voice_url) == endpoints.voice_url


def test_the_full_webhook_url_of_trunkline_gives_the_same_paths() -> None:
    endpoints = Endpoints.of("https://h.example/phones/twilio/voice")
    assert endpoints.voice_url == "https://h.example/phones/twilio/voice"
    assert endpoints.status_url == "https://h.example/phones/twilio/status"


def test_the_webhook_of_another_server_is_taken_as_it_stands() -> None:
    endpoints = Endpoints.of("https://h.example/incoming?agent=2#rc=3")
    assert endpoints.voice_url == "https://h.example/incoming?agent=2"
    assert endpoints.status_url is None


@pytest.mark.parametrize("to", ["127.0.0.1:8080", "ws://h", "http://", "nonsense"])
def test_what_is_no_http_url_is_refused(to: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Endpoints.of(to)


def test_behind_a_tunnel_the_public_url_is_signed_and_the_local_one_dialed() -> None:
    endpoints = Endpoints.of("http://127.0.0.1:8080", public_url="https://voice.example/")
    assert endpoints.as_public(endpoints.voice_url) == "https://voice.example/twilio/voice"
    assert endpoints.as_reached("wss://voice.example/media") == "ws://127.0.0.1:8080/media"
    assert endpoints.as_reached("https://voice.example/x?y=1") == "http://127.0.0.1:8080/x?y=1"
    assert endpoints.as_reached("wss://elsewhere.example/m") == "wss://elsewhere.example/m"


def test_without_a_public_url_streams_are_dialed_as_given() -> None:
    endpoints = Endpoints.of("https://h.example/incoming")
    assert endpoints.as_reached("wss://h.example/media") == "wss://h.example/media"


def test_twiml_keeps_its_verbs_in_order() -> None:
    verbs = parse_twiml(CONNECT, "text/xml; charset=utf-8")
    assert [verb.name for verb in verbs] == ["Connect", "Say", "Hangup"]
    assert verbs[1] == Verb(name="Say", text="We lost the agent.")
    assert stream_of(verbs[0]) == StreamOrder(
        url="wss://a.example/media", parameters={"token": "t&1"}, action="/after"
    )
    assert stream_of(verbs[1]) is None


@pytest.mark.parametrize(
    ("document", "content_type", "words"),
    [
        ("<Response/>", "application/json", "12300"),
        ("<Response/>", "", "12300"),
        ("<Response>", "text/xml", "12100"),
        ("", "application/xml", "12100"),
        ("<html/>", "text/xml", "<html>"),
    ],
)
def test_what_is_no_twiml_is_told_with_twilios_number(
    document: str, content_type: str, words: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        parse_twiml(document, content_type)


def test_a_stream_needs_a_url() -> None:
    (verb,) = parse_twiml("<Response><Connect><Stream/></Connect></Response>", "text/xml")
    with pytest.raises(RemoteProtocolError, match="url"):
        stream_of(verb)


@pytest.mark.parametrize(
    ("order", "codes"),
    [
        (StreamOrder(url="wss://a.example/media", parameters={"t": "x" * 498}), []),
        (StreamOrder(url="ws://127.0.0.1:8080/media"), []),
        (StreamOrder(url="ws://a.example/media"), ["31910"]),
        (StreamOrder(url="https://a.example/media"), ["31920"]),
        (StreamOrder(url="wss://a.example/media?token=1"), ["31920"]),
        (StreamOrder(url="wss://a.example/m", parameters={"t": "x" * 499}), ["12200"]),
        (StreamOrder(url="wss://a.example/m", parameters={"": "x"}), ["12200"]),
    ],
)
def test_an_order_that_twilio_would_refuse_is_a_fault(order: StreamOrder, codes: list[str]) -> None:
    assert [fault.code for fault in check_stream(order)] == codes


def test_rows_of_the_transcript_are_read_and_others_skipped() -> None:
    row = '{"at_ms": 5, "who": "agent", "text": "a b", "heard_text": "a", "cut_off": true}'
    assert parse_spoken_line(row) == SpokenLine(
        at_ms=5, who="agent", text="a b", heard_text="a", cut_off=True
    )
    short = parse_spoken_line('{"at_ms": 5, "who": "caller", "text": "x"}')
    assert short == SpokenLine(at_ms=5, who="caller", text="x")
    for wrong in ("", "{}", "[]", "null", '{"at_ms": "soon", "who": "a", "text": ""}'):
        assert parse_spoken_line(wrong) is None


def wav(rate_hz: int, ms: int, *, tail_ms: int = 0) -> bytes:
    at_s = np.arange(rate_hz * ms // 1000) / rate_hz
    sound = (np.sin(2 * np.pi * 500 * at_s) * 8_000).astype(np.int16)
    tail = np.zeros(rate_hz * tail_ms // 1000, np.int16)
    file = io.BytesIO()
    recorder = StereoRecorder(file, rate_hz)
    recorder.write_left(0, np.concatenate([sound, tail]))
    recorder.write_right(0, np.concatenate([sound, tail]))
    recorder.close()
    return file.getvalue()


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_speech_of_any_usual_rate_becomes_telephone_sound(rate_hz: int) -> None:
    ulaw = parse_wav(wav(rate_hz, 500, tail_ms=2_000), "a.wav")
    assert 500 * 8 <= len(ulaw) <= 560 * 8
    middle = decode_ulaw(ulaw[800:3200])
    assert abs(level_dbfs(middle) - level_dbfs(np.array([8_000 / 2**0.5], np.int16))) < 0.5


@pytest.mark.parametrize("content", [wav(4_000, 100), b"no wav at all", b""])
def test_other_files_are_refused_with_the_command_that_converts_them(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"a\.wav.*sox a\.wav -b 16 -r 8000 -c 1"):
        parse_wav(content, "a.wav")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b.wav", "'a b.wav'"),
        ("it's.wav", "'it'\"'\"'s.wav'"),
        ("$(x).wav", "'$(x).wav'"),
        ("-n.wav", "./-n.wav"),
    ],
)
def test_the_command_that_converts_a_file_names_it_as_a_shell_wants_it(
    name: str, shown: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_wav(b"", name)
    assert caught.value.message.endswith(f"sox {shown} -b 16 -r 8000 -c 1 converted.wav")


def test_tones_above_the_telephone_band_do_not_fold_into_it() -> None:
    at_s = np.arange(44_100) / 44_100
    file = io.BytesIO()
    recorder = StereoRecorder(file, 44_100)
    for write in (recorder.write_left, recorder.write_right):
        write(0, (np.sin(2 * np.pi * 5_500 * at_s) * 8_000).astype(np.int16))
    recorder.close()
    sound = decode_ulaw(parse_wav(file.getvalue(), "a.wav"))
    assert level_dbfs(sound[400:4_000]) < -60  # past the click of a tone that begins at once


def test_a_recording_without_a_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a\.wav: holds no sound"):
        parse_wav(wav(8_000, 0), "a.wav")


def test_a_recording_of_silence_stays_what_it_is() -> None:
    assert parse_wav(wav(8_000, 0, tail_ms=100), "a.wav") == b"\xff" * 800


def test_the_packaged_demo_listens_speaks_interrupts_and_says_goodbye() -> None:
    steps, folder = demo_script()
    kinds = [type(step) for step in steps]
    assert kinds == [Listen, Say, BargeIn, Listen, Say, AwaitHangUp]
    for step in steps:
        if isinstance(step, Say | BargeIn):
            assert step.text
            assert level_dbfs(decode_ulaw(folder.load(step.file))) > -30


def test_every_test_phrase_is_loud_enough_to_be_heard() -> None:
    files = sorted(PHRASES.glob("*.wav"))
    assert len(files) == 9
    for file in files:
        assert level_dbfs(decode_ulaw(parse_wav(file.read_bytes(), file.name))) > -30


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.wav: No such file"):
        SpeechFolder(PHRASES).load("nowhere.wav")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        read_script(PHRASES / "nowhere.yaml")
