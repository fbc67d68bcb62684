"""Usage is counted once, and estimated where a model never says it."""

from __future__ import annotations

from dataclasses import replace

from app.agents.dialogue.usage_meter import UsageMeter, billed
from app.events import TokenUsage
from app.realtime.events import TranscriptionCompleted, Usage

USAGE = Usage(
    input_tokens=130,
    input_text_tokens=30,
    input_audio_tokens=100,
    cached_tokens=20,
    cached_text_tokens=5,
    cached_audio_tokens=15,
    output_text_tokens=10,
    output_audio_tokens=40,
)


def test_a_response_that_is_done_twice_is_billed_once() -> None:
    meter = UsageMeter()
    meter.on_created("r1")
    meter.on_done("r1", USAGE, "")
    meter.on_done("r1", USAGE, "")
    meter.on_done("r2", USAGE, "")  # whose beginning got lost
    assert meter.total == billed(USAGE) + billed(USAGE)
    assert meter.total.estimated_responses == 0


def test_a_response_that_was_cut_off_is_estimated_from_the_one_before() -> None:
    meter = UsageMeter()
    meter.on_created("r1")
    meter.on_done("r1", USAGE, "")
    before = meter.total
    meter.on_created("r2")
    meter.on_sound("r2", 3_000)
    meter.on_lost("")
    meter.on_lost("")
    assert meter.total == before + TokenUsage(
        input_text=40,
        input_audio=140,
        cached_text=5,
        cached_audio=15,
        output_text=10,
        output_audio=60,
        speech_seconds=3.0,
        estimated_responses=1,
    )
    meter.on_done("r2", USAGE, "")  # which comes too late to count again
    assert meter.total.estimated_responses == 1


def test_a_first_response_that_was_cut_off_has_read_the_instructions() -> None:
    meter = UsageMeter()
    meter.on_created("r1")
    meter.on_lost("Be brief. " * 40)
    assert meter.total == TokenUsage(input_text=100, estimated_responses=1)


def test_a_response_that_names_no_usage_is_estimated_unless_it_failed() -> None:
    meter = UsageMeter()
    for name, failed in (("r1", True), ("r2", False)):
        meter.on_created(name)
        meter.on_sound(name, 500)
        meter.on_done(name, None, "", failed=failed)
    assert meter.total.estimated_responses == 1 and meter.total.output_audio == 10


def test_a_usage_that_no_server_has_told_is_an_estimate() -> None:
    meter = UsageMeter()
    meter.on_done("r1", USAGE, "")
    meter.on_created("r1")
    meter.on_created("r2")
    meter.on_done("r2", replace(USAGE, estimated=True), "")
    assert meter.total == billed(USAGE) + billed(USAGE) + TokenUsage(estimated_responses=1)


def test_a_sentence_that_asked_nothing_of_a_model_is_no_measure_of_the_next_response() -> None:
    meter = UsageMeter()
    for response_id, usage in (("r1", USAGE), ("r2", Usage())):
        meter.on_created(response_id)
        meter.on_done(response_id, usage, "")
    meter.on_created("r3")
    meter.on_lost("")
    assert meter.total.input_audio == 100 + 140


def test_cached_tokens_that_are_not_split_are_kept_apart() -> None:
    usage = billed(Usage(input_tokens=50, input_text_tokens=50, cached_tokens=30))
    assert usage == TokenUsage(input_text=50, cached_unsplit=30, unsplit_responses=1)


def test_input_tokens_that_are_not_split_count_as_sound() -> None:
    usage = billed(Usage(input_tokens=50, input_text_tokens=20))
    assert usage == TokenUsage(input_text=20, input_audio=30, unsplit_responses=1)


def test_a_transcription_counts_once_for_each_turn() -> None:
    meter = UsageMeter()
    done = TranscriptionCompleted("i1", 0, "yes", seconds=2.0)
    meter.on_transcription(done)
    meter.on_transcription(done)
    assert meter.total.transcription_seconds == 2.0
    meter.on_committed("i1")  # another turn, with an id that was used before
    meter.on_transcription(done)
    assert meter.total.transcription_seconds == 4.0
