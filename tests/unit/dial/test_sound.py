"""Detection of audible sound, and the frames and times of the caller's speech."""

from __future__ import annotations

from app.dial.measures import (
    BargeInMeasure,
    QueueCleared,
    barge_ins,
    first_audio_ms,
    percentile,
    turn_latencies,
)
from app.dial.playout import Heard
from app.dial.speaking import SILENT_FRAME, SpeechPlayer, Utterance
from app.dial.utterances import Span, UtteranceDetector
from tests.fakes.caller import silence, tone


def heard_from(*pieces: tuple[int, bytes]) -> UtteranceDetector:
    """A detector that heard mu-law pieces from given times on; the stream began at 1000 ms."""
    detector = UtteranceDetector(1_000)
    for at_ms, ulaw in pieces:
        detector.hear(Heard((at_ms - 1_000) * 8, ulaw))
    detector.flush()
    return detector


def test_sound_is_heard_when_it_is_audible_and_not_when_media_came() -> None:
    detector = heard_from((1_200, silence(300) + tone(100) + silence(300)))
    assert detector.spans == (Span(1_500, 1_600),)
    assert detector.last_audible_ms == 1_600


def test_silence_is_no_sound() -> None:
    assert heard_from((1_000, silence(1_000))).spans == ()


def test_short_pauses_are_part_of_the_sound_and_longer_ones_are_not() -> None:
    sound = tone(100) + silence(150) + tone(100) + silence(250) + tone(100)
    assert heard_from((1_000, sound)).spans == (Span(1_000, 1_350), Span(1_600, 1_700))


def test_sentences_of_one_answer_are_one_stretch() -> None:
    detector = heard_from((1_000, tone(500) + silence(700) + tone(500)), (4_000, tone(100)))
    assert detector.stretches == (Span(1_000, 2_700), Span(4_000, 4_100))
    assert detector.latest_stretch == Span(4_000, 4_100)


def test_how_audio_is_cut_does_not_change_what_is_heard() -> None:
    sound = silence(35) + tone(333) + silence(500) + tone(77)
    whole, cut = heard_from((1_000, sound)), UtteranceDetector(1_000)
    for at in range(0, len(sound), 23):
        cut.hear(Heard(at, sound[at : at + 23]))
    cut.flush()
    assert cut.spans == whole.spans


def test_a_gap_in_the_audio_is_kept_as_time() -> None:
    detector = heard_from((1_000, tone(105)), (1_600, tone(100)))
    assert detector.spans == (Span(1_000, 1_105), Span(1_600, 1_700))


def drain(player: SpeechPlayer, from_ms: int, *, agent_playing: bool = False) -> list[bytes]:
    frames = []
    now_ms = from_ms
    while player.speaking:
        now_ms += 20
        frames.append(player.next_frame(now_ms, agent_playing=agent_playing))
    return frames


def test_a_silent_caller_sends_silence() -> None:
    assert SpeechPlayer().next_frame(20, agent_playing=False) == SILENT_FRAME == b"\xff" * 160


def test_speech_is_sent_whole_and_filled_up_to_full_frames() -> None:
    player = SpeechPlayer()
    speech = tone(50)
    player.say(speech)
    frames = drain(player, 0)
    assert [len(frame) for frame in frames] == [160, 160, 160]
    assert b"".join(frames) == speech + silence(10)


def test_speech_begins_a_frame_before_its_first_message_and_ends_with_its_last() -> None:
    player = SpeechPlayer()
    player.say(silence(30) + tone(100) + silence(200), "hello")
    drain(player, 5_000)
    (utterance,) = player.utterances
    assert (utterance.text, utterance.onset_ms, utterance.end_ms) == ("hello", 5_030, 5_130)


def test_one_utterance_after_another_keeps_its_own_times() -> None:
    player = SpeechPlayer()
    player.say(tone(100), "a")
    player.say(tone(60), "b")
    drain(player, 0)
    assert [(u.onset_ms, u.end_ms) for u in player.utterances] == [(0, 100), (100, 160)]


def test_a_recording_of_silence_is_no_speech() -> None:
    player = SpeechPlayer()
    player.say(silence(100))
    player.say(b"")
    drain(player, 0)
    assert [(u.onset_ms, u.end_ms) for u in player.utterances] == [(None, None), (None, None)]


def said(onset_ms: int, end_ms: int, *, over: bool = False, to_end: bool = False) -> Utterance:
    return Utterance(
        onset_ms=onset_ms,
        end_ms=end_ms,
        agent_playing_at_onset=over,
        agent_playing_at_end=to_end,
    )


def test_the_first_sound_counts_from_the_answered_call() -> None:
    assert first_audio_ms([Span(1_300, 2_000)], 1_000) == 300
    assert first_audio_ms([], 1_000) is None


def test_turn_latency_is_from_the_end_of_speech_to_the_first_sound_after_it() -> None:
    spans = [Span(0, 900), Span(2_650, 4_000), Span(6_100, 7_000)]
    assert turn_latencies([said(1_000, 2_000), said(5_000, 6_000)], spans) == [650, 100]


def test_an_answer_to_the_next_question_is_none_to_this_one() -> None:
    spans = [Span(6_500, 7_000)]
    assert turn_latencies([said(1_000, 2_000), said(5_000, 6_000)], spans) == [None, 500]


def test_an_agent_who_talks_on_has_not_answered() -> None:
    spans = [Span(0, 3_000), Span(3_300, 4_000)]
    assert turn_latencies([said(1_000, 2_000, over=True, to_end=True)], spans) == [None]


def test_utterances_without_sound_are_no_turns() -> None:
    assert turn_latencies([Utterance(text="nothing")], [Span(0, 10)]) == []


def test_barge_in_reaction_is_from_the_first_sound_to_the_clear() -> None:
    measures = barge_ins(
        [said(1_000, 2_000, over=True)], [Span(0, 1_250)], [QueueCleared(1_250, 4_000)]
    )
    assert measures == [BargeInMeasure(at_ms=1_000, reaction_ms=250)]


def test_a_syllable_that_leaks_after_the_clear_is_found() -> None:
    (measure,) = barge_ins(
        [said(1_000, 2_000, over=True)],
        [Span(0, 1_250), Span(1_500, 1_580)],
        [QueueCleared(1_250, 4_000)],
    )
    assert measure.leaked_ms == 80


def test_an_agent_who_does_not_stop_has_no_reaction() -> None:
    (measure,) = barge_ins(
        [said(1_000, 2_000, over=True)], [Span(0, 3_000)], [QueueCleared(2_100, 0)]
    )
    assert measure.reaction_ms is None


def test_speech_into_silence_is_no_barge_in() -> None:
    assert barge_ins([said(1_000, 2_000)], [], [QueueCleared(1_100, 0)]) == []


def test_percentiles_are_measured_values() -> None:
    assert percentile([], 50) is None
    assert percentile([7], 95) == 7
    assert percentile([40, 10, 30, 20], 50) == 20
    assert percentile([40, 10, 30, 20], 95) == 40
