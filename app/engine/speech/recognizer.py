"""Speech to intents by pocketsphinx, in worker processes.

Two listeners hear every turn side by side: a small statistical language model, trained on the
dialogue's own phrases and on off-topic sentences, and the strict grammar of the dialogue state.
Both results go to the responder, which acts where they agree.

The acoustic model is English. docs/engine.md has its measured accuracy over a telephone band.
Transcripts hold only words that the listeners know, hence "unverified".
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from app.engine.base import Heard
from app.engine.receptionist.grammar import GRAMMAR, LM, Grammar
from app.engine.speech.frames import Frame, Kind
from app.engine.speech.worker import Worker
from app.errors import ConfigError, VoiceUnavailable

__all__ = ["MESSAGE_TRANSCRIPT", "PocketsphinxHearing", "PocketsphinxRecognizer"]


logger = logging.getLogger(__name__)

MESSAGE_TRANSCRIPT: Final = "[spoken message]"
"""Stands for free speech, which this recognizer cannot transcribe."""

_BYTES_PER_S: Final = 32_000
_READY_S: Final = 30.0
_FINISH_S: Final = 5.0


class PocketsphinxRecognizer:
    """Shared by all sessions of an engine; `await start()` before the first turn.

    `hearings` is how many turns one worker decodes at a time; more wait in it until one is over.
    """

    def __init__(
        self,
        grammar: Grammar,
        *,
        pronunciations: Mapping[str, str] | None = None,
        workers: int = 2,
        hearings: int = 4,
        max_turn_s: int = 30,
    ) -> None:
        self.grammar = grammar
        self.max_turn_bytes = max_turn_s * _BYTES_PER_S
        self._numbers = itertools.count(1)
        # States that listen for the same share one search: each costs megabytes per decoder.
        first: dict[str, str] = {}
        self.searches = {
            name: first.setdefault(state.jsgf(), name) for name, state in grammar.states.items()
        }
        setup = {
            "grammars": {name: jsgf for jsgf, name in first.items()},
            "training": {name: grammar.training(name) for name in first.values()},
            "vocabulary": sorted(grammar.vocabulary),
            "pronunciations": dict(pronunciations or {}),
            "hearings": hearings,
        }
        packed = json.dumps(setup).encode()
        self._slots = [_WorkerSlot(packed) for _ in range(workers)]

    async def start(self) -> None:
        """Start the workers and wait until all can listen.

        Raises:
            ConfigError: pocketsphinx is missing, or the dialogue has words that it cannot say.
            VoiceUnavailable: the workers are not ready in time.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for slot in self._slots:
                    group.create_task(slot.worker.start(timeout_s=_READY_S))
        except* (ConfigError, VoiceUnavailable) as failures:
            await self.close()
            raise failures.exceptions[0] from None

    async def close(self) -> None:
        """End the workers; no process is left."""
        await asyncio.gather(*(slot.worker.close() for slot in self._slots))

    @property
    def pids(self) -> tuple[int, ...]:
        """The worker processes that are up, for health checks and measurement."""
        return tuple(slot.worker.pid for slot in self._slots if slot.worker.pid is not None)

    @property
    def ready(self) -> bool:
        """At least one worker can listen."""
        return any(slot.worker.ready for slot in self._slots)

    def listen(self, context: str, languages: Sequence[str] = ()) -> PocketsphinxHearing:
        """Begin a caller turn in a dialogue state, on the worker with the fewest turns.

        Raises:
            KeyError: the grammar has no such state.
        """
        state = self.grammar.states[context]
        ready = [slot for slot in self._slots if slot.worker.ready]
        slot = min(ready or self._slots, key=lambda slot: len(slot.hearings))
        return PocketsphinxHearing(self, slot, next(self._numbers), state.name)


class _WorkerSlot:
    """One worker and the turns that it decodes."""

    def __init__(self, setup: bytes) -> None:
        self.hearings: dict[int, asyncio.Future[dict[str, str]]] = {}
        self.results = 0
        self.worker = Worker(
            f"{__package__}.recognizer_worker",
            setup=setup,
            on_frame=self._on_frame,
            on_lost=self._on_lost,
        )

    def _on_frame(self, frame: Frame) -> None:
        self.results += 1
        answer = self.hearings.pop(frame.number, None)
        if answer is not None and not answer.done():
            answer.set_result(json.loads(frame.body))

    def _on_lost(self) -> None:
        lost, self.hearings = self.hearings, {}
        for answer in lost.values():
            if not answer.done():
                answer.set_exception(VoiceUnavailable("the recognizer's worker process died"))
                answer.exception()  # a turn that nobody waits for any more is not worth a warning


class PocketsphinxHearing:
    """The recognition of one caller turn."""

    def __init__(
        self, recognizer: PocketsphinxRecognizer, slot: _WorkerSlot, number: int, state: str
    ) -> None:
        self._recognizer = recognizer
        self._slot = slot
        self._number = number
        self._state = state
        self._room_bytes = recognizer.max_turn_bytes
        self._answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        if slot.worker.ready:
            slot.hearings[number] = self._answer
            slot.worker.send(Kind.BEGIN, number, recognizer.searches[state].encode())
        else:
            self._answer.set_exception(VoiceUnavailable("the recognizer is starting again"))
            self._answer.exception()

    def push(self, pcm16: bytes) -> None:
        """Take caller audio: int16 mono, 16 kHz. Audio beyond the longest turn is dropped."""
        audio = pcm16[: self._room_bytes]
        self._room_bytes -= len(audio)
        if audio and not self._answer.done():
            self._slot.worker.send(Kind.AUDIO, self._number, audio)

    async def finish(self) -> Heard:
        """No more audio: return what was said.

        Raises:
            VoiceUnavailable: the worker died or took too long.
        """
        if not self._answer.done():
            self._slot.worker.send(Kind.FINISH, self._number)
        results = self._slot.results
        try:
            async with asyncio.timeout(_FINISH_S):
                words = await self._answer
        except TimeoutError:
            self.abandon()
            if self._slot.results == results:
                # Nothing came from it for anybody: it hangs, and only a new process helps.
                self._slot.worker.kill()
            raise VoiceUnavailable(f"no transcript within {_FINISH_S:g} s") from None
        return self._heard(words)

    def abandon(self) -> None:
        """Forget this turn; safe at any time."""
        if self._slot.hearings.pop(self._number, None) is not None:
            self._slot.worker.send(Kind.ABANDON, self._number)
        self._answer.cancel()

    def _heard(self, words: dict[str, str]) -> Heard:
        grammar = self._recognizer.grammar
        statistical, strict = words.get(LM, ""), words.get(GRAMMAR, "")
        if grammar.states[self._state].free:
            return Heard(transcript=MESSAGE_TRANSCRIPT if statistical else "")
        intents = grammar.intents(self._state, words)
        # The statistical listener can say that something else was said; the strict one cannot.
        agreed = intents[GRAMMAR] is not None and intents[GRAMMAR] == intents[LM]
        return Heard(transcript=strict if agreed else statistical or strict, intents=intents)
