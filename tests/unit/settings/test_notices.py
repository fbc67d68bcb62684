"""Retiring models and missing voices are named, with their date and replacement."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings import Settings, notices
from app.settings.notices import ModelFacts, Retirement, load_facts

BEFORE = date(2026, 11, 21)


def settings_with(**model: object) -> Settings:
    section = {"api_key": "sk-proj-0123456789", "transcription": None, **model}
    return Settings.model_validate({"openai_realtime": section})


@pytest.mark.parametrize(
    ("name", "ends", "replacement"),
    [
        ("gpt-realtime", "2027-01-20", "gpt-realtime-2.1"),
        ("gpt-realtime-mini", "2027-01-20", "gpt-realtime-2.1-mini"),
        ("gpt-realtime-mini-2025-12-15", "2027-01-20", "gpt-realtime-2.1-mini"),
    ],
)
def test_a_retiring_model_is_named_with_date_and_replacement(
    name: str, ends: str, replacement: str
) -> None:
    expected = f"openai_realtime.model: {name} will be retired on {ends}: use {replacement}"
    assert notices(settings_with(model=name), BEFORE) == (expected,)


def test_on_its_date_a_model_was_retired() -> None:
    settings = settings_with(model="gpt-realtime")
    for day, verb in ((date(2027, 1, 19), "will be"), (date(2027, 1, 20), "was")):
        assert f"{verb} retired" in notices(settings, day)[0]


def test_the_model_of_the_earlier_system_was_retired() -> None:
    [text] = notices(settings_with(model="gpt-4o-realtime-preview-2024-12-17"), BEFORE)
    assert text.endswith("was retired on 2026-05-07: use gpt-realtime-2.1")


def test_whisper_is_named_with_its_end() -> None:
    [text] = notices(settings_with(transcription={"model": "whisper-1"}), BEFORE)
    assert text == (
        "openai_realtime.transcription.model: whisper-1 will be retired on 2027-02-26: "
        "use gpt-transcribe"
    )


@pytest.mark.parametrize("name", ["gpt-realtime-2.1", "gpt-realtime-2", "gpt-realtime-1.5", "mine"])
def test_other_models_are_not_mentioned(name: str) -> None:
    assert notices(settings_with(model=name), BEFORE) == ()


@pytest.mark.parametrize(
    ("voice", "better"),
    [("fable", "ballad"), ("onyx", "cedar"), ("nova", "marin"), ("marine", "marin")],
)
def test_a_voice_that_realtime_lacks_is_named_with_one_that_it_has(voice: str, better: str) -> None:
    [text] = notices(settings_with(voice=voice), BEFORE)
    assert text.startswith(
        f"openai_realtime.voice: Realtime has no voice {voice}: use {better} (it has marin, cedar"
    )


def test_a_voice_like_no_other_gets_the_list_alone() -> None:
    [text] = notices(settings_with(voice="q"), BEFORE)
    assert text.startswith("openai_realtime.voice: Realtime has no voice q (it has marin")


@pytest.mark.parametrize("voice", ["marin", "cedar", "alloy", "verse", "voice_abc123"])
def test_a_voice_that_exists_is_not_mentioned(voice: str) -> None:
    assert notices(settings_with(voice=voice), BEFORE) == ()


def test_names_in_agents_and_numbers_are_checked_too() -> None:
    settings = Settings.model_validate(
        {
            "openai_realtime": {"api_key": "sk-proj-0123456789", "transcription": None},
            "agents": {
                "a": {"voice": "fable", "transcription": {"model": "whisper-1"}},
                "b": {"voice": "cedar", "transcription": {"language": "en"}},
            },
            "numbers": {"+14155550123": {"model": "gpt-realtime", "voice": "onyx"}},
        }
    )
    assert [text.partition(":")[0] for text in notices(settings, BEFORE)] == [
        "agents.a.voice",
        "agents.a.transcription.model",
        "numbers.+14155550123.model",
        "numbers.+14155550123.voice",
    ]


@pytest.mark.parametrize("where", ["openai_realtime", "agents"])
def test_turn_detection_none_is_noticed(where: str) -> None:
    detection = {"turn_detection": {"type": "none"}}
    model = {"api_key": "sk-proj-0123456789", "transcription": None}
    sections: dict[str, object] = {
        "openai_realtime": {"openai_realtime": {**model, **detection}},
        "agents": {"openai_realtime": model, "agents": {"a": detection}},
    }
    [text] = notices(Settings.model_validate(sections[where]), BEFORE)
    assert ".turn_detection: with none nobody hears that a caller has finished" in text


def test_nothing_is_said_of_other_servers_or_of_the_offline_engine() -> None:
    other = settings_with(model="gpt-realtime", voice="nova", url="wss://gateway.example/v1")
    assert notices(other, BEFORE) == ()
    offline = Settings.model_validate(
        {"voice_model": "offline", "openai_realtime": {"model": "gpt-realtime"}}
    )
    assert notices(offline, BEFORE) == ()


def test_an_operator_can_bring_facts_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "retirements:\n  - {model: x-*, ends: 2030-01-01, replacement: y}\n"
        "realtime_voices: [a]\nspeech_only_voices: {}\n"
    )
    facts = load_facts(path)
    assert facts == ModelFacts((Retirement("x-*", date(2030, 1, 1), "y"),), ("a",), {})
    [text] = notices(settings_with(model="x-1", voice="a"), BEFORE, facts)
    assert text.endswith("retired on 2030-01-01: use y")


def test_facts_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("retirements: [{model: x, ends: soon, replacement: y}]\n")
    with pytest.raises(ConfigError, match=r"models\.yaml"):
        load_facts(path)
