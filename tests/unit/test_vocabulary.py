"""The words that code is written in: the field's, as docs/architecture.md lists them.

`INSTEAD` holds the words that an earlier version had for itself. An identifier may not contain one,
and neither may a test's name; `ALLOWED` are the identifiers that mean something else by it. The
second check is on docstrings: each begins with a subject or a verb.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for room in ("app", "audio", "trunkline", "tests") for path in ROOT.glob(f"{room}/**/*.py")
)

# A word, or several in a row, in an identifier: the words to use in its place.
INSTEAD = {
    "brain": "analyzer, review or delegate",
    "by_facts": "route",
    "cast": "agents of a handoff",
    "chore": "background job",
    "deed": "action",
    "crowd": "mixed calls",
    "desk": "switchboard; a place that is called is a reception or a front desk",
    "door": "access rule, or route",
    "ear": "caller, or speech detector",
    "elsewhere": "diversion, or the other thing by name",
    "errand": "background job",
    "examination": "check",
    "farewell": "closing prompt or goodbye",
    "finding": "result",
    "giver": "the agent that hands off",
    "handover": "handoff, or socket passing",
    "handset": "keypad",
    "hire": "assemble",
    "interjection": "barge-in",
    "judgement": "result",
    "lane": "message transport",
    "judging": "checking",
    "judgment": "decision",
    "lifeline": "control socket",
    "manners": "call timers or policy",
    "mood": "fault",
    "mouth": "synthesizer, or agent audio",
    "outlet": "frame writer",
    "owe": "due",
    "owed": "deferred",
    "passage": "passthrough",
    "patience": "time limit, or call timers",
    "phone_leg": "caller leg",
    "relay": "information to pass on",
    "remark": "idle message",
    "resumption": "false interruption",
    "scene": "harness",
    "seat": "route",
    "second_leg": "consult leg",
    "setback": "failure",
    "spoken_over": "barge-in",
    "staff": "assemble, or roster",
    "still_there": "inactivity prompt",
    "taker": "the agent that takes over",
    "talents": "capabilities",
    "telling": "report",
    "thinking": "analysis",
    "unsay": "drop",
    "workplace": "worker process",
    "wish": "response request, or intent",
}

# Identifiers in which a word of the table means something else, and the reason.
ALLOWED = {
    "brain": "an option of AgentSession that is read for one more version",
    "cast": "typing.cast",
    "make_relay": "tests.bench.relay passes sound on, as a measure",
    "relay": "tests.bench.relay passes sound on, as a measure",
    "RELAY": "SayMode.RELAY is public",
    "THINKING": "TurnState.THINKING: the caller's turn is over and the model has not begun",
    "thinking": "a property of AgentSession that is kept for one more version",
}

# A docstring answers no question that nobody asked: it says what the thing is, or does.
QUESTION_WORDS = {
    *("How", "What", "When", "Where", "Whether", "Which", "Who", "Whom", "Whose", "Why"),
}

_BEGINS_WITH_QUESTION = re.compile(rf"[\"']\W*(?:{'|'.join(QUESTION_WORDS)})\b")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_REFUSED = re.compile("_(" + "|".join(INSTEAD) + ")e?s?(?:ed|ing|d)?_")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def private_word(identifier: str) -> str | None:
    """The word of the table that an identifier contains, if any."""
    spelled = "_" + "_".join(part.lower() for part in _PARTS.findall(identifier)) + "_"
    found = None if identifier in ALLOWED else _REFUSED.search(spelled.replace("_front_desk", ""))
    return found[1] if found else None


def identifiers(text: str) -> Iterator[tuple[int, str]]:
    """The names in a module, each with its line; of one without private words, nothing."""
    if not any(private_word(word) for word in set(re.findall(r"\w+", text))):
        return  # a hundred times quicker than its tokens
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """The docstrings in a module, also those behind a constant or a field.

    Of a module in which no string begins with a question word, nothing.
    """
    if not _BEGINS_WITH_QUESTION.search(text):
        return  # a hundred times quicker than its tree
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value


@pytest.mark.parametrize(
    ("identifier", "word"),
    [
        ("PATIENCE_S", "patience"),
        ("_Ear", "ear"),
        ("StaffingError", "staff"),
        ("second_leg_id", "second_leg"),
        ("wishes", "wish"),
        ("claimed_by_seats", "seat"),
        ("year", None),
        ("broadcast", None),
        ("handoff", None),
        ("FRONT_DESK", None),
    ],
)
def test_a_private_word_is_found_in_any_case_and_number(identifier: str, word: str | None) -> None:
    assert private_word(identifier) == word


def test_identifiers_are_made_of_the_fields_words() -> None:
    broken = [
        f"{name_of(path)}:{line}: {name}: for {word!r} write {INSTEAD[word]}"
        for path in FILES
        for line, name in identifiers(path.read_text(encoding="utf-8"))
        if (word := private_word(name))
    ]
    assert not broken, "\n".join(broken)


def test_docstrings_begin_with_no_question_word() -> None:
    broken = [
        f"{name_of(path)}:{line}: {words[0]} ..."
        for path in FILES
        for line, text in docstrings(path.read_text(encoding="utf-8"))
        if (words := re.findall(r"\w+", text)) and words[0] in QUESTION_WORDS
    ]
    assert not broken, "\n".join(broken)


def test_files_are_named_in_the_fields_words_too() -> None:
    words = {name_of(path): private_word(path.stem) for path in FILES}
    assert {name: word for name, word in words.items() if word} == {}
