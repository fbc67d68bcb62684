"""A stream of words cut into pieces that are spoken one by one.

The first piece may end at a comma, so that the caller hears something soon; later ones end at
sentence ends. No cut falls behind an abbreviation, an initial or an ordinal, nor inside a number, a
time, an amount or an address on the web. Pure.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["Sentences", "has_words", "sentences_of"]

_FIRST_MIN: Final = 24
"""Characters before a comma may end the first piece: fewer would sound chopped."""
_SHORT: Final = 12
"""A sentence of less waits for the next one: "Yes." and what follows belong together."""
_LONGEST: Final = 240

_END: Final = re.compile(r"[.!?\u2026]+[\"')\]\u201d\u2019]*(?=\s)|[\u3002\uff01\uff1f]|\n+")
_CLAUSE: Final = re.compile(r"[,;:\u2014](?=\s)|[\uff0c\uff1b]")  # Chinese marks need no blank
_ABBREVIATIONS: Final = frozenset(
    (  # noqa: SIM905 - a list of so many would be as many lines
        "mr mrs ms mx dr prof sr jr st ave blvd rd hwy no nr vs etc inc ltd co corp dept est approx"
        " ca e.g i.e a.m p.m u.s u.k ph.d m.d jan feb mar apr jun jul aug sep sept oct nov dec mon"
        " tue wed thu fri sat sun ext tel fig vol pp al gen col sgt capt lt rev hon messrs mt ft hr"
        " hrs min z.b d.h u.a bzw str fr bspw usw evtl inkl m p mme mlle"
    ).split()
)
# These end a sentence as often as not: a capital behind them decides.
_PERHAPS: Final = frozenset({"etc", "a.m", "p.m", "inc", "ltd", "co", "usw", "no", "u.s", "u.k",
                             "min", "hrs", "jr", "sr", "sun", "sat", "mar", "may"})  # fmt: skip
_LAST_WORD: Final = re.compile(r"([\w.]+)$")


def has_words(piece: str) -> bool:
    """True if there is something to say: servers fail on an emoji, a dash or a row of stars."""
    return any(map(str.isalnum, piece))


def sentences_of(text: str) -> list[str]:
    """The pieces of a whole text."""
    sentences = Sentences(early=False)
    return [*sentences.push(text), *sentences.flush()]


class Sentences:
    """Takes words as a model writes them; gives pieces to be spoken, in order."""

    def __init__(self, *, early: bool = True) -> None:
        """`early`: the first piece may end at a comma."""
        self._text = ""
        self._first = early

    def push(self, words: str) -> list[str]:
        """More words; the pieces that they complete."""
        self._text += words
        pieces: list[str] = []
        while (cut := self._cut()) is not None:
            piece, self._text = self._text[:cut].strip(), self._text[cut:]
            if piece:
                pieces.append(" ".join(piece.split()))
                self._first = False
        return pieces

    def flush(self) -> list[str]:
        """The end: whatever is left."""
        rest, self._text = " ".join(self._text.split()), ""
        return [rest] if rest else []

    def _cut(self) -> int | None:
        """The end of the next piece; `None` while it is not known."""
        text = self._text
        clause = self._early_clause(text)
        for found in _END.finditer(text):
            end = found.end()
            if len(text[:end].strip()) < _SHORT and "\n" not in found[0]:
                continue
            if clause is not None and clause < end:
                return clause
            verdict = _ends_sentence(text, found.start(), end)
            if verdict is None:
                return clause  # what follows will decide
            if verdict:
                return end
        if clause is not None:
            return clause
        if len(text) > _LONGEST:
            clauses = [found.end() for found in _CLAUSE.finditer(text[:_LONGEST])]
            return clauses[-1] if clauses else max(text.rfind(" ", 0, _LONGEST), 0) or _LONGEST
        return None

    def _early_clause(self, text: str) -> int | None:
        ends = (found.end() for found in _CLAUSE.finditer(text)) if self._first else ()
        return next((end for end in ends if end >= _FIRST_MIN), None)


def _ends_sentence(text: str, start: int, end: int) -> bool | None:
    """True if a sentence ends there; `None` while that depends on what follows."""
    if text[start] != ".":
        return True
    if text[start : start + 3] == "...":
        return True
    word = _LAST_WORD.search(text[:start])
    if word is None:
        return True
    last = word[1].lower().rstrip(".")
    following = text[end:].lstrip()
    if not following:
        # A word that may be an abbreviation waits for what comes; others end here.
        open_ended = last in _ABBREVIATIONS or len(last) == 1 or last.isdecimal()
        return None if open_ended else True
    if len(last) == 1 and last.isalpha() and last != "i":
        return False  # an initial: J. S. Bach
    if last in _ABBREVIATIONS:
        return last in _PERHAPS and following[0].isupper()
    if last.isdecimal() and len(last) <= 2:
        # "1. Open the door" and the German "am 3. Mai" go on; "at 9. Please come" ends.
        if not text[: word.start()].strip():
            return False
        if len(following) < 3:
            return None
        return following[0].isupper() and not _month(following)
    return True


def _month(text: str) -> bool:
    return bool(re.match(r"(?:Jan|Feb|M[aä]r|Apr|Ma[iy]|Jun|Jul|Aug|Sep|O[ck]t|Nov|De[cz])", text))
