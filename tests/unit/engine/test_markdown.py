"""Markdown made speakable: marks go, what is meant stays, wherever a stream is split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.stages.markdown import Piece, SpokenPieces, spoken_words

MARKS = [
    ("**bold**", "bold"),
    ("A *very* __big__ _deal_, ***really***.", "A very big deal, really."),
    ("**bold.** Next", "bold. Next"),
    ("**One. Two.**", "One. Two."),
    ("**Note:** text", "Note: text"),
    ("**Note:**text", "Note:text"),
    ("**5 minutes**", "5 minutes"),
    ("*5 minutes*", "5 minutes"),
    ('**"Hi"** she said', '"Hi" she said'),
    ("这是**重点**内容", "这是重点内容"),
    ("~~old~~ new", "old new"),
    ("# Title\nText", "Title Text"),
    ("### A title\n\nText", "A title Text"),
    ("- one\n- two\n* three\n+ four\n• five", "one two three four five"),
    ("* *one*\n* **two**: x", "one two: x"),
    ("1. **Tea**: 2 *euros*", "1. Tea: 2 euros"),
    ("- [ ] milk\n- [x] eggs", "milk eggs"),
    ("> quoted", "quoted"),
    ("one\n---\ntwo\n***\nthree", "one two three"),
    ("Title\n=====\nText", "Title Text"),
    ("[our site](https://a.example/c_d)", "our site"),
    ("[**Book**](https://a.example) now", "Book now"),
    ('[docs](https://a.example "The docs") here', "docs here"),
    ("[docs][1] here", "docs here"),
    ("(see [it](https://a.example/A_(b)))", "(see it)"),
    ("See ![a map](map.png).", "See a map."),
    ("Go to https://www.example.com/ now", "Go to www.example.com now"),
    ("https://example.com/a_b_c/d", "example.com/a_b_c/d"),
    ("**https://example.com**", "example.com"),
    ("<https://example.com/>", "example.com"),
    ("<ask@example.com>", "ask@example.com"),
    ("Use `ls -l *` and `a_b`", "Use ls -l * and a_b"),
    ("```python\nx = 1 * 2\n# x\n```\nDone", "x = 1 * 2 # x Done"),
    ("| Name | Price |\n|:---|---:|\n| Tea | 2 |", "Name, Price Tea, 2"),
    ("Name | Price\n--- | ---\nTea | 2", "Name, Price Tea, 2"),
    ("Great \U0001f44d\U0001f3fd ok \U0001f468\u200d\U0001f469\u200d\U0001f467", "Great ok"),
    ("\u2705 Done \U0001f1e9\U0001f1ea", "Done"),
    ("1\ufe0f\u20e3 first", "1 first"),
    ("line<br>two", "line two"),
    ("1\\. x \\*y\\*", "1. x *y*"),
]
MEANT = [
    "2 * 3",
    "2*3*4",
    "2 ** 3",
    "2**3",
    "C# and F#",
    "#4",
    "We are #1",
    "snake_case_name",
    "*67",
    "Dial *67 or *69 now",
    "*#06#",
    "##002#",
    "*100#",
    "*21*5551234#",
    "**21*5551234#",
    "Press * to go back",
    "Press '*' or '#'",
    "Press '*' and then '*'",
    "Press (*) or (*)",
    "+1 555-123-4567",
    "(555) 123-4567",
    "-5 degrees",
    "~5 minutes",
    "An A* grade",
    "a card that ends in ****1234",
    "5 > 3 < 4",
    "[1] and [x]",
    "x^2 costs $5 & 10%",
    "*.txt and *.pdf",
    "<laugh> Well",
    "a|b",
    "http is a word, https too",
    "क्\u200dष",
    "Oh!",
]


def pieces_of(*parts: str) -> list[Piece]:
    spoken = SpokenPieces()
    found = [piece for part in parts for piece in spoken.push(part)]
    return found + spoken.flush()


def said(pieces: list[Piece]) -> str:
    return " ".join(piece.spoken for piece in pieces)


@pytest.mark.parametrize(("text", "words"), MARKS + [(text, text) for text in MEANT])
def test_marks_are_not_spoken_and_all_else_is_wherever_the_stream_is_split(
    text: str, words: str
) -> None:
    for at in range(len(text) + 1):
        pieces = pieces_of(text[:at], text[at:])
        assert said(pieces) == words, (text[:at], text[at:])
        assert "".join(piece.written for piece in pieces) == text
    assert said(pieces_of(*text)) == words


@pytest.mark.parametrize("text", ["*", "--", "#", "\U0001f44d", "```", "\u2014", "| |", ""])
def test_nothing_is_spoken_where_there_is_no_word(text: str) -> None:
    assert pieces_of(text) == []


def test_each_piece_has_what_was_written_for_it() -> None:
    assert pieces_of(
        "# Today\n\n- **Fish** is fresh. ", "We have [tea](https://a.example) too."
    ) == [
        Piece("Today", "# Today"),
        Piece("Fish is fresh.", "\n\n- **Fish** is fresh."),
        Piece("We have tea too.", " We have [tea](https://a.example) too."),
    ]


def test_words_do_not_wait_for_the_mark_that_closes() -> None:
    spoken = SpokenPieces()
    [first] = spoken.push("**Please bring your card. And then")
    assert first == Piece("Please bring your card.", "**Please bring your card.")


ODD = st.text(alphabet="ab1 \n*_#-|[]()`<>\\~!+=.:/h\U0001f44d", max_size=60)


@settings(deadline=None)
@given(ODD, st.lists(st.integers(0, 60), max_size=6))
def test_no_split_changes_what_is_spoken_and_what_was_written_keeps_its_order(
    text: str, cuts: list[int]
) -> None:
    places = [0, *sorted(cuts), len(text)]
    pieces = pieces_of(*(text[start:end] for start, end in pairwise(places)))
    whole = pieces_of(text)
    assert said(pieces).split() == said(whole).split()
    # Marks behind the last piece belong to none.
    assert text.startswith("".join(piece.written for piece in pieces))


@pytest.mark.parametrize(
    "text", ["[a", "[a[aa", "**5 ", "| a ", "[", "`", "*", "a_", "<a", "\\", "- ", "x "]
)
def test_a_thousand_marks_in_a_line_are_read_to_their_end(text: str) -> None:
    """Expressions that try every way to read them would never end."""
    assert spoken_words(text * 1_000 + "\nlast").endswith("last")
