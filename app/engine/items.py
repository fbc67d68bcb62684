"""The conversation of an engine session: its items in order, and the rules for changing them.

Pure. Holds text and lengths, no sound: a retrieved item carries its transcript and no audio.
Answering items is `app.engine.prompts`, generating them `app.engine.live_response`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.engine.refusal import Refusal
from app.engine.session_settings import MAX_TEXT_CHARS
from app.realtime.events import ContentPart, Item

__all__ = ["MAX_ITEMS", "Conversation", "Span", "heard_of", "id_prefix", "typed_text"]

MAX_ITEMS: Final = 500
"""Beyond it the oldest item is forgotten, as `truncation: auto` does on OpenAI's server."""

MAX_ID_CHARS: Final = 128
_ROOT: Final = "root"
_INPUT_TEXT: Final = frozenset({"input_text", "text"})
_OUTPUT_TEXT: Final = frozenset({"output_text", "text"})


_PREFIXES: Final = {"function_call": "fc", "function_call_output": "fco"}


def id_prefix(item: Item) -> str:
    """The beginning of an item's id, which some servers that it is replayed to check."""
    return "sys" if item.role == "system" else _PREFIXES.get(item.type, "msg")


def typed_text(item: Item) -> str:
    """The text that a message holds, its parts joined by spaces."""
    return " ".join(part.text for part in item.content if part.text)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a message: where in its sound it begins, its words, and those that were written.

    `written` may hold marks that are not spoken. A message's pieces join to the whole.
    """

    start_ms: int
    spoken: str
    written: str


@dataclass(slots=True)
class _Stored:
    item: Item
    audio_ms: int = 0
    """Sound that was made for an assistant message."""
    truncated: bool = False
    spans: tuple[Span, ...] = ()
    heard: str = ""
    """The part of a truncated message that the caller has heard, by its sound."""

    @property
    def text(self) -> str:
        """The text, as it was written; of a truncated message, what was heard of it."""
        if self.truncated:
            return self.heard
        return "".join(span.written for span in self.spans).strip() or _text_of(self.item)


class Conversation:
    """Items in order. Every change is checked whole before anything is changed."""

    def __init__(self) -> None:
        self._order: list[str] = []
        self._stored: dict[str, _Stored] = {}

    @property
    def last_id(self) -> str | None:
        return self._order[-1] if self._order else None

    def before(self, item_id: str) -> str | None:
        """The item that `item_id` follows, or `None` when it is the first or is gone."""
        if item_id not in self._stored:
            return None
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def add(self, item: Item) -> str | None:
        """Append an item of our own; return the id of the item before it."""
        assert item.id is not None
        previous = self.last_id
        self._insert(item.id, item, len(self._order))
        return previous

    def insert(self, item: Item, previous_item_id: str | None) -> tuple[Item, str | None]:
        """Place a client's item; return it as stored and the id of the item before it.

        Raises:
            Refusal: the item is not one that a client may make, or its place does not exist.
        """
        assert item.id is not None
        self._check(item)
        if previous_item_id is None:
            index = len(self._order)
        elif previous_item_id == _ROOT:
            index = 0
        elif previous_item_id in self._stored:
            index = self._order.index(previous_item_id) + 1
        else:
            raise Refusal(
                "item_create_invalid_previous_item_id",
                "The item to follow does not exist.",
                param="previous_item_id",
            )
        stored = replace(item, status="completed")
        previous = self._order[index - 1] if index else None
        self._insert(item.id, stored, index)
        return stored, previous

    def history(self) -> list[tuple[Item, str]]:
        """Every item with its text, in order, as a text model is to read it."""
        return [(stored.item, stored.text) for stored in map(self._stored.__getitem__, self._order)]

    def update(self, item: Item, *, audio_ms: int = 0, spans: tuple[Span, ...] = ()) -> None:
        """Take the state of an item of our own, unless it was deleted meanwhile.

        A truncated message stays as short as it was made, whatever is generated after.
        """
        stored = self._stored.get(item.id or "")
        if stored is None:
            return
        if stored.truncated:
            item = replace(item, content=_without_text(item.content))
        else:
            stored.audio_ms = audio_ms
            stored.spans = spans
        stored.item = item

    def set_transcript(self, item_id: str, transcript: str) -> None:
        """Write down what a caller's item was heard as, unless it was deleted meanwhile."""
        stored = self._stored.get(item_id)
        if stored is not None:
            content = tuple(replace(part, transcript=transcript) for part in stored.item.content)
            stored.item = replace(stored.item, content=content)

    def get(self, item_id: str) -> Item:
        """An item by id.

        Raises:
            Refusal: there is none.
        """
        return self._find(item_id, "retrieve").item

    def delete(self, item_id: str) -> None:
        """Remove an item.

        Raises:
            Refusal: there is none.
        """
        self._find(item_id, "delete")
        del self._stored[item_id]
        self._order.remove(item_id)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut an assistant message's sound; its text goes whole, as on OpenAI's server.

        Raises:
            Refusal: no such item, not spoken by the assistant, or shorter than that already.
        """
        stored = self._find(item_id, "truncate")
        parts = stored.item.content
        if stored.item.role != "assistant" or not 0 <= content_index < len(parts):
            raise Refusal(
                "invalid_value", "Only assistant messages can be truncated.", param="item_id"
            )
        if parts[content_index].type != "output_audio":
            raise Refusal("invalid_value", "This content holds no audio.", param="content_index")
        if audio_end_ms < 0:
            raise Refusal("invalid_value", "Expected 0 or more.", param="audio_end_ms")
        if audio_end_ms > stored.audio_ms:
            raise Refusal(
                "invalid_value",
                f"Audio content of {stored.audio_ms}ms is already shorter than {audio_end_ms}ms",
                param="audio_end_ms",
            )
        if not stored.truncated:
            text = _text_of(stored.item)
            spans = stored.spans or (Span(0, text, text),)
            stored.heard = heard_of(spans, audio_end_ms, stored.audio_ms)
        stored.audio_ms = audio_end_ms
        stored.truncated = True
        stored.item = replace(stored.item, content=_without_text(parts))

    def call_name(self, call_id: str) -> str | None:
        """The function that `call_id` calls, or `None` when no item makes that call."""
        for stored in reversed(self._stored.values()):
            item = stored.item
            if item.type == "function_call" and item.call_id == call_id:
                return item.name
        return None

    def _insert(self, item_id: str, item: Item, index: int) -> None:
        self._order.insert(index, item_id)
        self._stored[item_id] = _Stored(item)
        if len(self._order) > MAX_ITEMS:
            del self._stored[self._order.pop(0)]

    def _find(self, item_id: str, verb: str) -> _Stored:
        stored = self._stored.get(item_id)
        if stored is None:
            raise Refusal(
                f"item_{verb}_invalid_item_id",
                f"Cannot {verb} an item that does not exist.",
                param="item_id",
            )
        return stored

    def _check(self, item: Item) -> None:
        if item.id in self._stored:
            raise Refusal(
                "item_create_duplicate_item_id", "An item has this id already.", param="item.id"
            )
        if len(item.id or "") > MAX_ID_CHARS:
            raise Refusal("string_above_max_length", "The id is too long.", param="item.id")
        size = sum(len(part.text or "") for part in item.content)
        if size + len(item.output or "") + len(item.arguments or "") > MAX_TEXT_CHARS:
            raise Refusal("string_above_max_length", "The item is too long.", param="item")
        match item.type:
            case "message":
                _check_message(item)
            case "function_call":
                if not item.name or not item.call_id:
                    raise Refusal(
                        "missing_required_parameter", "A call has a name and an id.", param="item"
                    )
            case "function_call_output":
                if item.output is None or self.call_name(item.call_id or "") is None:
                    raise Refusal(
                        "invalid_tool_call_id",
                        "No item of this conversation makes that call.",
                        param="item.call_id",
                    )
            case _:
                raise Refusal(
                    "invalid_value", "The offline engine has no such item.", param="item.type"
                )


def _check_message(item: Item) -> None:
    allowed = _OUTPUT_TEXT if item.role == "assistant" else _INPUT_TEXT
    if item.role not in ("user", "assistant", "system"):
        raise Refusal("invalid_value", "Expected user, assistant or system.", param="item.role")
    for index, part in enumerate(item.content):
        if part.type not in allowed:
            raise Refusal(
                "invalid_value",
                "The offline engine takes text here; speech goes through the input buffer.",
                param=f"item.content[{index}].type",
            )


def heard_of(spans: Sequence[Span], heard_ms: int, sent_ms: int) -> str:
    """The words that were heard: whole pieces, then a share of the last one as of its sound.

    Whole pieces are as they were written; of the last one the spoken words count.
    """
    heard = ""
    for index, span in enumerate(spans):
        end_ms = spans[index + 1].start_ms if index + 1 < len(spans) else sent_ms
        if heard_ms >= end_ms:
            heard += span.written
            continue
        words = span.spoken.split()
        length_ms = max(1, end_ms - span.start_ms)
        count = len(words) * max(0, heard_ms - span.start_ms) // length_ms
        heard += (" " if heard and count else "") + " ".join(words[:count])
        break
    return heard.strip()


def _text_of(item: Item) -> str:
    return " ".join(filter(None, (part.text or part.transcript for part in item.content)))


def _without_text(parts: tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
    return tuple(replace(part, text=None, transcript=None) for part in parts)
