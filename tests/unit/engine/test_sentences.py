"""A model's words are cut where a speaker would breathe, and nowhere else."""

from __future__ import annotations

import pytest

from app.engine.stages.sentences import Sentences, sentences_of

CUTS: list[tuple[str, ...]] = [
    ("We are open today.", "Do come by!"),
    ("Dr. Smith is in on Mon. and Fri. from 9 a.m. to 5 p.m. each week.", "Shall I book?"),
    ("That makes 3.50 dollars in all.", "Or 1,200.75 with delivery."),
    ("It starts at 9.30 sharp, not at 10.", "Please be on time."),
    ("See www.example.com/help.html for more.", "Anything else today?"),
    ("J. S. Bach lived on St. James St. in no. 5 for years.", "Did you know?"),
    ("Bring e.g. your card, i.e. the blue one.", "That is all."),
    ("We close at 5 p.m.", "Please call again tomorrow morning."),
    ("Wait... there is one more thing to say.", "It is free!"),
    ("Der Termin ist am 3. Mai um 10 Uhr.", "Passt das Ihnen?"),
    ("您好，请问有什么可以帮您的吗。", "谢谢您的来电，再见！"),  # noqa: RUF001 - Chinese marks
    ("Your code is 4 7 1 1.", "I repeat it now."),
    ('She said "come in." Then she left the room.', "Why was that?"),
]


@pytest.mark.parametrize("pieces", CUTS)
def test_a_text_is_cut_at_sentence_ends_only(pieces: tuple[str, ...]) -> None:
    text = " ".join(pieces)
    joined = sentences_of(text)
    assert " ".join(joined).replace(" ", "") == text.replace(" ", "")
    for piece in pieces[1:]:
        assert any(spoken.startswith(piece[:8]) for spoken in joined) or len(pieces) == 1
    assert len(joined) <= len(pieces) + (1 if '"' in text else 0)


@pytest.mark.parametrize("pieces", CUTS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_cuts_do_not_depend_on_how_the_words_arrive(pieces: tuple[str, ...], size: int) -> None:
    text = " ".join(pieces)
    sentences = Sentences(early=False)
    got = [p for at in range(0, len(text), size) for p in sentences.push(text[at : at + size])]
    assert [*got, *sentences.flush()] == sentences_of(text)


def test_the_first_piece_ends_at_a_comma_so_that_sound_comes_soon() -> None:
    sentences = Sentences()
    said = sentences.push("Thank you for calling the office, how can I help you, today, sir? ")
    assert said == ["Thank you for calling the office,", "how can I help you, today, sir?"]


def test_a_text_without_any_end_is_cut_all_the_same() -> None:
    pieces = sentences_of("word " * 200)
    assert max(map(len, pieces)) <= 240
    assert " ".join(pieces) == ("word " * 200).strip()


def test_short_sentences_wait_for_the_next_one() -> None:
    assert sentences_of("Yes. We can do that for you. Bye.") == [
        "Yes. We can do that for you.",
        "Bye.",
    ]
