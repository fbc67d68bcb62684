"""Words that the other party has to hear before anything else. Pure.

A notice that the call is recorded: before it is heard, nothing of the caller is kept. A disclosure,
such as that an AI speaks: without it the call does not go on. They are a part of the agent's first
words, which nothing interrupts. Where they are not heard to their end all the same, since the
connection broke or an operator had something more urgent said, or where a model has said something
else (`exact`), they are said again; a call in which that does not help is not recorded, or ended.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Final

__all__ = ["RecordingNotice", "contains_words"]


TRIES: Final = 3
_SAID_SHARE: Final = 0.85
"""Models leave out or change a small word; more than that is another sentence."""
_AI_WORDS: Final = (
    "ai ki ia iaa artificial künstliche künstlicher künstlichen artificielle artificiale "
    "automated automatic automatisch automatische automatischer automatisierte automatizada "
    "automatizado automático automática automatisé automatisée automatique virtual virtuell "
    "virtuelle virtueller virtuel virtuelle robot bot computer"
)
_NAMES_AI: Final = frozenset(_AI_WORDS.split())


def contains_words(spoken: str, wanted: str) -> bool:
    """True when `spoken` holds the words of `wanted` in their order, but for few of them.

    A word that names a machine, such as AI, and every name has to be there.
    """
    has, needs = _words(spoken), _words(wanted)
    if not needs:
        return True
    blocks = SequenceMatcher(None, has, needs, autojunk=False).get_matching_blocks()
    if sum(block.size for block in blocks) < _SAID_SHARE * len(needs):
        return False
    machine = _NAMES_AI.intersection(needs)
    if machine and _NAMES_AI.isdisjoint(has):
        return False
    named = {word.lower() for word in re.findall(r"(?<=[a-z,] )[A-Z]\w+", wanted)}
    return named - _NAMES_AI <= set(has)


def _words(text: str) -> list[str]:
    joined = re.sub(r"\b([A-Z])\.\s?(?=[A-Z]\b)", r"\1", text)  # A.I. and A I are AI
    joined = re.sub(r"\b([Aa]) ([Ii])\b", r"\1\2", joined)
    return re.findall(r"\w+", joined.lower().replace("'", "").replace("\u2019", ""))


class RecordingNotice:
    """The notice of one call; without a text there is nothing to be heard."""

    def __init__(self, text: str, *, exact: bool = False) -> None:
        """`exact`: what the model says that it has spoken is compared with the text."""
        self.text = text
        self.exact = exact
        self.spoken = ""
        """The words of the response that was heard."""
        self.by_mark = False
        """The carrier's own mark says that it was heard."""
        self.permits = not text
        """The caller's words may be kept."""
        self._tries = 0
        self._response_id = ""
        self._item_ids: set[str] = set()
        self._generated = self._heard = False
        self._heard_by_mark = True

    @property
    def tries(self) -> int:
        return self._tries

    @property
    def item_ids(self) -> frozenset[str]:
        """The items whose sound it is."""
        return frozenset(self._item_ids)

    def is_said_by(self, response_id: str) -> bool:
        return self.pending and response_id == self._response_id

    @property
    def pending(self) -> bool:
        """The caller has not heard it, and is still to."""
        return not self.permits and not self.given_up

    @property
    def given_up(self) -> bool:
        """It was said as often as is of use, and not heard."""
        return not self.permits and self._tries > TRIES

    def ask(self) -> str:
        """The words, for one more try; empty when there have been enough of them."""
        self._tries += 1
        return "" if self.given_up else self.text

    def on_response(self, response_id: str, sentence: str) -> None:
        """A response begins, which was told to say `sentence`."""
        if self.pending and sentence.startswith(self.text):
            self._response_id = response_id
            self._item_ids.clear()
            self._generated = self._heard = False
            self._heard_by_mark = True

    def on_sound(self, response_id: str, item_id: str) -> None:
        """Sound of a response has come."""
        if self.pending and response_id == self._response_id:
            self._item_ids.add(item_id)

    def on_generated(self, response_id: str, spoken: str = "") -> None:
        """A response was completed, with these words: there is no more of it."""
        if not self.is_said_by(response_id):
            return
        if self.exact and not contains_words(spoken, self.text):
            self._response_id = ""  # it has said something else
            return
        self.spoken = spoken
        self._generated = True
        self._settle()

    def on_heard(self, item_id: str, *, by_mark: bool = True) -> None:
        """All that there is of an item so far was heard."""
        if self.pending and item_id in self._item_ids:
            self._heard = True
            self._heard_by_mark = self._heard_by_mark and by_mark
            self._settle()

    def _settle(self) -> None:
        self.permits = self._generated and self._heard
        self.by_mark = self.permits and self._heard_by_mark
