"""The tables of docs/outbound.md about placed calls say what the code does."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from app.calls.actions import End
from app.calls.outbound import dialer
from app.calls.outbound.answering import MENU_NOTE
from app.calls.outbound.campaigns import CampaignOptions
from app.calls.outbound.dial_policy import Refusal
from app.calls.policy import AnsweredByRules
from app.events import AnsweredBy
from app.web.api.outbound import RetryAfter
from tests.unit.calls.outbound.test_answering import (
    DISCLOSURE,
    MAILBOX,
    MESSAGE,
    SCREENING,
    Placed,
    notes,
)

DOCS: Final = (Path(__file__).parents[4] / "docs" / "outbound.md").read_text(encoding="utf-8")
GREETING: Final = "Am I speaking with Mrs. Smith?"


def table(heading: str) -> dict[str, str]:
    """The rows of the table whose first heading this is: each name in backticks, and its text."""
    [rows] = re.findall(rf"\| {heading} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", DOCS)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]
    return {name: text for names, text in cells for name in re.findall(r"`(\w+)`", names)}


RULES: Final[dict[str, Any]] = {"screening_text": SCREENING, "message": MESSAGE}
HEARD: Final[dict[AnsweredBy, tuple[str, ...]]] = {
    AnsweredBy.HUMAN: ("voice 500", "quiet 900", "says Hello?", "quiet 400"),
    AnsweredBy.SCREENING: (
        "voice 4000", "quiet 800", "says State your name and why you are calling.", "quiet 200"
    ),
    AnsweredBy.VOICEMAIL: (
        "voice 4000", "quiet 800", f"says {MAILBOX}", "quiet 200", "tone 1000 400", "quiet 400"
    ),
    AnsweredBy.IVR: ("voice 3000", "quiet 800", "says For sales, press 1.", "quiet 200"),
    AnsweredBy.HOLD: (
        "voice 4000", "quiet 800", "says All of our agents are busy, please hold.", "quiet 200"
    ),
    AnsweredBy.FAX: ("quiet 200", "tone 2100 1500", "quiet 200"),
    AnsweredBy.NOBODY: ("quiet 16000",),
}  # fmt: skip


def seen(verdict: AnsweredBy, **rules: Any) -> set[str]:
    """The words of the documented table for what the code does about a verdict."""
    call = Placed(AnsweredByRules(**{**RULES, **rules}), greeting=GREETING)
    call.hear("quiet 400")
    if verdict is AnsweredBy.NOBODY:
        call.hear("quiet 4000").say_all(DISCLOSURE)  # asked for in their silence
    call.hear(*HEARD[verdict])
    assert call.verdicts() == [verdict]
    said: list[str] = []
    for _ in range(2):
        said += (asked := call.words())
        if asked:
            call.say_all(" ".join(asked))
    call.hear("quiet 31000", "quiet 90000")
    spoken, found = " ".join(said), set[str]()
    for words, text in (
        ("the disclosure", DISCLOSURE),
        ("the greeting", GREETING),
        ("`screening`", SCREENING),
        ("`message`", MESSAGE),
    ):
        if text in spoken:
            found.add(words)
    if call.take(End) and verdict is not AnsweredBy.HUMAN:  # with people, that is inactivity
        found.add("the call ends")
    if MENU_NOTE in notes(call):
        found.add("presses keys")
    return found


PHRASES: Final = {
    "the disclosure", "the greeting", "`screening`", "`message`", "the call ends", "presses keys"
}  # fmt: skip


@pytest.mark.parametrize("verdict", HEARD)
def test_each_verdict_has_the_course_that_its_row_tells(verdict: AnsweredBy) -> None:
    row = table("Verdict")[verdict.value]
    done = seen(verdict)
    if verdict is AnsweredBy.IVR:
        done |= seen(verdict, talk_to_menus=True)
    assert {phrase for phrase in PHRASES if phrase in row} == done


def test_the_table_of_verdicts_has_all_of_them_and_the_limits_of_the_code() -> None:
    rows, rules = table("Verdict"), AnsweredByRules()
    verdicts = {verdict.value for verdict in AnsweredBy if verdict is not AnsweredBy.UNKNOWN}
    assert verdicts <= set(rows)
    assert f"{rules.screening_wait_ms // 1000} s of listening" in rows["screening"]
    assert f"{rules.message_silence_ms / 1000:g} s of silence" in rows["voicemail"]


def test_a_mailbox_without_a_message_is_hung_up_on_at_once() -> None:
    assert seen(AnsweredBy.VOICEMAIL, message="") == {"the call ends"}
    assert "Without a `message` the call ends at once" in table("Verdict")["voicemail"]


def test_every_refusal_is_documented_and_no_other() -> None:
    raised = {
        keyword.value.value
        for node in ast.walk(ast.parse(inspect.getsource(dialer)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "PlacingRefused"
        for keyword in node.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }
    codes = raised | set(dialer._NOT_READY) | {refusal.value for refusal in Refusal}
    assert set(table("Code")) - {"not_before", "time_zone", "marketing"} == codes


def test_the_documented_pauses_are_those_of_the_code() -> None:
    units = {"minutes": 60, "hour": 3_600, "hours": 3_600, "day": 86_400}
    documented: dict[str, int | None] = {}
    for name, text in table("After").items():
        count, _, unit = text.partition(";")[0].partition(" ")
        seconds = units.get(unit)
        documented[name] = seconds and seconds * int({"a": "1"}.get(count, count))
    assert documented == dict(CampaignOptions().retry_s)
    assert set(documented) == set(get_args(RetryAfter))
