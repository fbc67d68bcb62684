"""Facts that the offline receptionist tells of a business, and tools that it cannot reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.assembly.agents.receptionist import given_facts
from app.assembly.build import assemble
from app.assembly.voice_models import VoiceModels, offline_problems
from app.engine.receptionist.script_file import DEFAULT_SCRIPT
from app.realtime.connecting import GuardedModel
from app.settings import load

LIVE = {
    "TWILIO_ACCOUNT_SID": "AC" + "1" * 32,
    "TWILIO_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
    "TWILIO_PHONE_NUMBER": "+14155550100",
    "PUBLIC_URL": "https://voice.example.com",
}
HOURS = "{hours: {time_zone: UTC, open: {mon: '9:00-17:00'}}}"


def _missing(text: str, folder: Path, env: dict[str, str] = LIVE) -> list[str]:
    (folder / "config.yaml").write_text(f"voice_model: offline\n{text}\n", encoding="utf-8")
    problems = offline_problems(load(folder / "config.yaml", env))
    assert all(problem.startswith("config.yaml" * bool(text)) for problem in problems), problems
    return [problem.rpartition("offline.")[2] for problem in problems]


def _dialogue(folder: Path, **facts: str) -> str:
    """The built-in dialogue with other facts, as a file of the operator's."""
    text = DEFAULT_SCRIPT.read_text(encoding="utf-8")
    start, end = text.index("facts:\n"), text.index("# Short, since")
    written = "".join(f"  {name}: {fact}\n" for name, fact in facts.items()) or "  any: thing\n"
    (folder / "mine.yaml").write_text(f"{text[:start]}facts:\n{written}\n{text[end:]}", "utf-8")
    return "receptionist: mine.yaml"


@pytest.mark.offline_speech
@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", ["business", "hours", "address"]),
        ("offline: {business: Harbor Clinic, hours: ''}", ["hours", "address"]),
        ("offline: {business: A, hours: B, address: C}", []),
        (f"offline: {{business: A, address: C}}\nnumbers: {{+14155550100: {HOURS}}}", []),
        (f"offline: {{business: A, address: C}}\nnumbers: {{+14155550199: {HOURS}}}", ["hours"]),
        ("offline: {business: A, address: C}\nnumbers: {+14155550100: {}}", ["hours"]),
    ],
)
def test_real_callers_are_not_told_of_the_demo_office(
    text: str, missing: list[str], tmp_path: Path
) -> None:
    assert _missing(text, tmp_path) == missing
    assert _missing(text, tmp_path, {}) == []  # simulated ones may be


@pytest.mark.offline_speech
@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        ({"business": "A", "hours": "B", "address": "C"}, []),
        ({"business": "the Trunkline demo office", "hours": "B", "address": "C"}, ["business"]),
        ({"business": "A"}, ["hours", "address"]),
        ({}, ["business", "hours", "address"]),
    ],
)
def test_a_dialogue_of_ones_own_needs_facts_too(
    facts: dict[str, str], missing: list[str], tmp_path: Path
) -> None:
    own = _dialogue(tmp_path, **facts)
    assert _missing(f"offline: {{{own}}}", tmp_path) == missing
    unknown = [name for name in missing if name not in facts]
    assert _missing(f"offline: {{{own}}}", tmp_path, {}) == unknown
    given = "".join(f", {name}: x" for name in missing)
    assert _missing(f"offline: {{{own}{given}}}", tmp_path) == []


def test_a_full_stop_after_a_fact_is_not_said_twice(tmp_path: Path) -> None:
    text = "offline: {hours: 'Monday to Friday.'}"
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert given_facts(load(tmp_path / "config.yaml", {})) == {"hours": "Monday to Friday"}


def test_each_number_has_a_model_that_knows_its_hours(tmp_path: Path) -> None:
    asked = []

    class Models(VoiceModels):
        def named(self, name: str | None = None, hours: str = "") -> GuardedModel:
            asked.append((name, hours))
            return super().named(name)

    text = f"voice_model: offline\nnumbers: {{+14155550100: {HOURS}, +14155550101: {{}}}}"
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    settings = load(tmp_path / "config.yaml", {})
    assemble(settings, Models(settings))
    monday = "Monday, from 9 AM to 5 PM"
    assert asked == [(None, monday), (None, monday), (None, "")]


def test_tools_that_the_dialogue_cannot_reach_are_named(tmp_path: Path) -> None:
    text = """
voice_model: offline
agents:
  a: {tools: [transfer_call, look_up], handoffs: [b]}
  b: {tools: [end_call], description: x}
tools: {look_up: {description: x, http: {url: https://example.com/a}}}
destinations: {x: {number: +14155550123}}
"""
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    [notice] = assemble(load(tmp_path / "config.yaml", {})).notices()
    assert notice == (
        "config.yaml:4: agents.a: the offline dialogue never calls look_up, transfer_to_b."
        " Write one that does, and set offline.receptionist"
    )
