"""The queue towards the voice model: in order, in batches, bounded."""

from __future__ import annotations

import asyncio

import pytest

from app.agents.dialogue.voice_outbox import BATCH_CHUNKS, VoiceOutbox
from app.events import CallCounters
from app.realtime.events import ClientEvent, InputAudioAppend, InputAudioCommit
from audio.format import PCM16_24K, PCMU_8K, AudioFormat

FRAME_MS = 20


def outbox(max_ms: int = 2_000, audio_format: AudioFormat = PCMU_8K) -> VoiceOutbox:
    return VoiceOutbox(audio_format, max_ms, CallCounters())


def frame(number: int, audio_format: AudioFormat = PCMU_8K) -> bytes:
    return bytes([number % 256]) * audio_format.ms_to_bytes(FRAME_MS)


async def taken(box: VoiceOutbox) -> list[ClientEvent]:
    """Everything that waits."""
    events = []
    while box._queue:
        events.append(await box.take())
    return events


def audio(events: list[ClientEvent]) -> list[bytes]:
    return [event.audio for event in events if isinstance(event, InputAudioAppend)]


async def test_one_chunk_goes_alone_and_what_has_piled_up_ten_at_a_time() -> None:
    box = outbox()
    box.put_audio(frame(0))
    assert audio(await taken(box)) == [frame(0)]
    for number in range(25):
        box.put_audio(frame(number))
    sent = audio(await taken(box))
    assert [len(batch) // len(frame(0)) for batch in sent] == [BATCH_CHUNKS, BATCH_CHUNKS, 5]
    assert b"".join(sent) == b"".join(frame(number) for number in range(25))
    assert box._counters.appends_sent == 4


async def test_a_batch_does_not_overtake_an_event() -> None:
    box = outbox()
    box.put_audio(frame(1))
    box.put(InputAudioCommit())
    box.put_audio(frame(2))
    assert await taken(box) == [
        InputAudioAppend(frame(1)),
        InputAudioCommit(),
        InputAudioAppend(frame(2)),
    ]


async def test_beyond_the_bound_the_oldest_sound_is_dropped_and_counted_and_no_event() -> None:
    box = outbox(max_ms=200)
    box.put_audio(frame(0))
    box.put(InputAudioCommit())
    for number in range(1, 16):
        box.put_audio(frame(number))
    events = await taken(box)
    assert isinstance(events[0], InputAudioCommit)
    assert b"".join(audio(events)) == b"".join(frame(number) for number in range(6, 16))
    assert box._counters.uplink_dropped_ms == 6 * FRAME_MS


@pytest.mark.parametrize("audio_format", [PCMU_8K, PCM16_24K])
async def test_a_gap_longer_than_the_bound_leaves_the_speech_behind_it(
    audio_format: AudioFormat,
) -> None:
    # Ten seconds that the carrier skipped are one chunk, with the caller's next words at its end.
    box = outbox(200, audio_format)
    words = frame(7, audio_format)
    box.put_audio(audio_format.silence(10_000) + words)
    (sent,) = audio(await taken(box))
    assert sent == audio_format.silence(180) + words
    assert box._counters.uplink_dropped_ms == 9_820


async def test_sound_outlives_the_connection_and_events_do_not() -> None:
    box = outbox()
    box.put_audio(frame(1))
    box.put(InputAudioCommit())
    box.forget_events()
    box.put_audio(frame(2))
    assert await taken(box) == [InputAudioAppend(frame(1) + frame(2))]


async def test_audio_waits_for_room_until_some_is_taken() -> None:
    box = outbox(max_ms=40)
    box.put_audio(frame(1))
    await box.room(len(frame(2)))
    box.put_audio(frame(2))
    waiting = asyncio.ensure_future(box.room(len(frame(3))))
    await asyncio.sleep(0)
    assert not waiting.done()
    await box.take()
    await waiting


async def test_waiting_for_room_ends_after_its_time_and_with_the_queue() -> None:
    box = outbox(max_ms=20)
    box.put_audio(frame(1))
    await box.room(len(frame(2)), within_s=0.001)
    waiting = asyncio.ensure_future(box.room(len(frame(2))))
    await asyncio.sleep(0)
    box.put(InputAudioCommit())
    box.clear()
    await waiting
    assert await taken(box) == []
