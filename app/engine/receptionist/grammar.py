"""The phrases of callers as grammars, training sentences and matching rules.

A phrase is written in a small part of JSGF: words, `(a | b)` for a choice and `[a]` for what may
be left out. From the phrases of a dialogue state come the JSGF text that the strict listener uses,
the sentences that the statistical listener's language model is trained on, and the way back from
recognized words to an intent. Pure; the recognizer and the dialogue both build on it.

JSGF: W3C note "JSpeech Grammar Format", 5 June 2000 (only sequences, alternatives and grouping).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

__all__ = ["GRAMMAR", "LM", "Grammar", "StateGrammar", "expand", "words_of"]


LM: Final = "lm"
GRAMMAR: Final = "grammar"

_TOKEN: Final = re.compile(r"\s*(?:([a-z]+(?:'[a-z]+)*)|([()\[\]|]))")
_WORD: Final = re.compile(r"[a-z]+(?:'[a-z]+)*")
_MAX_SENTENCES: Final = 400
"""Per phrase: a phrase that stands for more is a mistake, and makes the decoder slow."""

_MAX_STRANGE_SHARE: Final = 1 / 4
"""Above this share of words known only from off-topic sentences, the statistical listener heard
something else (measured: `tests/bench/intents.py`)."""

_MAX_SLIP_SHARE: Final = 1 / 3
"""The part of a sentence that the statistical listener may have misheard."""

_MAX_STRANGE_FOR_STRICT: Final = 0.4

_TRAINING_COUNT: Final = 60
"""Times that each off-topic sentence is counted in training, beside `_INTENT_COUNT` sentences per
intent."""

_INTENT_COUNT: Final = 600


def words_of(text: str) -> tuple[str, ...]:
    """The words of `text`, lower case, without punctuation and digits."""
    return tuple(_WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))


def expand(phrase: str) -> tuple[str, ...]:
    """Every sentence that a phrase stands for, in a stable order and without repeats.

    Raises:
        ValueError: not a phrase, nothing in it, or it stands for too many sentences.
    """
    tokens = _tokens(phrase)
    sentences, rest = _alternatives(tokens)
    if rest:
        raise ValueError(f"'{rest[0]}' closes nothing")
    if () in sentences:
        raise ValueError("every word may be left out, so silence would match")
    return tuple(" ".join(words) for words in sentences)


def _tokens(phrase: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    text = phrase.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(
                f"'{text[at:].strip()[:12]}': only lower-case words, ( | ) and [ ] are allowed"
                " (write numbers as words, or better: let the caller use the keypad)"
            )
        tokens.append(found.group(1) or found.group(2))
        at = found.end()
    if not tokens:
        raise ValueError("the phrase is empty")
    return tokens


def _alternatives(tokens: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Parse `a | b | c` up to a closing bracket or the end; return what is left too."""
    choices: dict[tuple[str, ...], None] = {}
    rest = tokens
    while True:
        sequence, rest = _sequence(rest)
        choices.update(dict.fromkeys(sequence))
        if not rest or rest[0] != "|":
            return list(choices), rest
        rest = rest[1:]


def _sequence(tokens: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    built: list[tuple[str, ...]] = [()]
    rest = tokens
    parts = 0
    while rest and rest[0] not in (")", "]", "|"):
        parts += 1
        head, rest = rest[0], rest[1:]
        choices: list[tuple[str, ...]] = [(head,)]
        if head in ("(", "["):
            choices, rest = _alternatives(rest)
            closing = ")" if head == "(" else "]"
            if not rest or rest[0] != closing:
                raise ValueError(f"'{head}' is not closed by '{closing}'")
            rest = rest[1:]
            if head == "[":
                choices = [*choices, ()]
        built = [left + right for left, right in itertools.product(built, choices)]
        if len(built) > _MAX_SENTENCES:
            raise ValueError(f"it stands for more than {_MAX_SENTENCES} sentences: split it")
    if not parts:
        raise ValueError("a choice is empty")
    return built, rest


@dataclass(frozen=True)  # no slots: the tables are made when first used, and kept
class StateGrammar:
    """The phrases of one dialogue state, by intent.

    `free` marks a state in which the caller says whatever they like (a message).
    """

    name: str
    phrases: Mapping[str, tuple[str, ...]]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    free: bool = False

    @cached_property
    def sentences(self) -> dict[str, str]:
        """Sentence to intent. The first intent wins; the loader refuses scripts with twins."""
        table: dict[str, str] = {}
        for intent, phrases in self.phrases.items():
            for phrase in phrases:
                for sentence in expand(phrase):
                    table.setdefault(sentence, intent)
        return table

    @cached_property
    def _leads(self) -> tuple[tuple[str, ...], ...]:
        return _longest_first(self.before)

    @cached_property
    def _tails(self) -> tuple[tuple[str, ...], ...]:
        return _longest_first(self.after)

    @cached_property
    def _beginnings(self) -> dict[tuple[str, ...], set[str]]:
        """Sentences less their last word, with the intents that they may become."""
        table: dict[tuple[str, ...], set[str]] = {}
        for sentence, intent in self.sentences.items():
            table.setdefault(tuple(sentence.split()[:-1]), set()).add(intent)
        return table

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        said = itertools.chain(self.sentences, *map(expand, self.before + self.after))
        return frozenset(word for sentence in said for word in sentence.split())

    def jsgf(self) -> str:
        """The state's grammar as JSGF text; intents become rules `i0`, `i1`, ..."""
        rules = [f"<i{n}> = {' | '.join(p)};" for n, p in enumerate(self.phrases.values())]
        turn = " | ".join(f"<i{n}>" for n in range(len(self.phrases)))
        lead = tail = ""
        if self.before:
            rules.append(f"<before> = {' | '.join(self.before)};")
            lead = "[<before>] "
        if self.after:
            rules.append(f"<after> = {' | '.join(self.after)};")
            tail = " [<after>]"
        body = "\n".join(rules)
        return f"#JSGF V1.0;\ngrammar turn;\npublic <turn> = {lead}({turn}){tail};\n{body}\n"

    def exact(self, words: tuple[str, ...]) -> str | None:
        """The intent of a sentence that is in the grammar, courtesies around it allowed."""
        for core in self._cores(words):
            intent = self.sentences.get(" ".join(core))
            if intent is not None:
                return intent
        return None

    def begun(self, words: tuple[str, ...]) -> str | None:
        """The intent of a sentence, or of one without its last word if only one intent fits.

        The strict listener returns such a beginning when the last syllables were lost on the line.
        """
        found = self.exact(words)
        if found is not None or not words:
            return found
        intents = {i for core in self._cores(words) for i in self._beginnings.get(core, ())}
        return intents.pop() if len(intents) == 1 else None

    def near(self, words: tuple[str, ...]) -> str | None:
        """The intent of words that are in the grammar but for a slip or two.

        One word in three may be added, missing or another; the nearest sentence of any other
        intent must be farther away.
        """
        found = self.begun(words)
        if found is not None or not words:
            return found
        best: dict[str, float] = {}
        for core in self._cores(words):
            for sentence, intent in self.sentences.items():
                wanted = tuple(sentence.split())
                share = _distance(core, wanted) / max(len(core), len(wanted))
                best[intent] = min(share, best.get(intent, 1.0))
        ranked = sorted((share, intent) for intent, share in best.items())
        if not ranked or ranked[0][0] > _MAX_SLIP_SHARE:
            return None
        if len(ranked) > 1 and ranked[1][0] <= ranked[0][0]:
            return None
        return ranked[0][1]

    def typed(self, words: tuple[str, ...]) -> str | None:
        """The intent of typed words: a whole phrase inside them is enough.

        The longest phrase counts; a tie between intents gives None.
        """
        found = self.exact(words)
        if found is not None:
            return found
        line = f" {' '.join(words)} "
        inside = [(s.count(" "), i) for s, i in self.sentences.items() if f" {s} " in line]
        if not inside:
            return self.near(words)
        longest = max(length for length, _ in inside)
        intents = {intent for length, intent in inside if length == longest}
        return intents.pop() if len(intents) == 1 else None

    def _cores(self, words: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
        """The words, and the words without a leading and a trailing courtesy."""
        fronts = [words] + [words[len(x) :] for x in self._leads if words[: len(x)] == x]
        for front in fronts:
            if front:
                yield front
            for tail in self._tails:
                if len(front) > len(tail) and front[-len(tail) :] == tail:
                    yield front[: -len(tail)]


@dataclass(frozen=True)  # no slots, as above
class Grammar:
    """The grammar of every dialogue state, and off-topic sentences."""

    states: Mapping[str, StateGrammar]
    off_topic: tuple[str, ...] = ()

    def intents(self, state: str, heard: Mapping[str, str]) -> dict[str, str | None]:
        """The intent that each listener (`lm`, `grammar`) found in a turn, from its words.

        The strict listener fits every sound into its grammar. Where the statistical one heard
        mostly words that only off-topic sentences have, the strict one's result does not count.
        """
        grammar = self.states[state]
        statistical, strict = words_of(heard.get(LM, "")), words_of(heard.get(GRAMMAR, ""))
        strange = sum(word not in grammar.vocabulary for word in statistical)
        share = strange / len(statistical) if statistical else 0.0
        return {
            LM: grammar.near(statistical) if share <= _MAX_STRANGE_SHARE else None,
            GRAMMAR: grammar.begun(strict) if share <= _MAX_STRANGE_FOR_STRICT else None,
        }

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        known = frozenset(word for line in self.off_topic for word in words_of(line))
        return known.union(*(state.vocabulary for state in self.states.values()))

    def training(self, state: str) -> list[tuple[str, int]]:
        """Sentences and counts to train the language model of `state` with.

        Every intent weighs the same however many phrases it has; courtesies are spread over the
        sentences in turn, so that the list stays short and is the same in every run.
        """
        grammar = self.states[state]
        leads = [s for phrase in grammar.before for s in expand(phrase)]
        tails = [s for phrase in grammar.after for s in expand(phrase)]
        counted: list[tuple[str, int]] = []
        for intent in grammar.phrases:
            said = [s for s, i in grammar.sentences.items() if i == intent]
            count = max(1, _INTENT_COUNT // (2 * max(1, len(said))))
            for n, sentence in enumerate(said):
                lead = f"{leads[n % len(leads)]} " if leads else ""
                tail = f" {tails[n % len(tails)]}" if tails else ""
                polite = lead + sentence if n % 2 else sentence + tail
                counted += [(sentence, count), (polite, count)]
        counted += [(" ".join(words_of(line)), _TRAINING_COUNT) for line in self.off_topic]
        return counted


def _longest_first(phrases: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    said = {tuple(s.split()) for phrase in phrases for s in expand(phrase)}
    return tuple(sorted(said, key=lambda words: (-len(words), words)))


def _distance(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """Words to add, remove or change to turn one into the other (Levenshtein)."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row = row, [i]
        for j, b in enumerate(right, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (a != b)))
    return row[-1]
