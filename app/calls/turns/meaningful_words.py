"""Words, hums and echoes of the agent in a transcript."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Final

__all__ = ["is_echo", "meaningful_words"]


# Transcription models write these for breath, hums and agreement in passing. Yes, no and okay are
# not here: they answer questions. These are English; elsewhere some of it are words ("er", "um"),
# which cost a caller who says nothing else a resumed sentence.
_HUM: Final = re.compile(r"[mh]+|h?u[hmu]*[hm]|a+h+|aha|ahem|eh|erm?|o+h")
# "[music]", "(background noise)", "*coughs*", and the notes of subtitles: no words of a caller.
_NOTE: Final = re.compile(r"\[[^\]]{0,80}\]|\([^)]{0,80}\)|\*[^*]{0,80}\*|[\u2669-\u266f]")
_WORD: Final = re.compile(r"\w+")


def meaningful_words(transcript: str) -> list[str]:
    """The words of a transcript without hums and notes, in small letters."""
    plain = _NOTE.sub(" ", transcript.lower()).replace("'", "").replace("-", "")
    return [word for word in _WORD.findall(plain) if not _HUM.fullmatch(word)]


_ECHO_WORDS: Final = 3
"""Fewer words cannot tell an echo from an answer that repeats a time or a name."""
_ECHO_SHARE: Final = 0.8
_LONGEST_ECHO: Final = 200
_SPOKEN_WORDS: Final = 1_000
"""To compare more of them takes long, and callers who say more are not an echo."""


def is_echo(heard: str, said: str) -> bool:
    """True when what was heard of the caller is what the agent has just said, more or less.

    `said` is the agent's last speech. An echo is transcribed with mistakes, so that most of the
    words in their order are enough.
    """
    words = meaningful_words(heard)
    if not _ECHO_WORDS <= len(words) <= _LONGEST_ECHO:
        return False
    spoken = meaningful_words(said)[:_SPOKEN_WORDS]
    same = SequenceMatcher(None, words, spoken, autojunk=False).get_matching_blocks()
    return sum(block.size for block in same) >= _ECHO_SHARE * len(words)
