"""Words as the full-text index has them, and queries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.search_terms import Term, parse_query, words_of

TEXTS = {
    "Hello, World!": ["hello", "world"],
    "Größe STRASSE straße": ["große", "strasse", "strasse"],
    "café CAFE\u0301": ["cafe", "cafe"],
    "don't o'clock": ["don", "t", "o", "clock"],
    "+1 (555) 000-1111": ["1", "555", "000", "1111"],
    "snake_case a/b c:d": ["snake", "case", "a", "b", "c", "d"],
    "\u65e5\u672c\u8a9e": ["\u65e5\u672c\u8a9e"],
    "\0 \ud800 \U0001f600": [],
    "": [],
}
TEXTS["Größe STRASSE straße"] = ["grosse", "strasse", "strasse"]


@pytest.mark.parametrize("text", TEXTS)
def test_words_have_neither_case_nor_accents(text: str) -> None:
    assert words_of(text) == TEXTS[text]


QUERIES = {
    "open hours": [Term(("open",)), Term(("hours",))],
    '"open at nine" please': [Term(("open", "at", "nine")), Term(("please",))],
    "appoint*": [Term(("appoint",), prefix=True)],
    "don't": [Term(("don", "t"))],
    '"unclosed quote': [Term(("unclosed",)), Term(("quote",))],
    '"" * "*" -': [],
    "a OR b": [Term(("a",)), Term(("or",)), Term(("b",))],
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_words_phrases_and_beginnings(query: str) -> None:
    assert list(parse_query(query)) == QUERIES[query]


@given(st.text())
def test_a_query_of_any_text_holds_letters_and_digits_only(text: str) -> None:
    for term in parse_query(text):
        assert term.words
        assert all(word.isalnum() for word in term.words)
