"""JSON of strangers, and text that every encoder takes.

JSON can spell half of a character (`"\\ud800"`), as servers do that cut a text between two tokens.
Python takes it, and UTF-8 does not: files, sockets, databases and answers would fail on it later.
So it is replaced where it comes in.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

__all__ = ["parse_json", "whole_text"]

_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> Any:
    """The value that JSON spells, `?` in place of each half of a character.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deep.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    plain = whole_text(text)
    value = json.loads(plain.removeprefix("\ufeff"))  # some writers' byte order mark
    if _HALF.search(plain) is None:
        return value
    return json.loads(whole_text(json.dumps(value, ensure_ascii=False)))


def whole_text(text: str) -> str:
    """The text, `?` in place of each half of a character."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
