"""JSON of strangers, whose texts every encoder takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.json_text import parse_json, whole_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud800"', "?"),
        (r'"a\uDC00b"', "a?b"),
        (r'"\ude00\ud83d"', "??"),
        (r'{"\ud800": ["\ud83d", {"a": "\udfff"}]}', {"?": ["?", {"a": "?"}]}),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\\ud800"', r"\ud800"),
        (r'"\u0000"', "\0"),
        ('"\ud800"', "?"),
        (b'"\xed\xa0\x80"', "?"),
        ('"Gr\u00fc\u00dfe \U0001f600"'.encode(), "Gr\u00fc\u00dfe \U0001f600"),
        ('\ufeff"x"', "x"),
        ('"\u00fc"'.encode("utf-16"), "\u00fc"),
        ("[1, 1.5, null, true]", [1, 1.5, None, True]),
    ],
    ids=ascii,
)
def test_half_of_a_character_is_replaced_and_all_else_is_read_as_ever(
    text: str | bytes, value: Any
) -> None:
    assert parse_json(text) == value
    json.dumps(parse_json(text), ensure_ascii=False).encode()


@pytest.mark.parametrize("text", ["", "{", b"\xff", b'"\xff"', r'"\ud8"', "[" * 100_000])
def test_what_is_not_json_is_an_error(text: str | bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_json(text)


def test_a_text_that_is_whole_is_left_as_it_is() -> None:
    for text in ("", "plain \0", "Gr\u00fc\u00dfe \U0001f600"):
        assert whole_text(text) == text
