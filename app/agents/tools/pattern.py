"""Regular expressions that take time in proportion to the text, whatever the text is.

Python's own matcher backtracks: one wrong pattern and a patient caller hold up every call of the
process, and no timeout helps, since the matcher keeps the interpreter. Patterns of guardrails are
searched for by the Rust engine that pydantic-core brings (https://docs.rs/regex, "Syntax"). It has
no back-references, look-around or atomic groups; a pattern with one is refused when it is read. So
is syntax that means one thing in Python and another in Rust. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

from app.errors import ConfigError
from app.json_text import whole_text

__all__ = ["LinearRegex"]


_MAX_PATTERN_CHARS: Final = 2_000
_TOKEN: Final = re.compile(
    r"\\b\{|\\.|\[\^?\]?|\]|&&|--|~~|\(\?[>(]?|(?P<quantifier>(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??)|.",
    re.DOTALL,
)


class LinearRegex:
    """A pattern, searched for in linear time; it says whether it matches, not where."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        """Read a pattern.

        Raises:
            ConfigError: not a pattern, too large, or not for an engine that takes linear time.
        """
        if len(pattern) > _MAX_PATTERN_CHARS:
            raise ConfigError(f"a pattern has at most {_MAX_PATTERN_CHARS} characters")
        reason = _ambiguity(pattern)
        if reason is None:
            flagged = f"(?i){pattern}" if ignore_case else pattern
            schema = core_schema.str_schema(pattern=flagged, regex_engine="rust-regex")
            try:
                self._validator = SchemaValidator(schema)
                return
            except SchemaError as error:
                reason = _reason(str(error))
        raise ConfigError(f"pattern {pattern[:80]!r}: {reason}")

    def search(self, text: str) -> bool:
        """True when the pattern matches anywhere in the text."""
        # The engine reads UTF-8, which has no halves of surrogate pairs.
        return self._validator.isinstance_python(whole_text(text))


def _reason(error: str) -> str:
    """The engine's words on a pattern, without its drawing of it."""
    if "size limit" in error:
        return "its repeats make it too large: write smaller counts"
    reason = error.rpartition("error: ")[2].strip()
    if "not supported" in reason or "flag" in reason:
        reason += "; write it otherwise, or check it in Python"
    return reason


def _ambiguity(pattern: str) -> str | None:
    """The first piece of syntax that the engine would take in another sense than Python does."""
    in_class = quantified = False
    for found in _TOKEN.finditer(pattern):
        token = found[0]
        if in_class:
            if token.startswith("["):
                return r"write \[ for a bracket inside a character class"
            if token in ("&&", "--", "~~"):
                return rf"write \{token[0]}\{token[0]} inside a character class"
            in_class = token != "]"
        elif token in (r"\<", r"\>", r"\b{"):
            return f"{token} is a word boundary here: write it without the backslash"
        elif token in ("(?>", "(?("):
            return "atomic and conditional groups are not supported"
        elif found["quantifier"] and quantified:
            return "a quantifier follows another one; possessive quantifiers are not supported"
        else:
            in_class = token.startswith("[")
        quantified = not in_class and found["quantifier"] is not None
    return None
