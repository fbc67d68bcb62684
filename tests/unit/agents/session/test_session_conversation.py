"""The pure half of a session: the events that it publishes and sends to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from app.agents.agent import Agent
from app.agents.dialogue.actions import GiveUp, RunTool, ToVoice
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.session.events import (
    Audio,
    AudioEnd,
    AudioInterrupted,
    HistoryAdded,
    HistoryUpdated,
    InputTimeout,
    SessionError,
    ToolEnd,
    UsageCounted,
)
from app.agents.session.playback import Playback
from app.agents.session.session_conversation import (
    STALL_MS,
    EndSession,
    Publish,
    SessionAction,
    SessionConversation,
)
from app.agents.tools.call_control import CALL_TOOLS
from app.events import CallId
from app.realtime.events import (
    AudioDelta,
    AudioDone,
    AudioTranscriptDelta,
    ErrorDetail,
    ErrorEvent,
    InputAudioCommitted,
    InputTimeoutTriggered,
    Item,
    ItemAdded,
    ItemDeleted,
    ItemTruncate,
    OutputItemDone,
    Response,
    ResponseCancel,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    ServerVad,
    SessionConfig,
    SpeechStarted,
    SpeechStopped,
    Usage,
)
from audio.format import PCM16_24K
from tests.unit.agents.harness import GOODBYE, call_of

T = TypeVar("T")


class Room:
    """Drives a `SessionConversation` and keeps what it wanted done."""

    def __init__(self, *, vad: ServerVad | None = None, plays: bool = True, **agent: Any) -> None:
        session = SessionConfig(turn_detection=vad, tools=tuple(CALL_TOOLS.values()))
        roster = Roster([Agent(name="a", session=session, **agent)])
        self.conversation = SessionConversation(
            roster, CallFacts(call_id=CallId("s")), plays_audio=plays
        )
        self.now_ms = 0
        self.actions: list[SessionAction] = []

    def do(self, actions: Sequence[SessionAction]) -> None:
        self.actions += actions

    def voice(self, *events: ServerEvent) -> None:
        for event in events:
            self.do(self.conversation.on_voice(event, self.now_ms))

    def take(self, kind: type[T]) -> list[T]:
        inner: list[object] = [
            a.event if isinstance(a, ToVoice | Publish) else a for a in self.actions
        ]
        found: list[T] = [one for one in inner if isinstance(one, kind)]
        self.actions = [
            action
            for action, one in zip(self.actions, inner, strict=True)
            if not isinstance(one, kind)
        ]
        return found

    def begins(self, response_id: str = "r1") -> None:
        self.voice(ResponseCreated(Response(id=response_id, status=ResponseStatus.IN_PROGRESS)))

    def speaks(self, ms: int, response_id: str = "r1", item_id: str = "a1") -> None:
        self.voice(
            ItemAdded(Item(type="message", id=item_id, role="assistant")),
            AudioTranscriptDelta(response_id, item_id, 0, 0, "one two three four "),
            AudioDelta(response_id, item_id, 0, 0, bytes(PCM16_24K.ms_to_bytes(ms))),
        )

    def ends(
        self, response_id: str = "r1", item_id: str = "a1", usage: Usage | None = None
    ) -> None:
        message = Item(type="message", id=item_id, role="assistant")
        self.voice(
            AudioDone(response_id, item_id, 0, 0),
            ResponseDone(
                Response(
                    id=response_id,
                    status=ResponseStatus.COMPLETED,
                    output=(message,),
                    usage=usage,
                )
            ),
        )

    def tick(self, ms: int) -> None:
        self.now_ms += ms
        self.do(self.conversation.on_tick(self.now_ms))


def test_a_caller_who_speaks_cuts_the_agent_off_where_the_clock_says() -> None:
    room = Room(vad=ServerVad())
    room.begins()
    room.speaks(2_000)
    room.now_ms = 700
    room.voice(SpeechStarted("u1", 0))
    assert room.take(ItemTruncate) == [ItemTruncate("a1", 0, 700)]
    assert room.take(AudioInterrupted) == [AudioInterrupted(item_id="a1", heard_ms=700)]
    assert room.take(ResponseCancel) == []  # the server has done so itself
    heard = room.take(HistoryUpdated)[-1].item
    assert (heard.cut_off, heard.heard_text) == (True, "one")
    room.take(Audio)
    room.voice(AudioDelta("r1", "a1", 0, 0, bytes(4_800)), AudioDone("r1", "a1", 0, 0))
    assert room.take(Audio) == []
    assert room.take(AudioEnd) == []
    assert room.conversation.counters.stale_audio_dropped_ms == 100


def test_a_server_that_does_not_cancel_by_itself_is_told_to() -> None:
    room = Room(vad=ServerVad(interrupt_response=False))
    room.begins()
    room.voice(SpeechStarted("u1", 0))
    assert room.take(ResponseCancel) == [ResponseCancel("r1")]


def test_a_turn_is_asked_about_where_the_server_does_not_answer_by_itself() -> None:
    room = Room(vad=ServerVad(create_response=False))
    room.voice(SpeechStarted("u1", 0), SpeechStopped("u1", 0), InputAudioCommitted("u1"))
    assert len(room.take(ResponseCreate)) == 1
    room = Room(vad=ServerVad())
    room.voice(SpeechStarted("u1", 0), SpeechStopped("u1", 0), InputAudioCommitted("u1"))
    assert room.take(ResponseCreate) == []


def test_a_commit_of_nothing_is_no_turn() -> None:
    room = Room(vad=ServerVad())
    room.conversation.on_commit()
    room.voice(ErrorEvent(ErrorDetail(code="input_audio_buffer_commit_empty")))
    room.voice(InputAudioCommitted("u1"))
    assert room.take(ResponseCreate) == []


def test_sound_is_heard_in_its_own_time_or_at_once() -> None:
    for plays, left_ms in ((True, 300), (False, 0)):
        room = Room(plays=plays)
        room.begins()
        room.speaks(300)
        room.ends()
        room.tick(200)
        room.do(room.conversation.interrupt(room.now_ms))
        cuts = [cut.audio_end_ms for cut in room.take(ItemTruncate)]
        assert cuts == ([200] if left_ms else [])


def test_a_filler_is_for_silence_only() -> None:
    room = Room(plays=True)
    run = RunTool(tool_call_id="c1", name="look_up", arguments="{}", agent="a")
    room.begins()
    room.speaks(500)
    room.voice(OutputItemDone("r1", 1, call_of("look_up")))
    room.ends()
    room.do(room.conversation.on_tool_slow(run, "One moment.", room.now_ms))
    assert room.take(ResponseCreate) == []
    room.tick(600)
    room.do(room.conversation.on_tool_slow(run, "One moment.", room.now_ms))
    assert len(room.take(ResponseCreate)) == 1


def test_a_response_that_stalls_gives_the_connection_up() -> None:
    room = Room()
    room.begins()
    room.tick(STALL_MS - 1)
    assert room.take(GiveUp) == []
    room.tick(1)
    assert room.take(GiveUp) == [GiveUp(code="response_stalled", retryable=True)]


def test_an_agent_cannot_end_what_has_not_begun() -> None:
    room = Room()
    room.begins()
    room.voice(OutputItemDone("r1", 0, call_of("end_call", arguments=GOODBYE)))
    (ended,) = room.take(ToolEnd)
    assert ended.error == "too_early"
    room.ends()
    assert room.take(EndSession) == []


def test_an_agent_ends_for_a_reason_of_the_list_only() -> None:
    room = Room()
    room.do(room.conversation.type_in("Bye.", 0))
    room.begins()
    room.voice(OutputItemDone("r1", 0, call_of("end_call", arguments='{"reason": "bored"}')))
    assert room.take(ToolEnd)[0].error == "tool_args_invalid"
    room.ends()
    assert room.take(EndSession) == []


def test_a_tool_that_needs_a_telephone_says_so() -> None:
    room = Room()
    room.do(room.conversation.type_in("Hello.", 0))
    room.begins()
    room.voice(OutputItemDone("r1", 0, call_of("collect_digits", arguments='{"max_digits": 4}')))
    (ended,) = room.take(ToolEnd)
    assert ended.error == "no_line"
    assert room.take(RunTool) == []


def test_a_user_who_speaks_again_keeps_the_agent_from_ending() -> None:
    room = Room(vad=ServerVad())
    room.do(room.conversation.type_in("Bye.", 0))
    room.begins()
    room.voice(OutputItemDone("r1", 0, call_of("end_call", arguments=GOODBYE)))
    assert room.take(ToolEnd)[0].error == ""
    room.voice(SpeechStarted("u1", 0))
    room.ends()
    room.begins("r2")
    room.ends("r2", "a2")
    assert room.take(EndSession) == []


def test_a_deleted_item_is_published() -> None:
    room = Room()
    room.voice(ItemAdded(Item(type="message", id="a1", role="assistant")))
    assert [added.item.item_id for added in room.take(HistoryAdded)] == ["a1"]
    room.voice(ItemDeleted("a1"))
    (gone,) = room.take(HistoryUpdated)
    assert (gone.item.item_id, gone.removed) == ("a1", True)
    room.voice(ItemDeleted("a1"))
    assert room.take(HistoryUpdated) == []
    assert room.conversation.history() == []


def test_an_idle_timeout_is_published() -> None:
    room = Room(vad=ServerVad(idle_timeout_ms=5_000))
    room.voice(InputTimeoutTriggered("u1", 0, 5_000))
    assert room.take(InputTimeout) == [InputTimeout(item_id="u1")]


def test_usage_is_counted_also_for_questions_beside_the_conversation() -> None:
    room = Room()
    status = ResponseStatus.IN_PROGRESS
    aside = Response(id="q1", status=status, metadata={"out_of_band": "summary"})
    room.voice(ResponseCreated(aside))
    usage = Usage(input_text_tokens=7)
    answer = Item(type="message", id="x1", role="assistant")
    done = ResponseStatus.COMPLETED
    room.voice(ResponseDone(Response(id="q1", status=done, output=(answer,), usage=usage)))
    assert [counted.usage.input_text for counted in room.take(UsageCounted)] == [7]
    assert room.conversation.history() == []


def test_a_reply_that_a_broken_connection_lost_is_asked_for_on_the_next() -> None:
    room = Room()
    room.do(room.conversation.type_in("Hello?", 0))
    room.begins()
    room.take(ResponseCreate)
    room.conversation.on_lost()
    room.do(room.conversation.on_ready(0))
    assert len(room.take(ResponseCreate)) == 1


# Playback -----------------------------------------------------------------------------------------


def test_items_play_one_after_the_other() -> None:
    hearing = Playback(plays=True)
    hearing.push("a", 0, 500, 0)
    hearing.push("b", 0, 500, 100)
    hearing.finish("a")
    assert hearing.take_heard(499) == []
    assert [cut.item_id for cut in hearing.take_heard(500)] == ["a"]
    assert [(cut.item_id, cut.heard_ms) for cut in hearing.interrupt(700)] == [("b", 200)]
    assert hearing.drained


def test_sound_that_came_late_starts_when_it_came() -> None:
    hearing = Playback(plays=True)
    hearing.push("a", 0, 100, 0)
    hearing.push("b", 0, 500, 1_000)
    assert [(cut.item_id, cut.heard_ms) for cut in hearing.interrupt(1_200)] == [
        ("a", 100),
        ("b", 200),
    ]


def test_a_player_that_knows_better_is_believed_within_reason() -> None:
    hearing = Playback(plays=True)
    hearing.push("a", 0, 500, 0)
    hearing.push("b", 0, 500, 0)
    cuts = hearing.interrupt(10, heard_ms=9_999)
    assert [(cut.heard_ms, cut.sent_ms) for cut in cuts] == [(500, 500), (0, 500)]


def test_words_that_never_became_sound_were_not_heard() -> None:
    room = Room()
    room.begins("r1")
    room.voice(
        ItemAdded(Item(type="message", id="a1", role="assistant")),
        AudioTranscriptDelta("r1", "a1", 0, 0, "one two three"),
    )
    room.do(room.conversation.interrupt(room.now_ms))
    room.ends("r1", "a1")
    [item] = room.conversation.history()
    assert (item.text, item.heard_text, item.cut_off) == ("one two three", "", True)
    assert room.take(HistoryUpdated)[-1].item == item


def test_an_error_carries_the_models_message() -> None:
    room = Room()
    error = ErrorDetail(code="string_above_max_length", message="At most 100 letters.")
    room.voice(ErrorEvent(error))
    assert room.take(SessionError) == [SessionError(code=error.code or "", message=error.message)]
    room.begins("r1")
    failure = ErrorDetail(code="server_error", message="Sorry.")
    failed = Response(id="r1", status=ResponseStatus.FAILED, error=failure)
    room.voice(ResponseDone(failed))
    assert room.take(SessionError) == [SessionError(code="server_error", message="Sorry.")]
