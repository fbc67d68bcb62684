"""The spoken words of a text model's answer: without the marks of Markdown, and without emoji.

Only marks go: `2 * 3`, `C#`, `#4`, `snake_case`, `-5` and `*67` stay as they are. A piece may end
anywhere, also inside a mark: what a mark means is decided once enough of what follows is there. The
marks are those of CommonMark 0.31 and GitHub's tables, judged by their neighbours, as there. Pure.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.engine.stages.sentences import Sentences, has_words

__all__ = ["Piece", "SpokenPieces", "spoken_words"]

_MARKS: Final = "-*_=+|:~ \t\r"
"""A line of nothing else is a rule, an underline, or the line below a table's head."""
_LONGEST_MARK: Final = 60
"""Characters that a mark waits for the one that closes it: the caller waits too."""
_LONGEST_LINK: Final = 400
_MOST_STARS: Final = 3

_BLOCK: Final = re.compile(r"[ \t]*(?:#{1,6}[ \t]+|[-*+•][ \t]+(?:\[[ xX]\][ \t]+)?|>[ \t]+|\|)")
_MAY_BE_BLOCK: Final = re.compile(
    r"[ \t]*(?:#{1,6}|`{1,2}|~{1,2}|>|[-*+•](?:[ \t]+(?:\[(?:[ xX](?:\][ \t]*)?)?)?)?)?"
)
_FENCE: Final = re.compile(r"[ \t]*(?:```|~~~)[^`\n]*(\n?)")
_PICTURES: Final = (
    r"\ufe0f\u20e3\u2600-\u27bf\u2b50\u2b55\u231a\u231b\u23e9-\u23fa\U0001f000-\U0001faff"
    r"\U000e0020-\U000e007f"
)
_EMOJI: Final = re.compile(f"[{_PICTURES}]")
_PLAIN: Final = re.compile(rf"[^\s*_~`\[!<\\|hH\u200d{_PICTURES}]+")
_JOINER: Final = "\u200d"  # between emoji a part of one; Indian scripts need it in their words
_SCHEMES: Final = ("https://", "http://")
_URL_ENDS: Final = "<>()[]\"'`*|"
_LINK: Final = re.compile(
    r"!?\[((?:[^\[\]\n]|\[[^\[\]\n]*\])*)\](?:\([ \t]*<?((?:[^\s()<>]|\([^\s()]*\))*)>?"
    r"(?:[ \t]+(?:\"[^\"\n]*\"|'[^'\n]*'))?[ \t]*\)|\[[^\[\]\n]*\])"
)
_MAY_BE_LINK: Final = re.compile(
    r"!?(?:\[(?:[^\[\]\n]|\[[^\[\]\n]*(?:\]|\Z))*(?:\](?:[(\[][^\n]*)?)?)?"
)
_TAG: Final = re.compile(r"<(?:br[ \t]*/?|(?:https?://)?([^\s<>]+[.@][^\s<>]+))>")
_MAY_BE_TAG: Final = re.compile(r"<(?:[A-Za-z][^\s<>]*|br[ \t]*/?)?")
_ESCAPED: Final = frozenset("\\`*_{}[]<>()#+-.!|~")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece to be spoken, and what was written for it.

    Joined, `written` is the text, but for marks and blanks behind its last word.
    """

    spoken: str
    written: str


class SpokenPieces:
    """Takes words as a model writes them; gives pieces to be spoken, in order."""

    def __init__(self) -> None:
        self._plain = _Plain()
        self._sentences = Sentences()
        self._written: deque[tuple[str, str]] = deque()
        """Each character to be spoken, with what was written for it."""
        self._unspoken = ""
        """Written before the next piece, without a word of its own."""

    def push(self, words: str) -> list[Piece]:
        """More words; the pieces that they complete."""
        return self._pieces(self._sentences.push(self._take(words)))

    def flush(self) -> list[Piece]:
        """The end: whatever is left."""
        cut = self._sentences.push(self._take("", final=True)) + self._sentences.flush()
        *pieces, last = self._pieces(cut) or [Piece("", "")]
        rest = self._unspoken + "".join(written for _, written in self._written)
        return [*pieces, Piece(last.spoken, last.written + rest)] if last.spoken else []

    def _take(self, words: str, *, final: bool = False) -> str:
        said = ""
        for written, spoken in self._plain.push(words, final=final):
            if not spoken:
                # A mark that closes belongs to what it closes, unless that has gone.
                if self._written:
                    last, before = self._written.pop()
                    self._written.append((last, before + written))
                else:
                    self._unspoken += written
                continue
            if len(written) == len(spoken):
                self._written.extend(zip(spoken, written, strict=True))
            else:
                self._written.append((spoken[0], written))
                self._written.extend((letter, "") for letter in spoken[1:])
            said += spoken
        return said

    def _pieces(self, cut: Sequence[str]) -> list[Piece]:
        pieces = []
        for text in cut:
            left = sum(not letter.isspace() for letter in text)
            while left:
                letter, written = self._written.popleft()
                self._unspoken += written
                left -= not letter.isspace()
            if has_words(text):
                pieces.append(Piece(text.replace(" ,", ","), self._unspoken))
                self._unspoken = ""
        return pieces


def spoken_words(text: str) -> str:
    """A whole text as it is spoken."""
    return "".join(spoken for _, spoken in _Plain().push(text, final=True))


class _Plain:
    """Reads Markdown from its beginning, one mark or run of plain text after the other."""

    def __init__(self) -> None:
        self._text = ""
        self._line_begins = True
        self._fenced = False
        self._table = False
        self._code = False
        self._url = False
        self._before = ""
        """The last character that was written."""
        self._open = {"*": 0, "_": 0}
        """Marks of emphasis that are open."""

    def push(self, words: str, *, final: bool = False) -> list[tuple[str, str]]:
        """Pieces of the text that are decided now, each with its spoken words."""
        self._text += words
        steps: list[tuple[str, str]] = []
        # No mark but a fence goes beyond its line.
        *lines, last = self._text.split("\n")
        for line in lines:
            self._read(f"{line}\n", True, steps)
        self._text = self._read(last, final, steps)
        return steps

    def _read(self, text: str, final: bool, steps: list[tuple[str, str]]) -> str:
        """Add what is decided of a line; returns the rest."""
        while text and (step := self._step(text, final)) is not None:
            length, spoken = step
            written, text = text[:length], text[length:]
            self._before = written[-1]
            if "\n" in written:
                self._line_begins = True
                self._table = self._code = self._url = False
                self._open = {"*": 0, "_": 0}
            steps.append((written, spoken))
        return text

    def _step(self, text: str, final: bool) -> tuple[int, str] | None:
        """Length of what comes next, and its spoken words; None while that is not known."""
        if self._line_begins:
            block = self._block(text, final)
            if block is None or block[0]:
                return block
            self._line_begins = False
        if self._fenced:
            end = text.find("\n") + 1 or len(text)
            return end, text[:end]
        first = text[0]
        if first.isspace():
            self._url = False
            return 1, first
        if first == "`":
            return self._backticks(text, final)
        if self._code:
            return 1, first
        if self._url:
            return self._address(text, final)
        return self._inline(text, first, final)

    def _block(self, text: str, final: bool) -> tuple[int, str] | None:
        """The mark that a line begins with; (0, "") without one."""
        line, newline, _ = text.partition("\n")
        whole = bool(newline) or final
        if fence := _FENCE.match(text):
            if not whole:
                return None
            if fence.end() == len(line) + len(newline):
                self._fenced = not self._fenced
                return fence.end(), newline
        if self._fenced:
            may_close = not whole and "```".startswith(line.strip()[:3])
            return None if may_close else (0, "")
        if not line.strip(_MARKS):
            if not whole:
                return None
            if len(line.strip()) >= _MOST_STARS:
                return len(line) + len(newline), newline
        if not whole and _MAY_BE_BLOCK.fullmatch(line):
            return None
        if block := _BLOCK.match(text):
            self._table = block[0].endswith("|")
            self._line_begins = ">" in block[0]
            return block.end(), ""
        return 0, ""

    def _inline(self, text: str, first: str, final: bool) -> tuple[int, str] | None:
        if first in "*_~":
            return self._emphasis(text, first, final)
        if first in "[!":
            return _link(text, final)
        if first == "<":
            return _tag(text, final)
        if first == "\\":
            if len(text) > 1 and text[1] in _ESCAPED:
                return 2, text[1]
            return (1, first) if len(text) > 1 or final else None
        if first == "|":
            return self._cell(text, final)
        if first in "hH":
            return self._scheme(text, final)
        if _EMOJI.match(first):
            return 1, first if first.isalnum() else ""
        if first == _JOINER and (not self._before or _EMOJI.match(self._before)):
            return 1, ""
        plain = _PLAIN.match(text)
        length = plain.end() if plain else 1
        return length, text[:length]

    def _scheme(self, text: str, final: bool) -> tuple[int, str] | None:
        if self._before.isalnum():
            return 1, text[0]
        for scheme in _SCHEMES:
            if text.lower().startswith(scheme):
                self._url = True
                return len(scheme), ""
            if scheme.startswith(text.lower()) and not final:
                return None
        return 1, text[0]

    def _address(self, text: str, final: bool) -> tuple[int, str] | None:
        """A character of an address on the web, in which nothing is a mark; no slash at its end."""
        if text[0] in _URL_ENDS:
            self._url = False
            return self._inline(text, text[0], final)
        if text[0] != "/":
            return 1, text[0]
        if len(text) == 1:
            return (1, "") if final else None
        return 1, "" if text[1].isspace() or text[1] in _URL_ENDS else text[0]

    def _backticks(self, text: str, final: bool) -> tuple[int, str] | None:
        length = len(text) - len(text.lstrip("`"))
        if length == len(text) and not final:
            return None
        self._code = not self._code
        self._url = False
        return length, ""

    def _cell(self, text: str, final: bool) -> tuple[int, str] | None:
        """A line between cells is a comma."""
        row = text[1:].partition("\n")
        ends = not row[0].strip()
        if ends and not row[1] and not final:
            return None
        if self._table:
            return 1, "" if ends or self._before == "|" else ", "
        apart = (not self._before or self._before.isspace()) and row[0][:1].isspace()
        return 1, "," if apart else "|"

    def _emphasis(self, text: str, mark: str, final: bool) -> tuple[int, str] | None:
        rest = text.lstrip(mark)
        if not rest and not final:
            return None
        count = len(text) - len(rest)
        before, after = self._before, rest[:1]
        opens, closes = bool(after.strip()), bool(before.strip())
        if count > _MOST_STARS or not (opens or closes):
            return count, mark * count
        if mark == "~":
            return count, "" if count > 1 else mark
        inside = before.isalnum() and after.isalnum()
        latin = inside and before.isascii() and after.isascii()
        if (mark == "_" and inside) or (latin and count == 1):
            return count, mark * count
        if closes and count <= self._open[mark]:
            self._open[mark] -= count
            return count, ""
        if opens and not latin and not (mark == "_" and before.isalnum()):
            return self._opens(rest, mark, count, final)
        # Of two, nothing else is meant.
        dropped = mark == "*" and count > 1 and closes and not after.isalnum()
        return count, "" if dropped else mark * count

    def _opens(self, rest: str, mark: str, count: int, final: bool) -> tuple[int, str] | None:
        """A mark that may open emphasis: before anything but a letter one has to close it."""
        if not rest[0].isalpha():
            quoted = self._before.strip() and not self._before.isalnum()
            if quoted and not rest[0].isalnum() and self._before not in "*_~":
                return count, mark * count  # '*' and (*)
            line, newline, _ = rest[:_LONGEST_MARK].partition("\n")
            close = re.compile(rf"(?<=\S){re.escape(mark * count)}(?![0-9A-Za-z])")
            found = close.search(line)
            whole = final or newline or len(line) == _LONGEST_MARK
            if not whole and (found is None or found.end() == len(line)):
                return None
            if found is None or (count == 1 and not any(map(str.isalpha, line[: found.start()]))):
                return count, mark * count  # *67, and *100#
        self._open[mark] += count
        return count, ""


def _link(text: str, final: bool) -> tuple[int, str] | None:
    """A link is its text, an image what stands for it."""
    if found := _LINK.match(text, 0, _LONGEST_LINK):
        return found.end(), spoken_words(found[1].strip() or found[2] or "")
    waits = not final and len(text) < _LONGEST_LINK and _MAY_BE_LINK.fullmatch(text)
    return None if waits else (1, text[0])


def _tag(text: str, final: bool) -> tuple[int, str] | None:
    """A line break, or an address in angle brackets; other tags are for the voice."""
    if found := _TAG.match(text, 0, _LONGEST_LINK):
        return found.end(), (found[1] or " ").removeprefix("mailto:").rstrip("/")
    waits = not final and len(text) < _LONGEST_LINK and _MAY_BE_TAG.fullmatch(text)
    return None if waits else (1, text[0])
