"""The engine's speech parts as they run: real worker processes, real speech, real decoders."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from app.engine.receptionist.grammar import Grammar, StateGrammar
from app.engine.receptionist.responder import Receptionist
from app.engine.receptionist.script_file import load_script
from app.engine.speech import synthesizer as synthesis
from app.engine.speech import worker
from app.engine.speech.recognizer import (
    MESSAGE_TRANSCRIPT,
    PocketsphinxHearing,
    PocketsphinxRecognizer,
)
from app.engine.speech.synthesizer import WorkerSynthesizer
from app.engine.speech.vad import VoiceActivity
from app.errors import ConfigError, VoiceUnavailable
from tests.bench.speech_clips import clip, line
from tests.fakes.waiting import TIME_LIMIT_S, until

SCRIPT = load_script()
PIECE_BYTES = 640


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def recognizer() -> AsyncIterator[PocketsphinxRecognizer]:
    made = PocketsphinxRecognizer(
        SCRIPT.grammar, pronunciations=SCRIPT.pronunciations, workers=1, hearings=2
    )
    await made.start()
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def synthesizer() -> AsyncIterator[WorkerSynthesizer]:
    made = WorkerSynthesizer()
    await made.start()
    yield made
    await made.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def _speech(text: str, voice: str = "slt") -> bytes:
    samples = clip(text, voice)
    assert samples is not None, "checked in under tests/data/speech_eval"
    return line(samples)


def _pushed(hearing: PocketsphinxHearing, audio: bytes) -> PocketsphinxHearing:
    for start in range(0, len(audio), PIECE_BYTES):
        hearing.push(audio[start : start + PIECE_BYTES])
    return hearing


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.offline_speech
@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("opening hours", "hours"),
        ("where are you located", "address"),
        ("i would like to leave a message", "message"),
        ("goodbye", "goodbye"),
    ],
)
async def test_both_listeners_hear_a_caller_on_the_telephone(
    recognizer: PocketsphinxRecognizer, text: str, intent: str
) -> None:
    heard = await _pushed(recognizer.listen("menu"), _speech(text)).finish()
    assert heard.intents == {"lm": intent, "grammar": intent}
    assert heard.transcript


@pytest.mark.offline_speech
async def test_off_topic_speech_is_not_acted_on(recognizer: PocketsphinxRecognizer) -> None:
    for text in ("what is the weather in paris", "i lost my credit card"):
        heard = await _pushed(recognizer.listen("menu"), _speech(text, "kal16")).finish()
        votes = set(heard.intents.values())
        assert None in votes or len(votes) == 2


@pytest.mark.offline_speech
async def test_the_same_sound_gives_the_same_words_whatever_was_heard_before(
    recognizer: PocketsphinxRecognizer,
) -> None:
    audio = _speech("can you tell me your opening hours please")
    first = await _pushed(recognizer.listen("menu"), audio).finish()
    await _pushed(recognizer.listen("menu"), _speech("i lost my credit card", "kal16")).finish()
    turns = [_pushed(recognizer.listen("menu"), audio) for _ in range(3)]  # one more than decoders
    assert [await turn.finish() for turn in turns] == [first] * 3


@pytest.mark.offline_speech
async def test_silence_and_nothing_have_no_words(recognizer: PocketsphinxRecognizer) -> None:
    for audio in (b"", b"\x00", bytes(32_000)):
        heard = await _pushed(recognizer.listen("menu"), audio).finish()
        assert set(heard.intents.values()) == {None}
    assert (await recognizer.listen("menu").finish()).transcript == ""


@pytest.mark.offline_speech
async def test_a_message_is_not_written_down(recognizer: PocketsphinxRecognizer) -> None:
    audio = _speech("i lost my credit card", "kal16")
    heard = await _pushed(recognizer.listen("message"), audio).finish()
    assert heard.transcript == MESSAGE_TRANSCRIPT


@pytest.mark.offline_speech
async def test_an_abandoned_turn_gives_its_decoders_back(
    recognizer: PocketsphinxRecognizer,
) -> None:
    audio = _speech("can you tell me your opening hours please")
    for _ in range(4):
        hearing = _pushed(recognizer.listen("menu"), audio)
        hearing.abandon()
        hearing.abandon()
        hearing.push(audio)
    heard = await _pushed(recognizer.listen("menu"), _speech("opening hours")).finish()
    assert heard.intents["grammar"] == "hours"


@pytest.mark.offline_speech
async def test_more_than_the_longest_turn_is_not_heard() -> None:
    recognizer = PocketsphinxRecognizer(SCRIPT.grammar, workers=1, hearings=1, max_turn_s=1)
    await recognizer.start()
    try:
        audio = bytes(32_000) + _speech("opening hours")
        heard = await _pushed(recognizer.listen("menu"), audio).finish()
        assert set(heard.intents.values()) == {None}
    finally:
        await recognizer.close()


@pytest.mark.offline_speech
async def test_a_worker_that_dies_costs_its_turns_and_is_replaced() -> None:
    recognizer = PocketsphinxRecognizer(SCRIPT.grammar, workers=1, hearings=1)
    await recognizer.start()
    try:
        hearing = recognizer.listen("menu")
        (pid,) = recognizer.pids
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(VoiceUnavailable):
            await hearing.finish()
        await until(lambda: recognizer.pids not in ((), (pid,)) and recognizer.ready)
        heard = await _pushed(recognizer.listen("menu"), _speech("opening hours")).finish()
        assert heard.intents == {"lm": "hours", "grammar": "hours"}
    finally:
        pids = recognizer.pids
        await recognizer.close()
    assert pids
    assert not any(_alive(pid) for pid in pids)


@pytest.mark.offline_speech
async def test_words_that_nobody_can_say_are_refused_at_the_start() -> None:
    grammar = Grammar({"menu": StateGrammar("menu", {"x": ("zyxgibber",)})})
    with pytest.raises(ConfigError, match="zyxgibber"):
        await PocketsphinxRecognizer(grammar, workers=1, hearings=1).start()


async def _spoken(synthesizer: WorkerSynthesizer, text: str, voice: str, speed: float) -> bytes:
    chunks = [chunk async for chunk in synthesizer.speak(text, voice=voice, speed=speed)]
    assert all(0 < len(chunk) <= 9_600 and len(chunk) % 2 == 0 for chunk in chunks)
    return b"".join(chunks)


@pytest.mark.parametrize("voice", ["alloy", "cedar", "marin", "somebody"])
async def test_speech_is_loud_enough_and_never_clips(
    synthesizer: WorkerSynthesizer, voice: str
) -> None:
    audio = await _spoken(synthesizer, "You can say: opening hours, or address.", voice, 1.0)
    samples = np.frombuffer(audio, dtype="<i2").astype(np.float64) / 32_768
    assert 1.5 < len(samples) / 24_000 < 5.0
    frames = (samples[: len(samples) // 480 * 480].reshape(-1, 480) ** 2).mean(axis=1)
    assert -18 < 10 * np.log10(frames[frames > 10**-4.5].mean()) < -14
    assert np.abs(samples).max() < 10 ** (-1 / 20)


@pytest.mark.parametrize("odd", ["\0", "\ud83d"], ids=ascii)
async def test_an_odd_character_silences_no_sentence(
    odd: str, synthesizer: WorkerSynthesizer
) -> None:
    plain = await _spoken(synthesizer, "We are open Monday to Friday.", "alloy", 1.0)
    spoken = await _spoken(synthesizer, f"We are open {odd} Monday to Friday.", "alloy", 1.0)
    assert len(spoken) > 0.8 * len(plain)


async def test_faster_speech_is_shorter(synthesizer: WorkerSynthesizer) -> None:
    text = "We are open Monday to Friday."
    slow = await _spoken(synthesizer, text, "alloy", 0.7)
    fast = await _spoken(synthesizer, text, "alloy", 1.5)
    assert len(fast) < 0.7 * len(slow)


async def test_voices_that_are_not_there_keep_the_synthesizer_from_starting() -> None:
    pytest.importorskip("espeakng_loader")  # what else may speak knows no list of its voices
    names = ("alloy", "en-gb", "de", "en-us+m7", "en-gb-x-rp", "en-us+nope", "xx-nope", "Alloy")
    synthesizer = WorkerSynthesizer(voices={name: f"voices.{name}" for name in names})
    with pytest.raises(ConfigError) as refused:
        await synthesizer.start()
    lines = refused.value.message.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "voices.en-us+nope",
        "voices.xx-nope",
        "voices.Alloy",
    ]
    assert lines[2] == "voices.Alloy: there is no voice 'Alloy'; did you mean \"alloy\"?"
    assert synthesizer.pids == ()


async def test_a_voice_of_espeak_is_another_voice(synthesizer: WorkerSynthesizer) -> None:
    names = ("alloy", "cedar", "en-us", "en-gb", "en-gb+f3")
    spoken = {await _spoken(synthesizer, "Not at all.", name, 1.0) for name in names}
    assert len(spoken) == len(names)


async def test_detected_speech_of_the_synthesizer_is_speech(
    synthesizer: WorkerSynthesizer,
) -> None:
    audio = await _spoken(synthesizer, "Thank you for calling. Goodbye.", "alloy", 1.0)
    at_24k = np.frombuffer(audio, dtype="<i2").astype(np.float64)
    wanted = np.arange(0, len(at_24k), 1.5)
    at_16k = np.interp(wanted, np.arange(len(at_24k)), at_24k)
    edges = VoiceActivity().push(np.rint(at_16k).astype("<i2").tobytes() + bytes(32_000))
    assert [edge.started for edge in edges][:2] == [True, False]


async def test_speech_that_is_cut_off_leaves_room_for_the_next(
    synthesizer: WorkerSynthesizer,
) -> None:
    speech = synthesizer.speak("One, two, three, four. " * 30, voice="alloy", speed=1.0)
    assert await anext(speech)
    await speech.aclose()
    assert len(await _spoken(synthesizer, "Hello.", "alloy", 1.0)) > 9_600


async def test_calls_that_speak_at_once_hear_their_own_words(
    synthesizer: WorkerSynthesizer,
) -> None:
    texts = ["Hello.", "We are open today. Please call again.", "Goodbye and thank you."]
    alone = [await _spoken(synthesizer, text, "alloy", 1.0) for text in texts]
    together = await asyncio.gather(*(_spoken(synthesizer, t, "alloy", 1.0) for t in texts))
    assert [len(one) for one in together] == [len(one) for one in alone]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
async def test_a_synthesizer_that_is_lost_is_replaced_and_costs_no_sentence(
    how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "_RESTART_S", TIME_LIMIT_S)  # of a machine that is busy
    synthesizer = WorkerSynthesizer()
    await synthesizer.start()
    try:
        (pid,) = synthesizer.pids
        os.kill(pid, how)
        speaking = asyncio.create_task(_spoken(synthesizer, "Hello.", "alloy", 1.0))
        await until(lambda: not synthesizer.ready)  # as health says meanwhile
        assert await speaking
        assert synthesizer.pids not in ((), (pid,))
        assert synthesizer.ready
    finally:
        pids = synthesizer.pids
        await synthesizer.close()
    assert pids
    assert not any(_alive(each) for each in (pid, *pids))


async def test_a_worker_that_hangs_while_it_starts_is_replaced_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synthesizer = WorkerSynthesizer()
    await synthesizer.start()
    try:
        monkeypatch.setattr(worker, "_START_S", 5.0)
        (first,) = synthesizer.pids
        os.kill(first, signal.SIGKILL)
        await until(lambda: synthesizer.pids not in ((), (first,)))
        (hung,) = synthesizer.pids
        os.kill(hung, signal.SIGSTOP)
        await until(lambda: synthesizer.ready)
        assert synthesizer.pids not in ((first,), (hung,))
    finally:
        await synthesizer.close()


async def test_a_sentence_that_was_begun_is_not_said_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synthesizer = WorkerSynthesizer()
    await synthesizer.start()
    try:
        speech = synthesizer.speak("One, two, three, four. " * 30, voice="alloy", speed=1.0)
        assert await anext(speech)
        (pid,) = synthesizer.pids
        synthesizer._worker._on_frame = lambda frame: None  # what it has sent is still on its way
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(VoiceUnavailable):
            async for _ in speech:
                pass
    finally:
        await synthesizer.close()


@pytest.mark.offline_speech
async def test_a_caller_gets_through_by_voice_alone(recognizer: PocketsphinxRecognizer) -> None:
    receptionist = Receptionist(SCRIPT, ("end_call",))
    receptionist.open()
    heard = await _pushed(
        recognizer.listen(receptionist.context), _speech("opening hours")
    ).finish()
    assert receptionist.hear(heard).text.startswith("We are open")
    heard = await _pushed(recognizer.listen(receptionist.context), _speech("goodbye")).finish()
    assert [tool.name for tool in receptionist.hear(heard).tools] == ["end_call"]


async def test_the_terminals_interrupt_does_not_reach_the_workers(
    synthesizer: WorkerSynthesizer,
) -> None:
    # Ctrl-C is sent to every process of the terminal's group; live calls still need their voice.
    (pid,) = synthesizer.pids
    assert os.getpgid(pid) != os.getpgid(0)
