"""Phrases, the grammars made from them, and the way back from words to an intent."""

from __future__ import annotations

import pytest

from app.engine.receptionist.grammar import GRAMMAR, LM, Grammar, StateGrammar, expand, words_of

MENU = StateGrammar(
    "menu",
    {
        "hours": ("[your] opening hours", "when do you (open | close)"),
        "address": ("where are you", "[your] address"),
        "goodbye": ("goodbye", "have a nice day"),
    },
    before=("hello | hi", "(can | could) you tell me"),
    after=("please", "thank you"),
)


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("opening hours", {"opening hours"}),
        ("[your] address", {"your address", "address"}),
        ("when do you (open | close)", {"when do you open", "when do you close"}),
        ("a | b [c | d]", {"a", "b", "b c", "b d"}),
        ("that's (all | [really] it)", {"that's all", "that's really it", "that's it"}),
    ],
)
def test_a_phrase_stands_for_every_way_through_it(phrase: str, said: set[str]) -> None:
    assert set(expand(phrase)) == said


@pytest.mark.parametrize(
    "phrase", ["", "  ", "[a]", "(a", "a)", "a | ", "()", "room 5", "Hello", "a; b", "[a) b"]
)
def test_what_is_no_phrase_is_refused(phrase: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        expand(phrase)


def test_a_phrase_that_stands_for_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 400"):
        expand(" ".join(["[a | b]"] * 8) + " c")


def test_words_are_taken_from_any_writing() -> None:
    assert words_of("What's YOUR address, at 5?") == ("what's", "your", "address", "at")
    assert words_of("that\N{RIGHT SINGLE QUOTATION MARK}s all") == ("that's", "all")


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("opening hours", "hours"),
        ("hello could you tell me", None),
        ("can you tell me your opening hours please", "hours"),
        ("hi where are you thank you", "address"),
        ("where", None),
        ("", None),
    ],
)
def test_courtesies_around_a_sentence_do_not_hide_it(text: str, intent: str | None) -> None:
    assert MENU.exact(words_of(text)) == intent


def test_a_lost_last_word_is_forgiven_when_only_one_intent_begins_so() -> None:
    assert MENU.begun(words_of("when do you")) == "hours"
    assert MENU.begun(words_of("where are")) == "address"
    torn = StateGrammar("torn", {"yes": ("that's right",), "goodbye": ("that's all",)})
    assert torn.begun(("that's",)) is None
    assert MENU.begun(words_of("have a")) is None  # two words short


def test_near_words_count_only_when_one_intent_is_nearest() -> None:
    assert MENU.near(words_of("when did you open")) == "hours"
    assert MENU.near(words_of("your green house")) is None
    assert MENU.near(()) is None


def test_a_phrase_inside_typed_words_is_enough() -> None:
    assert MENU.typed(words_of("Well, I wonder: when do you open on Mondays?")) == "hours"
    assert MENU.typed(words_of("your address and your opening hours")) == "hours"  # longest
    assert MENU.typed(words_of("opening hours or your address")) is None
    assert MENU.typed(words_of("my green bicycle was stolen")) is None


def test_the_statistical_listener_is_not_believed_about_foreign_words() -> None:
    grammar = Grammar({"menu": MENU}, ("the weather was nice",))
    both = grammar.intents("menu", {LM: "where are you", GRAMMAR: "where are you"})
    assert both == {LM: "address", GRAMMAR: "address"}
    foreign = grammar.intents("menu", {LM: "the weather was", GRAMMAR: "where are you"})
    assert foreign == {LM: None, GRAMMAR: None}
    silent = grammar.intents("menu", {LM: "", GRAMMAR: "where are you"})
    assert silent == {LM: None, GRAMMAR: "address"}
    assert grammar.intents("menu", {}) == {LM: None, GRAMMAR: None}


def test_the_jsgf_text_holds_every_intent_and_the_courtesies() -> None:
    text = MENU.jsgf()
    assert text.startswith("#JSGF V1.0;\ngrammar turn;\npublic <turn> = [<before>] ")
    assert "<i1> = where are you | [your] address;" in text
    assert "<after> = please | thank you;" in text
    bare = StateGrammar("bare", {"yes": ("yes",)}).jsgf()
    assert "before" not in bare
    assert "after" not in bare


def test_every_intent_weighs_the_same_in_training() -> None:
    grammar = Grammar({"menu": MENU}, ("The weather was nice.",))
    training = grammar.training("menu")
    assert ("the weather was nice", 60) in training
    weight = dict.fromkeys(MENU.phrases, 0)
    for sentence, count in training:
        intent = MENU.exact(words_of(sentence))
        if intent is not None:
            weight[intent] += count
    assert len(set(weight.values())) == 1
    assert grammar.training("menu") == training
    assert {"weather", "opening", "could"} <= grammar.vocabulary
