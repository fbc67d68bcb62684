"""Texts of the gateway: types without a parser, redaction, close codes, charges."""

from __future__ import annotations

import pytest

from app.errors import VoiceClosed, VoiceError, VoiceRefused, VoiceUnavailable
from app.events import Cost, TokenUsage
from app.gateway.meter import SessionMeter
from app.gateway.wire import (
    PlainAppend,
    close_code_for,
    cut_reason,
    redacted,
    server_type,
    sound_chars,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"type":"response.done","x":1}', "response.done"),
        ('{ "event_id" : "event_1", "type": "response.done"}', "response.done"),
        ('{"x":1,"type":"response.done"}', ""),
        ('{"event_id":"a\\"b","type":"response.done"}', ""),
        ("hello", ""),
    ],
)
def test_a_type_is_read_where_servers_put_it(text: str, kind: str) -> None:
    assert server_type(text) == kind


APPENDS = [
    (b'{"type":"input_audio_buffer.append","audio":"AAAA"}', True),
    (b'{"event_id":"e","type":"input_audio_buffer.append","audio":"AAAA"}', True),
    (b'{"type": "input_audio_buffer.append", "audio": "AAAA", "event_id": "e"}\n', True),
    (b'{"type":"input_audio_buffer.append","audio":"AA","type":"session.update"}', False),
    (b'{"type":"input_audio_buffer.append","audio":"AA","event_id":"e","type":"x"}', False),
    (b'{"type":"input_audio_buffer.append","audio":"AA"}{}', False),
    (b'{"type":"input_audio_buffer.append","audio":"AA', False),
    (b'{"type":"input_audio_buffer.append","x":1,"audio":"AA"}', False),
    (b'{"type":"input_audio_buffer.append","audio":"AA","t\\u0079pe":"x"}', False),
    (b'{"audio":"AAAA","type":"input_audio_buffer.append"}', False),
    (b'{"type":"input_audio_buffer.appendix","audio":"AAAA"}', False),
]


@pytest.mark.parametrize(("text", "plain"), APPENDS)
def test_only_sound_that_can_mean_nothing_else_passes_unread(text: bytes, plain: bool) -> None:
    check = PlainAppend()
    assert check(text) is plain
    for seen in (
        b'{"type":"input_audio_buffer.append","audio":"',
        b'{ "type" : "input_audio_buffer.append" , "audio":"',
    ):
        assert check(seen + b'BBBB"}')  # the client's spelling so far changes nothing
        assert check(text) is plain


@pytest.mark.parametrize(
    ("text", "key", "chars"),
    [
        ('{"type":"input_audio_buffer.append","audio":"AAAA"}', "audio", 4),
        ('{"type":"response.output_audio.delta","event_id":"e","delta":"AAAAAAAA"}', "delta", 8),
        ('{"type":"input_audio_buffer.append","audio":""}', "audio", 0),
        ("{}", "audio", 0),
    ],
)
def test_the_sound_of_an_event_is_counted_without_its_keys(text: str, key: str, chars: int) -> None:
    assert sound_chars(text, key) == sound_chars(text.encode(), key) == chars


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("key sk-proj-abc123def wrong", "key [redacted] wrong"),
        ("Bearer abc.def", "[redacted]"),
        ("at 10.0.0.12:8443 now", "at [redacted] now"),
        ("see wss://inner/x?k=1 now", "see [redacted] now"),
        ("db-1.prod.internal died", "[redacted] died"),
        ("The model `gpt-realtime-2.1` is new", "The model `gpt-realtime-2.1` is new"),
        ("task-oriented speech in 24 kHz", "task-oriented speech in 24 kHz"),
    ],
)  # fmt: skip
def test_keys_and_places_are_redacted_and_words_are_not(text: str, clean: str) -> None:
    assert redacted(text) == clean


@pytest.mark.parametrize("text", ["x" * 500, "é" * 100, "𝄞" * 60, "short"])
def test_a_reason_fits_a_close_frame(text: str) -> None:
    reason = cut_reason(text)
    assert text.startswith(reason)
    assert min(len(text.encode()), 120) <= len(reason.encode()) <= 123


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VoiceRefused("", code="invalid_api_key"), 1008),
        (VoiceRefused("", code="insufficient_quota"), 1013),
        (VoiceUnavailable("", code="http_429"), 1013),
        (VoiceUnavailable("", code="http_500"), 1011),
        (VoiceUnavailable("", code="connect_timeout"), 1011),
        *[(VoiceClosed("", close_code=code), code) for code in (1000, 1001, 1008, 1013, 4001)],
        *[(VoiceClosed("", close_code=code), 1011) for code in (1004, 1005, 1006, 1015, 2000)],
    ],
)
def test_close_codes_follow_the_table(error: VoiceError, code: int) -> None:
    assert close_code_for(error) == code


def meter() -> SessionMeter:
    def price(usage: TokenUsage, transcription: str) -> Cost:
        return Cost(
            classes={
                "in": usage.input_audio + usage.input_text,
                "out": 10 * (usage.output_audio + usage.output_text),
                "said": 100 * usage.transcription_seconds,
            }
        )

    return SessionMeter(price)


@pytest.mark.parametrize(("mark", "marked"), [({"estimated": True}, True), ({}, False)])
def test_usage_that_an_engine_has_estimated_is_marked(mark: dict[str, bool], marked: bool) -> None:
    usage = {
        "total_tokens": 3,
        "input_tokens": 3,
        "input_token_details": {"text_tokens": 3},
        "output_token_details": {"text_tokens": 0},
    }
    charge = meter().on_response_done({"id": "r1", "status": "completed", "usage": usage | mark})
    assert charge is not None
    assert (charge.cost_usd, charge.estimated) == (3, marked)


def test_a_session_of_many_responses_adds_all_of_them_up() -> None:
    found = meter()
    for number in range(200):
        usage = {"total_tokens": 3, "output_token_details": {"audio_tokens": number}}
        found.on_response_done({"id": f"r{number}", "status": "completed", "usage": usage})
        assert found.total.output_audio == sum(range(number + 1))
    assert found.total.unsplit_responses == 200


def test_tokens_are_charged_by_class_and_once() -> None:
    usage = {
        "total_tokens": 35,
        "input_tokens": 30,
        "output_tokens": 5,
        "input_token_details": {
            "text_tokens": 20,
            "audio_tokens": 10,
            "cached_tokens": 8,
            "cached_tokens_details": {"text_tokens": 4, "audio_tokens": 1},
        },
        "output_token_details": {"text_tokens": 1, "audio_tokens": 4},
    }
    found = meter()
    response = {"id": "r1", "status": "completed", "usage": usage}
    charge = found.on_response_done(response)
    assert charge is not None and charge.cost_usd == 80
    assert charge.usage == TokenUsage(
        input_text=20,
        input_audio=10,
        cached_text=4,
        cached_audio=1,
        cached_unsplit=3,
        output_text=1,
        output_audio=4,
        unsplit_responses=1,
    )
    assert found.on_response_done(response) is None
    heard = {"item_id": "i", "content_index": 0, "usage": {"type": "duration", "seconds": 2}}
    said = found.on_transcription(heard)
    assert said is not None and said.cost_usd == 200
    assert found.on_transcription(heard) is None


@pytest.mark.parametrize("amount", [2**31, 2**63, 10**400, 1e300])
def test_an_amount_that_nothing_could_hold_is_cut(amount: float) -> None:
    found, most = meter(), 2**31 - 1
    usage = {"total_tokens": 1, "output_token_details": {"audio_tokens": amount}}
    response = found.on_response_done({"id": "r", "status": "completed", "usage": usage})
    heard = found.on_transcription({"item_id": "i", "usage": {"seconds": amount}})
    assert response is not None and heard is not None
    assert response.usage.output_audio == (most if isinstance(amount, int) else 0)
    assert heard.usage.transcription_seconds == most
    assert found.spent_usd == 10 * response.usage.output_audio + 100 * most


def _nested(depth: int) -> list[object]:
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


ODD_IDS: list[object] = [None, "", 7, [], {"id": "r"}, _nested(10_000)]


@pytest.mark.parametrize(
    "odd",
    [
        *(None, [], "x", {"usage": "x"}, {"usage": {"total_tokens": None}}),
        *({"id": one} for one in ODD_IDS),
    ],
    ids=range(11),
)
def test_an_odd_response_is_estimated_from_its_sound(odd: object) -> None:
    found = meter()
    found.on_session({"audio": {"output": {"format": {"type": "audio/pcmu"}}}})
    found.add_sound(0, 8_000 * 4 // 3)  # a second
    charge = found.on_response_done(odd)
    assert charge is not None and charge.estimated
    assert charge.usage.output_audio == pytest.approx(20, abs=1)


def test_a_transcription_of_an_odd_item_is_charged_once() -> None:
    found, usage = meter(), {"type": "duration", "seconds": 2}
    odd = [{"item_id": one, "usage": usage} for one in ODD_IDS]
    charged = [found.on_transcription(event) for event in odd]
    assert [one is not None for one in charged] == [True, False, True, False, False, False]
