"""Patterns as an automaton: the same answers as Python's matcher, in bounded time."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.agents.tools import pattern as linear_regex
from app.agents.tools.pattern import LinearRegex
from app.errors import ConfigError

CHARS = ["a", "b", "A", " ", "é", "_", "7", r"\n", ".", "\u017f", "K", "()"]
CLASSES = ["[ab]", "[^a]", "[a-c_]", r"[\W_]", r"[^\d\s]", r"\w", r"\W", r"\d", r"\s"]
LEAVES = st.sampled_from([*CHARS, *CLASSES, r"\b", r"\B", "^", "$", r"\A", r"\Z"])


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeat = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "{1,3}", "*?", "+?", "{0}"])
    group = st.sampled_from(["(?:{})", "({})", "(?i:{})", "(?m:{})", "(?s:{})", "(?a:{})"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, repeat).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        st.tuples(group, inner).map(lambda pair: pair[0].replace("{}", pair[1])),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
    )


PATTERNS = st.recursive(LEAVES, _grown, max_leaves=7)
TEXTS = st.text(alphabet="abAB é_7\n\u017fkK-", max_size=9)
FLAGS = st.sampled_from([0, re.IGNORECASE, re.MULTILINE, re.DOTALL, re.ASCII, re.I | re.M | re.S])


def _python_finds(pattern: str, text: str, flags: int) -> bool:
    """As `re.search`, whose shortcut to the first character forgets flags of a group: Python 3.11
    finds no `(?a:\\W)` in "é", though it matches there."""
    compiled = re.compile(pattern, flags)
    return any(compiled.match(text, at) for at in range(len(text) + 1))


@settings(max_examples=300, deadline=None)
@given(PATTERNS, TEXTS, FLAGS)
@example(r"(?a:\W)", "é", 0)
@example(r"(?:a|\b)*7", "a 7", 0)
@example(r"^$", "\n", 0)
@example(r"a$", "a\n", 0)
@example(r"(?i:k)", "\u212a", 0)
def test_it_finds_what_python_finds(pattern: str, text: str, flags: int) -> None:
    assert LinearRegex(pattern, flags).search(text) == _python_finds(pattern, text, flags)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"[\w.+-]+@[\w-]+\.[\w.]+", "write to joe.doe@example.com please", True),
        (r"[\w.+-]+@[\w-]+\.[\w.]+", "write to joe at example dot com", False),
        (r"\b(?:\d[ -]?){13,16}\b", "it is 4111 1111 1111 1111, thanks", True),
        (r"\b(?:\d[ -]?){13,16}\b", "call 555 0100", False),
        (r"guarantee\w*|promise", "I GUARANTEED it", False),
        (r"(?i)guarantee\w*|promise", "I GUARANTEED it", True),
        (r"(?i:refund)s? (?-i:NOW)", "REFUND NOW", True),
        (r"(?ia)é", "É", False),
        (r"(?u:\w)", "é", True),
    ],
)
def test_patterns_as_operators_write_them(pattern: str, text: str, found: bool) -> None:
    assert LinearRegex(pattern).search(text) is found
    assert bool(re.search(pattern, text)) is found


def test_a_pattern_that_would_backtrack_for_ever_costs_the_same_for_every_character() -> None:
    text = "a" * 400
    regex = LinearRegex(r"(?:a+)+b|(?:a|a)*c|(?:a*a*a*a*)*d")
    assert not regex.search(text)
    steps = len(regex._steps)
    assert not regex.search(text * 10)
    assert len(regex._steps) == steps, "a longer text of the same kind needs no new step"


def test_a_scan_with_much_to_do_pauses() -> None:
    regex = LinearRegex(r"(?:\w{1,30}\W{1,3}){0,10}z")
    text = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxy  ", k=2_000))
    first = len(list(regex.scan(text)))
    assert len(list(regex.scan(text))) < first > 3, "the second time everything is known"


def test_a_long_list_of_words_costs_no_more_places_than_a_short_one_and_pauses() -> None:
    words = LinearRegex("|".join(rf"\bword{number}\b" for number in range(50)))
    text = "word " * 4_000
    pauses = len(list(words.scan(text)))
    assert pauses == len(list(LinearRegex(r"\bword1\b").scan(text))) > 10
    assert words.search(f"{text}word49")
    assert not words.search(f"{text}word499")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_regex, "_MAX_REMEMBERED", 10)
    regex = LinearRegex(r"[\u4e00-\u9fff]{3}x")
    text = "".join(chr(0x4E00 + number) for number in range(200))
    assert not regex.search(text)
    assert regex.search(f"{text}x")
    assert len(regex._steps) <= 10


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (r"(a)\1", "refers back"),
        (r"(a)?(?(1)b|c)", "depends on a group"),
        (r"a(?=b)", "looks ahead"),
        (r"(?!)", "looks ahead"),
        (r"(?<!a)b", "looks ahead or behind"),
        (r"(?>a+)b", "atomic"),
        (r"a++b", "possessive"),
        (r"(a", "unterminated"),
        (r"(?:a{1,900}){1,900}", "too many"),
        ("(" * 700 + ")" * 700, "nested too deeply|too many|at most"),
        ("a" * 2_001, "at most 2000 characters"),
        (r"a{99999999999999}", "too large|too many"),
    ],
)
def test_a_pattern_that_cannot_be_bounded_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        LinearRegex(pattern)


def test_nothing_repeated_is_still_nothing() -> None:
    assert LinearRegex(r"x(?:){500000}y").search("xy")
