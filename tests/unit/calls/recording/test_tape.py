"""The tape: each sound where it was heard, and nothing that was not."""

from __future__ import annotations

import pytest

from app.calls.recording.notice import TRIES, RecordingNotice
from app.calls.recording.tape import AGENT, CALLER, MAX_UNHEARD_MS, NO_PLACE, Batch, Tape
from audio.format import PCMU_8K, AudioFormat, Encoding

FRAME_MS = 20


def sound(ms: int, code: int = 0x20) -> bytes:
    return bytes([code]) * (8 * ms)


def tape(notice: str = "", started_ms: int | None = 1_000) -> Tape:
    made = Tape(RecordingNotice(notice))
    if started_ms is not None:
        made.on_stream(PCMU_8K, started_ms)
    return made


def spans(batch: Batch, side: int) -> list[tuple[int, int]]:
    """The begin and the length of each sound, neighbors joined."""
    found: list[tuple[int, int]] = []
    for one, at_ms, ulaw in batch.sounds:
        if one != side:
            continue
        if found and sum(found[-1]) == at_ms:
            found[-1] = found[-1][0], found[-1][1] + len(ulaw) // 8
        else:
            found.append((at_ms, len(ulaw) // 8))
    return found


# The caller ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([(1_020, 0), (1_040, 20), (1_060, 40)], [(1_000, 60)]),
        ([(1_020, 0), (1_095, 20), (1_096, 40)], [(1_000, 60)]),  # jitter is the network's
        ([(1_020, 0), (1_120, 100)], [(1_000, 20), (1_100, 20)]),  # a gap in the timestamps
        ([(1_420, 0), (1_430, 20)], [(1_000, 40)]),  # the first one was held up
        ([(6_020, 0), (6_040, 20)], [(6_000, 40)]),  # a stream that began late
        ([(1_020, 0), (4_020, 20), (4_021, 40)], [(1_000, 60)]),  # a stall, made up for
        ([(1_020, 0), (1_040, 900_000), (1_060, 900_020)], [(1_000, 60)]),  # odd timestamps
        ([(1_020, 500), (1_040, 0)], [(1_000, 20), (500, 20)]),  # which came late
    ],
)
def test_a_frame_stands_where_its_timestamp_puts_it(
    frames: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    made = tape()
    for now_ms, timestamp_ms in frames:
        made.on_caller(sound(FRAME_MS), timestamp_ms, now_ms)
    batch = made.take(0)
    assert list(zip(batch.frames[0::4], batch.frames[1::4], strict=True)) == frames
    assert spans(batch, CALLER) == expected


def test_frames_of_another_length_stand_behind_each_other() -> None:
    made = tape()
    made.on_caller(sound(30), 0, 1_030)
    made.on_caller(sound(10), 30, 1_040)
    assert spans(made.take(0), CALLER) == [(1_000, 40)]


def test_a_frame_that_would_stand_before_the_call_is_left_out() -> None:
    made = tape(started_ms=0)
    for at_ms in (0, 40, 80):  # all at once: a client that need not wait for its own microphone
        made.on_caller(sound(40), at_ms, 5)
    batch = made.take(0)
    assert list(batch.frames[2::4]) == [NO_PLACE, 5, 45]
    assert spans(batch, CALLER) == [(5, 80)]


@pytest.mark.parametrize("why", ["paused", "private", "notice"])
def test_what_is_not_to_be_kept_leaves_its_time_and_no_sound(why: str) -> None:
    made = tape("Recorded." if why == "notice" else "")
    made.paused = why == "paused"
    made.private = lambda: why == "private"
    made.on_caller(sound(FRAME_MS), 0, 1_020)
    made.on_agent(sound(100), 1_000)
    made.on_heard(800, 1_100)
    batch = made.take(1_100)
    assert list(batch.frames) == [1_020, 0, NO_PLACE, 160]
    # The agent's side shows that the notice was given.
    assert [side for side, _, _ in batch.sounds] == ([AGENT] if why == "notice" else [])


def test_the_tone_of_a_secret_key_is_taken_out_around_its_message() -> None:
    made = tape()
    for index in range(100):
        if index == 50:
            made.on_secret_key(2_010)
        made.on_caller(sound(FRAME_MS), 20 * index, 1_020 + 20 * index)
    kept = bytearray(PCMU_8K.silence(3_000))
    for _, at_ms, ulaw in made.take(0).sounds:
        kept[8 * (at_ms - 1_000) : 8 * (at_ms - 1_000) + len(ulaw)] = ulaw
    gap = [ms for ms in range(2_000) if kept[8 * ms] == 0xFF]
    assert gap[0] in range(605, 615) and gap[-1] in range(1_285, 1_315)


# The agent ----------------------------------------------------------------------------------------


def test_only_what_was_heard_is_given_out() -> None:
    made = tape()
    made.on_agent(sound(1_000), 1_000)
    made.on_heard(8 * 300, 1_300)
    assert spans(made.take(0), AGENT) == [(1_000, 300)]
    made.on_heard(8 * 300, 1_400)
    assert spans(made.take(0), AGENT) == []
    made.on_cut(8 * 450, 1_450)
    assert spans(made.take(0), AGENT) == [(1_300, 150)]
    made.on_agent(sound(100), 2_000)
    made.on_heard(8 * 100, 2_100)  # of a new generation
    assert spans(made.take(0), AGENT) == [(2_000, 100)]


def test_sound_stands_behind_what_was_sent_before_and_no_sooner_than_it_was_sent() -> None:
    made = tape()
    made.on_agent(sound(200), 1_000)
    made.on_agent(sound(200), 1_010)  # generated faster than it plays
    made.on_agent(sound(200), 1_900)  # after a pause
    made.on_heard(8 * 600, 2_200)
    assert spans(made.take(0), AGENT) == [(1_000, 400), (1_900, 200)]


def test_sound_that_waits_for_the_stream_begins_with_it() -> None:
    made = tape(started_ms=None)
    made.on_agent(sound(200), 300)
    made.on_agent(sound(200), 900)
    made.on_stream(PCMU_8K, 1_000)
    made.on_heard(8 * 400, 1_400)
    assert spans(made.take(0), AGENT) == [(1_000, 400)]


def test_a_tone_is_heard_by_the_clock_and_words_stand_behind_it() -> None:
    made = tape()
    made.on_agent(sound(300, 0x30), 1_000, tone=True)
    made.on_agent(sound(100), 1_100)
    made.on_heard(0, 1_200)
    assert spans(made.take(0), AGENT) == []
    made.on_heard(8 * 100, 1_400)
    assert spans(made.take(0), AGENT) == [(1_000, 400)]
    made.on_agent(sound(300, 0x30), 2_000, tone=True)
    made.on_cut(0, 2_100)  # `clear` throws away a tone as well
    assert spans(made.take(0), AGENT) == [(2_000, 100)]


def test_a_carrier_that_plays_later_than_sent_moves_what_follows() -> None:
    made = tape()
    made.on_agent(sound(200), 1_000)
    made.on_agent(sound(400), 1_000)
    made.on_mark(8 * 200, 1_240)  # 40 ms of network: the quickest so far
    made.on_mark(8 * 400, 1_940)  # half a second later than that
    made.on_heard(8 * 600, 2_200)
    assert spans(made.take(0), AGENT) == [(1_000, 400), (1_900, 200)]


def test_more_than_any_model_says_at_a_time_is_not_kept_in_memory() -> None:
    made = tape()
    for _ in range(MAX_UNHEARD_MS // 60_000 + 2):
        made.on_agent(sound(60_000), 1_000)
    kept = {id(one.audio): len(one.audio) for one in made._queue if one.audio[0] != 0xFF}
    assert sum(kept.values()) <= 8 * MAX_UNHEARD_MS


def test_another_format_is_recorded_as_mu_law() -> None:
    made = Tape(RecordingNotice(""))
    made.on_stream(AudioFormat(Encoding.PCM16, 8_000), 1_000)
    made.on_caller(b"\x00\x10" * 160, 0, 1_020)
    made.on_agent(b"\x00\x10" * 160, 1_000)
    made.on_heard(320, 1_020)
    for _, at_ms, ulaw in made.take(0).sounds:
        assert at_ms == 1_000 and len(ulaw) == 160


# The notice ---------------------------------------------------------------------------------------


def test_a_notice_permits_once_its_own_item_was_heard_to_its_end() -> None:
    notice = RecordingNotice("Recorded.")
    assert notice.pending and notice.ask() == "Recorded."
    notice.on_response("r1", "Something else.")
    notice.on_sound("r1", "a1")
    notice.on_heard("a1")
    assert notice.pending
    notice.on_response("r2", "Recorded. Hello!")
    notice.on_sound("r2", "a2")
    notice.on_heard("a1")
    assert notice.pending
    notice.on_heard("a2")
    assert notice.pending  # more of it may come
    notice.on_generated("r1")
    assert notice.pending
    notice.on_generated("r2")
    assert notice.permits and not notice.pending
    again = RecordingNotice("Recorded.")
    again.on_response("r1", "Recorded.")
    again.on_sound("r1", "a1")
    again.on_generated("r1")
    assert again.pending
    again.on_heard("a1")
    assert again.permits


def test_a_notice_that_is_never_heard_is_given_up() -> None:
    notice = RecordingNotice("Recorded.")
    assert [notice.ask() for _ in range(TRIES + 1)] == ["Recorded."] * TRIES + [""]
    assert notice.given_up and not notice.pending and not notice.permits


def test_without_a_text_there_is_nothing_to_hear() -> None:
    assert RecordingNotice("").permits and not RecordingNotice("").pending
