"""Words, hums and echoes in transcripts."""

from __future__ import annotations

import pytest

from app.calls.turns.meaningful_words import is_echo, meaningful_words


@pytest.mark.parametrize(
    ("transcript", "words"),
    [
        ("", []),
        ("Mm-hmm. Uh... Uh-huh, mhm, umm, ah, ooh!", []),
        ("Ham, hut, am, us, mum", ["ham", "hut", "am", "us", "mum"]),
        ("[music playing] (coughs) *sighs* ♪♪", []),
        ("Yes.", ["yes"]),
        ("Um, I'd like [noise] two", ["id", "like", "two"]),
        ("5", ["5"]),
        ("はい", ["はい"]),
    ],
)
def test_hums_and_notes_are_not_words(transcript: str, words: list[str]) -> None:
    assert meaningful_words(transcript) == words


SAID = "We open at nine on weekdays, and at ten on Saturdays. Can I book you in?"


@pytest.mark.parametrize(
    "heard", ["we open at nine on weekdays", "Open at nine on weekday and at ten", "Can I book you"]
)
def test_the_agents_own_words_are_an_echo(heard: str) -> None:
    assert is_echo(heard, SAID)


@pytest.mark.parametrize(
    "heard",
    [
        SAID * 20,
        "",
        "yes",
        "at nine",
        "at ten?",
        "No, can you book me for ten on Friday",
        "nine open we at",
    ],
)
def test_a_callers_own_words_are_not_an_echo(heard: str) -> None:
    assert not is_echo(heard, SAID)
