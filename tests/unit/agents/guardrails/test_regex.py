"""Patterns in linear time: the same answers as Python's matcher, but for what is refused."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.agents.tools.pattern import LinearRegex
from app.errors import ConfigError

CHARS = ["a", "b", "A", " ", "é", "_", "7", r"\n", ".", "\u017f", "K", "()"]
CLASSES = ["[ab]", "[^a]", "[a-c_]", r"[\W_]", r"[^\d\s]", r"\w", r"\W", r"\d", r"\s"]
ANCHORS = [r"\b", r"\B", "^", "(?m:^)", "(?m:$)", r"\A", r"\z"]
LEAVES = st.sampled_from([*CHARS, *CLASSES, *ANCHORS])


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeat = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "{1,3}", "*?", "+?", "{0}"])
    group = st.sampled_from(["(?:{})", "({})", "(?i:{})", "(?s:{})", "(?-i:{})"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, repeat).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        st.tuples(group, inner).map(lambda pair: pair[0].replace("{}", pair[1])),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
    )


PATTERNS = st.recursive(LEAVES, _grown, max_leaves=7)
# Not empty: until 3.14, Python finds no \B there.
TEXTS = st.text(alphabet="abAB é_7\n\u017fkK-", min_size=1, max_size=9)


def _python_finds(pattern: str, text: str, *, ignore_case: bool) -> bool:
    r"""As `re.search`, whose shortcut to the first character forgets flags of a group.

    Python knows `\z` from 3.14 on, and calls it `\Z` in all versions.
    """
    pythons = re.compile(pattern.replace(r"\z", r"\Z"), re.IGNORECASE if ignore_case else 0)
    return any(pythons.match(text, at) for at in range(len(text) + 1))


@settings(max_examples=300, deadline=None)
@given(PATTERNS, TEXTS, st.booleans())
@example(r"(?:a|\b)*7", "a 7", False)
@example(r"^\z", "\n", False)
@example(r"(?i:k)", "\u212a", False)
@example("(?-i:a)B", "ab", True)
def test_it_finds_what_python_finds(pattern: str, text: str, ignore_case: bool) -> None:
    found = LinearRegex(pattern, ignore_case=ignore_case).search(text)
    assert found == _python_finds(pattern, text, ignore_case=ignore_case)


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
        (r"[\]\[a&-]+", "]", True),
        (r"[^]]+", "]", False),
        (r"\++", "+", True),
        (r"(?:a+)+?b", "ab", True),
        (r"(?u:\w)", "é", True),
    ],
)
def test_patterns_as_operators_write_them(pattern: str, text: str, found: bool) -> None:
    assert LinearRegex(pattern).search(text) is found
    assert bool(re.search(pattern, text)) is found


def test_the_end_is_the_end_and_not_before_a_last_line_break() -> None:
    assert not LinearRegex("a$").search("a\n")
    assert LinearRegex("(?m)a$").search("a\n")


def test_half_a_surrogate_pair_hides_nothing() -> None:
    assert LinearRegex("gold").search("\ud800 gold")
    assert not LinearRegex("silver").search("\ud800 gold")


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?:a+)+!|(?:a|a)*#|(?:a*a*a*a*)*%",
        r"(?:\w{1,10}\W{1,3}){0,10}z",
        "|".join(rf"\bword{number}\b" for number in range(150)),
        r"[ab]*a[ab]{2000}c",
        r"(?s)a.{0,1500}z.{0,1500}q",
        r"(?:a?){1000}a{1000}b",
    ],
)
@pytest.mark.parametrize("text", ["a" * 4_000, "word " * 800, "aé漢 " * 1_000], ids=len)
def test_no_pattern_takes_long_for_any_text(pattern: str, text: str) -> None:
    regex = LinearRegex(pattern)
    began = time.thread_time()
    assert not regex.search(text)
    assert time.thread_time() - began < 0.3


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (r"(a)\1", "backreferences"),
        (r"(a)?(?(1)b|c)", "conditional groups"),
        (r"a(?=b)", "look-ahead"),
        (r"(?!)", "look-ahead"),
        (r"(?<!a)b", "look-behind"),
        (r"(?>a+)b", "atomic"),
        (r"a++b", "possessive"),
        (r"a{2}{3}", "follows another"),
        (r"[[a]]", "bracket inside"),
        (r"[[:alpha:]]", "bracket inside"),
        (r"[a&&b]", "inside a character class"),
        (r"[a-z--b]", "inside a character class"),
        (r"\<b", "word boundary"),
        (r"\b{2}", "word boundary"),
        (r"(?a:\w)", "flag"),
        (r"a\Z", "escape"),
        (r"(a", "unclosed"),
        (r"(?:a{1,900}){1,900}", "too large"),
        ("(" * 700 + ")" * 700, "nested"),
        ("a" * 2_001, "at most 2000 characters"),
        (r"a{99999999999999}", "decimal"),
    ],
)
def test_a_pattern_that_cannot_be_bounded_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        LinearRegex(pattern)


def test_nothing_repeated_is_still_nothing() -> None:
    assert LinearRegex(r"x(?:){500000}y").search("xy")
