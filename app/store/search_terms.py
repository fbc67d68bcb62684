"""Words of transcripts as the full-text index has them, and queries for them. Pure.

Both databases index words that were cut here, so that both find the same: without case and accents,
letters and digits of any script. A query can hold nothing but words, so it can inject nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Term", "parse_query", "words_of"]

MAX_TERMS = 20
MAX_WORD_CHARS = 100


@dataclass(frozen=True, slots=True)
class Term:
    """Words that stand together; `prefix`: the last of them is the beginning of a word."""

    words: tuple[str, ...]
    prefix: bool = False


def words_of(text: str) -> list[str]:
    """The words of a text."""
    plain = text.casefold()
    if not plain.isascii():
        plain = unicodedata.normalize("NFKD", text).casefold()
        plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return [word[:MAX_WORD_CHARS] for word in re.findall(r"[^\W_]+", plain)]


def parse_query(text: str) -> Sequence[Term]:
    """The terms of a query, all of which must be found; none where it holds no word."""
    found = []
    for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', text):
        words = tuple(words_of(quoted or plain))
        if words:
            found.append(Term(words, prefix=not quoted and plain.endswith("*")))
    return found[:MAX_TERMS]
