"""The notice that a call is recorded: before it is heard, nothing of the caller is kept. Pure.

It is a part of the agent's first words, which nothing interrupts. Where it is not heard to its end
all the same, since the connection broke or an operator had something more urgent said, it is said
again; a call in which that does not help is not recorded.
"""

from __future__ import annotations

from typing import Final

__all__ = ["RecordingNotice"]


TRIES: Final = 3


class RecordingNotice:
    """The notice of one call; without a text there is nothing to be heard."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.permits = not text
        """The caller's words may be kept."""
        self._tries = 0
        self._response_id = ""
        self._item_ids: set[str] = set()
        self._generated = self._heard = False

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

    def on_sound(self, response_id: str, item_id: str) -> None:
        """Sound of a response has come."""
        if self.pending and response_id == self._response_id:
            self._item_ids.add(item_id)

    def on_generated(self, response_id: str) -> None:
        """A response was completed: there is no more of it."""
        if self.pending and response_id == self._response_id:
            self._generated = True
            self.permits = self._heard

    def on_heard(self, item_id: str) -> None:
        """All that there is of an item so far was heard."""
        if self.pending and item_id in self._item_ids:
            self._heard = True
            self.permits = self._generated
