"""Routing of a number's calls: differences, documents, and what is kept for the way back."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from app.carrier.twilio.numbers import (
    Archive,
    Change,
    Saved,
    connect_plan,
    describe,
    dialed,
    differences,
    fallback_document,
    restore_plan,
)
from app.carrier.twilio.rest import NumberSetup
from app.dial.twiml import parse_twiml
from app.errors import ConfigError

NUMBER = "+15551230002"
VOICE = "https://voice.example.com/twilio/voice"
STATUS = "https://voice.example.com/twilio/status"
FALLBACK = "https://handler.example.com/fallback.xml"
FORMER = NumberSetup(
    number=NUMBER,
    number_id="PN1",
    voice_url="https://demo.example.com/voice.xml",
    voice_method="GET",
    status_callback_method="POST",
    trunk_sid="TK1",
)


def test_connecting_changes_only_fields_that_differ() -> None:
    plan = connect_plan(FORMER, voice_url=VOICE, status_url=STATUS, fallback_url=FALLBACK)
    assert plan == [
        Change(field="voice_url", before="https://demo.example.com/voice.xml", after=VOICE),
        Change(field="voice_method", before="GET", after="POST"),
        Change(field="voice_fallback_url", before="", after=FALLBACK),
        Change(field="voice_fallback_method", before="", after="GET"),
        Change(field="status_callback", before="", after=STATUS),
        Change(field="trunk_sid", before="TK1", after=""),
    ]
    after = replace(FORMER, **{change.field: change.after for change in plan})
    assert connect_plan(after, voice_url=VOICE, status_url=STATUS, fallback_url=FALLBACK) == []


def test_a_fallback_that_is_there_stays_when_none_is_given() -> None:
    setup = replace(FORMER, voice_fallback_url="https://old.example.com/f.xml")
    plan = connect_plan(setup, voice_url=VOICE, status_url=STATUS, fallback_url=None)
    assert not [change for change in plan if "fallback" in change.field]


def test_restoring_names_later_changes() -> None:
    saved = Saved(
        former={"voice_url": "https://demo.example.com/voice.xml", "trunk_sid": "TK1"},
        connected={"voice_url": VOICE, "trunk_sid": ""},
    )
    now = replace(FORMER, voice_url="https://other.example.com", trunk_sid="")
    changes, since = restore_plan(now, saved)
    assert [(c.field, c.after) for c in changes] == [
        ("voice_url", "https://demo.example.com/voice.xml"),
        ("trunk_sid", "TK1"),
    ]
    assert [(c.field, c.before) for c in since] == [("voice_url", "https://other.example.com")]


def test_changes_are_shown_in_columns() -> None:
    shown = describe(differences(FORMER, {"voice_url": VOICE, "trunk_sid": ""}))
    assert shown == [
        f"voice_url  https://demo.example.com/voice.xml -> {VOICE}",
        "trunk_sid  TK1 -> (not set)",
    ]
    assert describe([]) == []


def test_the_fallback_says_something_and_dials() -> None:
    say, dial, end = parse_twiml(
        fallback_document(dialed("+14155550123"), "One moment & we connect you."), "text/xml"
    )
    assert say.text == "One moment & we connect you."
    [number] = dial.children
    assert (number.name, number.text) == ("Number", "+14155550123")
    # Nothing of it asks for this server, which may be gone.
    assert dial.attributes == {"timeout": "25", "answerOnBridge": "true"}
    assert end.name == "Hangup"
    dial, _ = parse_twiml(fallback_document(dialed("+14155550123"), " "), "text/xml")
    assert dial.name == "Dial"


@pytest.mark.parametrize("number", ["+19005550100", "911", "sip:+19005550100@y.example"])
def test_the_fallback_dials_no_costly_number(number: str) -> None:
    with pytest.raises(ConfigError):
        dialed(number)


# The archive --------------------------------------------------------------------------------------

SAVED = Saved(former={"voice_url": "a"}, connected={"voice_url": "b"})


def test_a_saved_setup_can_be_loaded_and_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "numbers")
    assert archive.load(NUMBER) is None
    path = archive.save(NUMBER, SAVED)
    assert path == tmp_path / "numbers" / f"{NUMBER}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert archive.load(NUMBER) == SAVED
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    archive.save(NUMBER, replace(SAVED, former={}))
    assert archive.load(NUMBER) == replace(SAVED, former={})
    archive.forget(NUMBER)
    archive.forget(NUMBER)
    assert archive.load(NUMBER) is None


@pytest.mark.parametrize("number", ["../../etc/passwd", "+1555/../x", "", "15551230002"])
def test_a_name_that_is_not_a_number_has_no_file(number: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Archive(tmp_path).path(number)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps({"former": {}, "connected": None}),
        json.dumps({"former": {"voice_url": 1}, "connected": {}}),
        json.dumps({"former": {"account_sid": "AC2"}, "connected": {}}),
    ],
)
def test_a_file_that_is_not_ours_is_refused(content: str, tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.path(NUMBER).write_text(content)
    with pytest.raises(ConfigError, match="json"):
        archive.load(NUMBER)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text("a file")
    with pytest.raises(ConfigError, match="written"):
        Archive(tmp_path / "numbers").save(NUMBER, SAVED)
