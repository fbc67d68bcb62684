"""The verdict about who has answered: how often it is right, how soon, and what it costs.

Every recording runs through the detector as a call does, in ticks of 200 ms, with a transcript, a
carrier's detector of Twilio's defaults, both or neither; and once more through the beginning of a
whole call, which counts the words that the agent was asked to say before the verdict. The first
verdict counts, also where a later one corrects it. An undecided call is no wrong verdict: those
callees hear the disclosure.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from app.agents.agent import Agent
from app.agents.dialogue.actions import Record, ToVoice
from app.calls.conversation.conversation import Conversation
from app.calls.outbound.answered_by import AnsweredByDetector
from app.calls.policy import CallPolicy
from app.calls.recording.notice import RecordingNotice
from app.carrier.base import CallerAudio, CarrierCallId, StreamId, StreamStarted
from app.events import AnsweredBy, AnswerJudged, CallId
from app.realtime.events import (
    ResponseCreate,
    SessionConfig,
    Transcription,
    TranscriptionCompleted,
)
from tests.bench.answering_clips import Recording, recordings
from tests.bench.calls import in_loop, measure

__all__ = ["run"]

TICK_MS = 200
COST_CALL_MS = 60_000
DISCLOSURE = "Hello, this is an AI assistant calling for Acme."
PRIVATE = "Am I speaking with Mrs. Smith? Your test results are here."


def run() -> dict[str, Any]:
    made = list(recordings())
    rows = {
        f"{'held out' if held_out else 'tuned'}, {name}": _row(
            [one for one in made if one.held_out is held_out], words=words, carrier=carrier
        )
        for name, words, carrier in (
            ("transcript and carrier", True, True),
            ("transcript", True, False),
            ("carrier", False, True),
            ("sound alone", False, False),
        )
        for held_out in (False, True)
    }
    private = sum(_private_words(one) for one in made)
    cost = _cost(made)
    return {"recordings": len(made), "rows": rows, "private_words": private, "cost": cost}


def _row(made: list[Recording], *, words: bool, carrier: bool) -> dict[str, Any]:
    counted: Counter[str] = Counter()
    after: dict[str, list[int]] = {"person": [], "machine": []}
    for one in made:
        if one.kind is AnsweredBy.NOBODY:
            continue
        verdict, after_ms = _detect(one, words=words, carrier=carrier)
        side = "person" if one.kind is AnsweredBy.HUMAN else "machine"
        counted[side] += 1
        if verdict is AnsweredBy.UNKNOWN:
            counted[f"{side} undecided"] += 1
            continue
        after[side].append(after_ms)
        if (verdict is AnsweredBy.HUMAN) != (side == "person"):
            counted[f"{side} wrong"] += 1
        elif verdict is not one.kind:
            counted["another machine"] += 1
    share = {
        f"{side}_wrong_percent": round(100 * counted[f"{side} wrong"] / counted[side], 1)
        for side in after
    }
    medians = {f"{side}_median_ms": int(statistics.median(ms)) for side, ms in after.items()}
    return {**counted, **share, **medians}


def _carrier_word(one: Recording) -> tuple[int, str]:
    """The word of a detector with Twilio's defaults (2.4 s of speech, 1.2 s pause), its time."""
    if one.kind is AnsweredBy.FAX:
        return 4_000, "fax"
    if not one.speech:
        return 5_000, "unknown"
    begin_ms, end_ms = one.speech[0]
    for next_ms, until_ms in one.speech[1:]:
        if next_ms - end_ms < 1_200:
            end_ms = until_ms
    if end_ms - begin_ms > 2_400:
        return begin_ms + 2_700, "machine_start"
    return end_ms + 1_500, "human"


def _frames(one: Recording) -> Iterable[tuple[int, bytes]]:
    for at in range(0, len(one.sound) - 159, 160):
        yield (at + 160) // 8, one.sound[at : at + 160]


def _detect(one: Recording, *, words: bool, carrier: bool) -> tuple[AnsweredBy, int]:
    detector = AnsweredByDetector(transcribed=words)
    detector.on_answered(0)
    turns = list(one.turns) if words else []
    word_ms, word = _carrier_word(one)
    for now_ms, frame in _frames(one):
        detector.on_audio(frame)
        while turns and turns[0].at_ms <= now_ms:
            turn = turns.pop(0)
            detector.on_words(str(turn.at_ms), turn.words, now_ms)
        if carrier and now_ms == word_ms - word_ms % 20:
            detector.on_carrier(word)
        if now_ms % TICK_MS == 0 and (answer := detector.on_tick(now_ms)):
            return answer.verdict, answer.after_ms
    return AnsweredBy.UNKNOWN, 0


def _conversation(*, placed: bool) -> Conversation:
    session = SessionConfig(transcription=Transcription(model="writer"))
    agent = Agent(name="bench", session=session, greeting=PRIVATE)
    notice = RecordingNotice(DISCLOSURE, exact=True)
    call = Conversation(CallId("bench"), agent, CallPolicy(), 0, notice=notice, placed=placed)
    call.on_voice_ready(0, None)
    started = StreamStarted(
        stream_id=StreamId("MZ1"), carrier_call_id=CarrierCallId("CA1"), account_id="AC1"
    )
    call.on_stream(started, 0)
    return call


def _private_words(one: Recording) -> int:
    """The words that the agent was asked to say before the verdict, but for the disclosure."""
    call, turns = _conversation(placed=True), list(one.turns)
    words = 0
    for now_ms, frame in _frames(one):
        actions = list(call.on_stream(CallerAudio(frame, now_ms), now_ms))
        while turns and turns[0].at_ms <= now_ms:
            turn = turns.pop(0)
            done = TranscriptionCompleted(str(turn.at_ms), 0, turn.words)
            actions += call.on_voice(done, now_ms)
        if now_ms % TICK_MS == 0:
            actions += call.on_tick(now_ms)
        for action in actions:
            if isinstance(action, Record) and isinstance(action.event, AnswerJudged):
                return words
            if isinstance(action, ToVoice) and isinstance(action.event, ResponseCreate):
                config = action.event.response
                words += len(PRIVATE.split()) if config is None or PRIVATE in str(config) else 0
    return words


def _cost(made: list[Recording]) -> dict[str, Any]:
    """CPU of a minute's caller sound in a placed call and in one that came in, in turns.

    The difference is what the verdict costs; its share is that of a whole call among 50 others.
    """
    sound = next(one for one in made if one.kind is AnsweredBy.HUMAN).sound
    frames = [sound[at : at + 160] for at in range(0, len(sound) - 159, 160)]
    used = {True: [0.0], False: [0.0]}
    for _ in range(5):
        for placed in (True, False):
            call = _conversation(placed=placed)
            began = time.process_time()
            for now_ms in range(20, COST_CALL_MS, 20):
                frame = frames[(now_ms // 20) % len(frames)]
                call.on_stream(CallerAudio(frame, now_ms), now_ms)
                if now_ms == 2_000:
                    call.on_voice(TranscriptionCompleted("u1", 0, "Hello?"), now_ms)
                if now_ms % TICK_MS == 0:
                    call.on_tick(now_ms)
            used[placed].append(time.process_time() - began)
    placed_s, taken_s = (statistics.median(used[one][1:]) for one in (True, False))
    whole_ms = 60 * in_loop(measure("trunkline", 50, 4.0))["cpu_ms_per_call_second"]
    return {
        "placed_ms_per_minute": round(1000 * placed_s, 1),
        "taken_ms_per_minute": round(1000 * taken_s, 1),
        "whole_call_ms_per_minute": round(whole_ms, 1),
        "share_percent": round(100 * 1000 * (placed_s - taken_s) / whole_ms, 1),
    }
