"""Whatever a peer sends, only `RemoteProtocolError` leaves `receive`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.errors import RemoteProtocolError
from app.realtime import events as ev
from app.realtime.dialect import BETA, GA
from app.realtime.fields import MalformedEvent
from app.realtime.protocol import RealtimeProtocol, Side
from tests.fakes.stress import few_or
from tests.protocol.realtime_samples import CLIENT, GA_CLIENT, GA_SERVER, SERVER

CASES = few_or(200, 1_300)  # per test; times four receivers and three tests
quick = settings(
    max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)

SAMPLES = [GA.encode_client(event, "evt_1") for event in (*CLIENT, *GA_CLIENT)] + [
    GA.encode_server(event, "event_1") for event in (*SERVER, *GA_SERVER)
]
PROTOCOLS: list[RealtimeProtocol[Any, Any]] = [
    RealtimeProtocol(Side.CLIENT, GA),
    RealtimeProtocol(Side.SERVER, GA),
    RealtimeProtocol(Side.CLIENT, BETA),
    RealtimeProtocol(Side.SERVER, BETA),
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.just([{}]),
    st.just(["x", 1]),
    st.just({"type": "x"}),
    st.just("AAA"),
    st.just(-1),
    st.just(10**400),
)


def _receive_everywhere(text: str) -> None:
    for protocol in PROTOCOLS:
        try:
            protocol.receive(text)
        except RemoteProtocolError as error:
            assert error.code in {
                "invalid_json",
                "invalid_type",
                "invalid_value",
                "missing_required_parameter",
            }


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        below = (*path, key)
        found += _paths(inner, below) if isinstance(inner, (dict, list)) and inner else [below]
    return found


@quick
@given(st.data())
def test_a_field_of_any_value_is_malformed_at_worst(data: st.DataObject) -> None:
    message = json.loads(data.draw(st.sampled_from(SAMPLES)))
    *parents, key = data.draw(st.sampled_from(_paths(message)))
    place = message
    for parent in parents:
        place = place[parent]
    if data.draw(st.booleans()):
        place[key] = data.draw(VALUES)
    else:
        del place[key]
    _receive_everywhere(json.dumps(message))


@quick
@given(st.text())
@example("")
@example("null")
@example("[]")
@example('"type"')
@example("{}")
@example('{"type": 5}')
@example('{"type": null}')
@example("\ud800")
@example('{"type":"error","error":{"message":"\\ud800"}}')
@example('{"type":"response.output_audio.delta","output_index":1e999}')
def test_any_text_is_malformed_at_worst(text: str) -> None:
    _receive_everywhere(text)


@quick
@given(st.sampled_from(SAMPLES), st.integers(0, 10_000), st.text(max_size=3))
def test_a_damaged_message_is_malformed_at_worst(sample: str, at: int, noise: str) -> None:
    at %= len(sample)
    _receive_everywhere(sample[:at])
    _receive_everywhere(sample[:at] + noise + sample[at + len(noise) :])


@pytest.mark.parametrize("opening", ["[", '{"type":', '{"type":"x","a":[', '{"a":[[{"b":'])
def test_deep_nesting_is_malformed(opening: str) -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(RemoteProtocolError):
            protocol.receive(opening * 100_000)


@pytest.mark.parametrize("audio", ["AAA", "A===", "!!!!", "AAAA\n", "AA==AA==", "AAA=A", "ü", 7])
def test_bad_base64_is_malformed(audio: object) -> None:
    append = json.dumps({"type": "input_audio_buffer.append", "audio": audio})
    with pytest.raises(MalformedEvent) as caught:
        GA.decode_client(append)
    assert caught.value.param == "audio"


def test_an_audio_delta_without_its_sound_is_malformed() -> None:
    message = json.loads(GA.encode_server(ev.AudioDelta("r", "i", 0, 0, b"\x01"), "event_1"))
    del message["delta"]
    with pytest.raises(MalformedEvent) as caught:
        GA.decode_server(json.dumps(message))
    assert caught.value.param == "delta"
    assert caught.value.code == "missing_required_parameter"
    assert caught.value.event_id == "event_1"
    assert caught.value.event_type == "response.output_audio.delta"


def test_an_audio_delta_may_leave_out_its_indexes() -> None:
    text = '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"AQ=="}'
    assert GA.decode_server(text) == ev.AudioDelta("r", "i", 0, 0, b"\x01")


def test_a_negative_index_of_an_audio_delta_is_noted() -> None:
    text = GA.encode_server(ev.AudioDelta("r", "i", -1, 0, b"\x01"), "event_1")
    oddities: list[str] = []
    assert GA.decode_server(text, oddities) == ev.AudioDelta("r", "i", 0, 0, b"\x01", "event_1")
    assert oddities == ["output_index: expected a number from 0"]
