"""The offline engine's understanding: acted on rightly, confirmed, asked again, wrong.

Speech of flite voices over a telephone band and mu-law goes through the recognizer's real worker
processes; the responder's own rule says what would happen. Tuning voices and wordings are kept
apart from those that nothing was tuned on. `python -m tests.bench.intents` prints JSON; without
flite on PATH only the checked-in clips are measured, and `clips` says how many that were.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from app.engine.base import Heard
from app.engine.receptionist.script_file import load_script
from app.engine.speech.recognizer import PocketsphinxRecognizer
from app.engine.speech.vad import VoiceActivity
from tests.bench.speech_clips import HELD_OUT_VOICES, TUNED_VOICES, Phrase, clip, line, phrases

__all__ = ["outcome", "run"]

_PIECE_BYTES = 640
_CALLS = 8
_GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tuned": ("tuned", TUNED_VOICES),
    "new_voices": ("tuned", HELD_OUT_VOICES),
    "new_wordings": ("held_out", HELD_OUT_VOICES),
    "foreign_seen": ("foreign", TUNED_VOICES),
    "foreign_new": ("foreign_new", HELD_OUT_VOICES),
}


def outcome(phrase: Phrase, heard: Heard, *, yes_no: bool) -> str:
    """The receptionist's action on a turn, and a verdict on it."""
    votes = list(heard.intents.values())
    found = {vote for vote in votes if vote is not None}
    if not heard.transcript or len(found) != 1:
        return "asked_again"
    right = found == {phrase.intent}
    if None not in votes:
        return "right" if right else "wrong"
    if yes_no:
        return "asked_again"
    return "confirmed" if right else "confirmed_wrong"


def _cpu_s(pids: Iterable[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


async def _hear(recognizer: PocketsphinxRecognizer, state: str, audio: bytes) -> Heard:
    hearing = recognizer.listen(state)
    for start in range(0, len(audio), _PIECE_BYTES):
        hearing.push(audio[start : start + _PIECE_BYTES])
    return await hearing.finish()


async def _group(
    recognizer: PocketsphinxRecognizer,
    name: str,
    voices: tuple[str, ...],
    yes_no: frozenset[str],
    noise_db: float | None,
) -> dict[str, float]:
    counts: Counter[str] = Counter()
    jobs = [(p, v) for p in phrases() if p.set == name for v in voices]
    turns = [(p, line(c, noise_db=noise_db)) for p, v in jobs if (c := clip(p.text, v)) is not None]
    for at in range(0, len(turns), 2):
        pair = turns[at : at + 2]
        heard = await asyncio.gather(*(_hear(recognizer, p.state, audio) for p, audio in pair))
        for (phrase, _), words in zip(pair, heard, strict=True):
            counts[outcome(phrase, words, yes_no=phrase.state in yes_no)] += 1
    total = max(1, counts.total())
    shares: dict[str, float] = {k: round(100 * n / total, 1) for k, n in sorted(counts.items())}
    return {"clips": counts.total(), **shares}


async def _real_time(recognizer: PocketsphinxRecognizer, calls: int) -> dict[str, float]:
    """Callers who talk at the same time, each a little later: the delay of their transcripts."""
    turns = [p for p in phrases() if p.set == "tuned" and p.state == "menu"]
    audio_s = 0.0

    async def call(number: int) -> list[float]:
        nonlocal audio_s
        delays = []
        loop = asyncio.get_running_loop()
        at = loop.time() + number * 0.31
        for phrase in (turns[number % len(turns)], turns[(number + 9) % len(turns)]):
            speech = clip(phrase.text, "slt")
            assert speech is not None  # checked in
            audio = line(speech)
            audio_s += len(audio) / 32_000
            hearing = recognizer.listen(phrase.state)
            for start in range(0, len(audio), _PIECE_BYTES):
                at += 0.02
                await asyncio.sleep(max(0.0, at - loop.time()))
                hearing.push(audio[start : start + _PIECE_BYTES])
            began = loop.time()
            await hearing.finish()
            delays.append((loop.time() - began) * 1000)
            at = loop.time() + 1.0
        return delays

    cpu_before = _cpu_s(recognizer.pids)
    told = await asyncio.gather(*(call(n) for n in range(calls)))
    delays = sorted(itertools.chain.from_iterable(told))
    return {
        "calls": calls,
        "transcript_ms_p50": round(statistics.median(delays)),
        "transcript_ms_p95": round(delays[int(len(delays) * 0.95)]),
        "cpu_s_per_audio_s": round((_cpu_s(recognizer.pids) - cpu_before) / audio_s, 3),
    }


def _vad() -> dict[str, float]:
    """The detector's cost, on speech and on a silent line."""
    speech = clip("what are your opening hours", "slt")
    assert speech is not None  # checked in
    audio = line(speech) * 5
    result = {}
    for name, heard in (("speech", audio), ("silence", bytes(len(audio)))):
        detector = VoiceActivity()
        began = time.process_time()
        for start in range(0, len(heard), _PIECE_BYTES):
            detector.push(heard[start : start + _PIECE_BYTES])
        spent = time.process_time() - began
        result[f"cpu_s_per_{name}_s"] = round(spent / (len(heard) / 32_000), 4)
    return result


async def _measure() -> dict[str, object]:
    script = load_script()
    yes_no = frozenset(name for name, state in script.states.items() if state.yes_no)
    recognizer = PocketsphinxRecognizer(script.grammar, pronunciations=script.pronunciations)
    began = time.perf_counter()
    await recognizer.start()
    ready_s = round(time.perf_counter() - began, 2)
    try:
        understood = {
            f"{group}_{line_name}": await _group(recognizer, *_GROUPS[group], yes_no, noise_db)
            for line_name, noise_db in (("clean", None), ("noise_15_db", 15.0))
            for group in _GROUPS
        }
        return {
            "ready_s": ready_s,
            "understood_percent": understood,
            "one_call": await _real_time(recognizer, 1),
            "many_calls": await _real_time(recognizer, _CALLS),
            "worker_memory_mb": [_memory_mb(pid) for pid in recognizer.pids],
            "vad": _vad(),
        }
    finally:
        await recognizer.close()


def run() -> dict[str, object]:
    """Measure on this machine; takes about two minutes on two cores."""
    return asyncio.run(_measure())


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))  # noqa: T201 - the result is what this prints
