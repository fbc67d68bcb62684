"""The agent's sound on its way to the caller: converted, played, cut, and resumed after a noise.

It stands between the dialogue, which knows what was generated, and `Playout`, which knows what was
heard: each item that is over or cut is settled here on both sides, the model's and the
transcript's. The conversation knows when the agent is to be cut, and who has the floor then. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from app.agents.dialogue.actions import Record, ToVoice
from app.agents.dialogue.dialogue import Dialogue
from app.calls.actions import Action, Clear, PlayAudio
from app.calls.media.false_interruption import AgentSound, FalseInterruption
from app.calls.media.playout import AUDIBLE_PEAK_DBFS, Chunk, HeardItem, Interruption, Playout
from app.calls.recording.notice import RecordingNotice
from app.calls.recording.tape import Tape
from app.events import BargeIn, CallCounters, CallId, SpeechResumed
from app.realtime.events import (
    AudioDelta,
    ItemDelete,
    ItemTruncate,
    Response,
    ResponseDone,
    ResponseStatus,
)
from audio.format import AudioFormat
from audio.level import peak_dbfs
from audio.transcoder import Transcoder

__all__ = ["LATE_SOUND_MS", "Downlink"]


MAX_AHEAD_MS: Final = 180_000
"""Sound ahead of what plays, beyond which a response is cut. Nobody hears such an answer out, and
Twilio warns at 600 s (31931): one message of the model can hold 390 s. The reader cannot wait
instead, since the caller's barge-in comes the same way, behind the sound."""

LATE_SOUND_MS: Final = 500
"""The time for which a response that is done may lack its sound."""


class Downlink:
    """The sound of one call's agent."""

    def __init__(
        self,
        call_id: CallId,
        dialogue: Dialogue,
        counters: CallCounters,
        false_interruption: FalseInterruption,
        carrier_format: AudioFormat,
        *,
        keep_ms: int,
        tape: Tape | None = None,
    ) -> None:
        """`keep_ms`: how much unheard audio an interruption may give back.

        `tape` takes what is heard, where the call is recorded.
        """
        self._tape = tape
        self._call_id = call_id
        self._dialogue = dialogue
        self._counters = counters
        self._false_interruption = false_interruption
        self._model_format = dialogue.active.agent.output_format
        self._keep_ms = keep_ms
        self._transcoder: tuple[str, Transcoder] | None = None
        self._audible = "", False  # the last response that had sound, and True once one can hear it
        self._early_end: tuple[ResponseDone, int] | None = None  # and until when sound may come
        self.heard_an_item = False
        self.notice = RecordingNotice("") if tape is None else tape.notice
        """Learns which items were heard."""
        self._use(carrier_format)

    def _use(self, carrier_format: AudioFormat) -> None:
        self.carrier_format = carrier_format
        self._frame_bytes = carrier_format.ms_to_bytes(20)
        self._playout = Playout(carrier_format, keep_ms=self._keep_ms)

    # The stream ---------------------------------------------------------------------------------

    def on_stream_started(self, carrier_format: AudioFormat, now_ms: int) -> None:
        """The carrier plays what was pushed before from now on."""
        if carrier_format != self.carrier_format:
            self._use(carrier_format)
        self._playout.start(now_ms)
        if self._tape is not None:
            self._tape.on_stream(carrier_format, now_ms)

    def on_stream_left(self) -> None:
        """The stream is gone: what is pushed from now on plays on the next one."""
        self._playout.stop()

    def on_mark(self, name: str, now_ms: int) -> bool:
        """A mark came back; True when more was heard."""
        more = self._playout.mark_reached(name, now_ms)
        if more and self._tape is not None:
            self._tape.on_mark(self._playout.heard_bytes(now_ms), now_ms)
        return more

    def record(self, now_ms: int) -> None:
        """Hand to the tape what was heard by now."""
        if self._tape is not None:
            self._tape.on_heard(self._playout.heard_bytes(now_ms), now_ms)

    def item_over(self, now_ms: int) -> bool:
        """An item was heard to its end, and is to be settled."""
        return self._playout.item_over(now_ms)

    def drained(self, now_ms: int) -> bool:
        """Nothing is playing."""
        return self._playout.drained(now_ms)

    def plays_on(self, now_ms: int, for_ms: int) -> bool:
        """Something plays, and nothing but a mark can show within this time that it is over."""
        return self._playout.plays_on(now_ms, for_ms)

    def too_far_ahead(self, now_ms: int) -> bool:
        """So much waits to be played that the model is to generate no more."""
        return self._playout.ahead_ms(now_ms) > MAX_AHEAD_MS

    def last_audible_ms(self, now_ms: int) -> int | None:
        """The time at which the caller has last heard something, and not just silence."""
        return self._playout.last_audible_ms(now_ms)

    # Playing ------------------------------------------------------------------------------------

    def push(self, event: AudioDelta, now_ms: int) -> list[Action]:
        """Play audio of the model."""
        item_id = event.item_id
        if self._early_end is not None and self._early_end[0].response.id == event.response_id:
            self._early_end = self._early_end[0], now_ms + LATE_SOUND_MS
        sound_ms = len(event.audio) * 1000 // self._model_format.bytes_per_second
        self._dialogue.on_sound(event.response_id, item_id, now_ms, sound_ms=sound_ms)
        if self._transcoder is None or self._transcoder[0] != item_id:
            self._transcoder = (item_id, Transcoder(self._model_format, self.carrier_format))
        audio = self._transcoder[1].push(event.audio)
        if self._audible != (event.response_id, True):
            loud = peak_dbfs(audio, self.carrier_format) > AUDIBLE_PEAK_DBFS
            self._audible = (event.response_id, loud)
        chunks = self._playout.push(item_id, event.content_index, audio, now_ms)
        return self._play(chunks, now_ms)

    def finish(self, item_id: str, now_ms: int) -> list[Action]:
        """An item has no more audio."""
        chunks: list[Chunk] = []
        if self._transcoder is not None and self._transcoder[0] == item_id:
            tail = self._transcoder[1].flush()
            self._transcoder = None
            chunks = self._playout.push(item_id, 0, tail, now_ms) if tail else []
        return self._play(chunks + self._playout.finish(item_id, now_ms), now_ms)

    def settle(self, now_ms: int, *, by_clock: bool = False) -> list[Action]:
        """Settle items that were heard to their end; `by_clock` as in `Playout.heard_items`."""
        actions: list[Action] = []
        for item in self._playout.heard_items(now_ms, by_clock=by_clock):
            reports, whole = self._report_heard(item)
            actions += reports
            self.heard_an_item = True
            self.notice.on_heard(whole.item_id, by_mark=item.by_mark)
            self._dialogue.transcript.on_heard(whole.item_id, whole.heard_ms, whole.sent_ms)
        return actions

    def on_voice_lost(self, now_ms: int) -> list[Action]:
        """The model is gone: what the caller is hearing plays on."""
        self._early_end = None
        dropped = self.supersede_interruption()
        self._false_interruption.on_voice_lost()
        self._transcoder = None
        return dropped + self._play(self._playout.finish_all(now_ms), now_ms)

    def play_tone(self, sound: bytes, now_ms: int) -> list[Action]:
        """Play a sound that is nobody's words, just before it is heard."""
        if self._tape is not None:
            self._tape.on_agent(sound, now_ms, tone=True)
        return [PlayAudio(sound, None)]

    def _play(self, chunks: list[Chunk], now_ms: int) -> list[Action]:
        actions: list[Action] = []
        for chunk in chunks:
            if self._tape is not None and chunk.payload:
                self._tape.on_agent(chunk.payload, now_ms)
            self._counters.agent_frames += len(chunk.payload) // self._frame_bytes
            self._counters.agent_audio_ms += self.carrier_format.bytes_to_ms(len(chunk.payload))
            actions.append(PlayAudio(chunk.payload, chunk.mark))
        return actions

    # Responses that nobody can hear -------------------------------------------------------------

    def is_inaudible(self, response: Response) -> bool:
        """True for a response that is done, and of whose sound the caller can hear nothing."""
        return (
            response.status is ResponseStatus.COMPLETED
            and bool(response.output)
            and all(item.type == "message" for item in response.output)
            and self._dialogue.gate.runs(response.id)
            and not self._dialogue.is_stale(response.id)
            and not self._false_interruption.undecided  # its sound is withheld, and not known yet
            and self._audible != (response.id, True)
        )

    def keep_end(self, event: ResponseDone, now_ms: int) -> bool:
        """Keep the end of a response that comes before its sound, as some servers send it.

        True while the sound may still be on its way.
        """
        response = event.response
        if self._audible[0] == response.id or not self.is_inaudible(response):
            return False
        self._early_end = event, now_ms + LATE_SOUND_MS
        return True

    def take_end(self, now_ms: int) -> ResponseDone | None:
        """Take the end that was kept, once no more sound is waited for."""
        if self._early_end is None or now_ms < self._early_end[1]:
            return None
        event, self._early_end = self._early_end[0], None
        return event

    def plays_only(self, response: Response) -> bool:
        """True when nothing but this response is playing, or was left unsettled."""
        return self._playout.holds_only([item.id for item in response.output if item.id])

    def take_back(self, response: Response) -> list[Action]:
        """Remove what could not be heard from the conversation."""
        item_ids = [item.id for item in response.output if item.id]
        for item_id in item_ids:
            self._dialogue.history.remove(item_id)
        return [ToVoice(ItemDelete(item_id)) for item_id in item_ids]

    # Cutting ------------------------------------------------------------------------------------

    def interrupt(
        self, now_ms: int, *, server_cancels: bool, sound_id: str | None = None
    ) -> list[Action]:
        """Stop the agent: discard, clear, cancel, truncate at what was heard. One step.

        `sound_id`: what stops it is a sound, which may turn out not to be the caller's words.
        """
        withheld = self.supersede_interruption() if sound_id is None else self._discard_withheld()
        unfinished = self._dialogue.gate.active_response_id is not None
        # A mark that is overdue may be a carrier that plays late: only the carrier knows.
        playing = not self._playout.confirmed
        drop = self._dialogue.drop_response(server_cancels=server_cancels)
        cut, items = self._cut(now_ms, sound_id=sound_id, unfinished=unfinished)
        if not playing and not items:
            return [*drop, *withheld]
        actions: list[Action] = [Clear(), *drop, *cut, *withheld]
        if items:
            self._counters.barge_ins += 1
            barge_in = BargeIn(
                call_id=self._call_id,
                at_ms=now_ms,
                item_id=items[0].item_id,
                heard_ms=items[0].heard_ms,
                sent_ms=sum(item.sent_ms for item in items),
            )
            actions.append(Record(barge_in))
        return actions

    def stop(self, now_ms: int) -> list[Action]:
        """Stop the agent without the caller's doing; its response has been dropped already."""
        withheld = self.supersede_interruption()
        playing = not self._playout.drained(now_ms)
        cut, items = self._cut(now_ms)
        return [Clear(), *cut, *withheld] if playing or items else withheld

    def _cut(
        self, now_ms: int, *, sound_id: str | None = None, unfinished: bool = False
    ) -> tuple[list[Action], Sequence[HeardItem]]:
        """Truncate what is playing at what was heard; the items that were cut."""
        actions = self.settle(now_ms, by_clock=True)
        self._transcoder = None
        interruption = self._interrupt_playout(now_ms)
        items: list[HeardItem] = []
        for item in interruption.items:
            reports, whole = self._report_heard(item, cut_off=True)
            actions += reports
            items.append(whole)
        if sound_id is None or not self._false_interruption.on_interrupted(
            sound_id, items, interruption.unheard, now_ms, unfinished=unfinished
        ):
            self._note_cut(items)
        return actions, items

    def _interrupt_playout(self, now_ms: int) -> Interruption:
        if self._tape is not None:
            self._tape.on_cut(self._playout.heard_bytes(now_ms), now_ms)
        return self._playout.interrupt(now_ms)

    def _report_heard(
        self, item: HeardItem, *, cut_off: bool = False
    ) -> tuple[list[Action], HeardItem]:
        """Report to the model what was heard of an item; and the item with all that was heard."""
        before = self._false_interruption.take_resumed(item.item_id)
        if before is None:
            if not cut_off:
                return [], item
            truncation = ItemTruncate(item.item_id, item.content_index, item.heard_ms)
            return [ToVoice(truncation)], item
        heard_ms = before.heard_ms + item.heard_ms
        whole = replace(item, heard_ms=heard_ms, sent_ms=before.sent_ms)
        if not before.known:
            return [], whole
        reports = self._dialogue.on_heard_after_all(
            item.item_id, before.heard_ms, heard_ms, before.sent_ms
        )
        return [*reports], whole

    def _note_cut(self, items: Sequence[HeardItem]) -> None:
        for item in items:
            self._dialogue.transcript.on_heard(
                item.item_id, item.heard_ms, item.sent_ms, cut_off=True
            )

    # After a sound ------------------------------------------------------------------------------

    def supersede_interruption(self) -> list[Action]:
        """Something else comes first: neither the speech nor the answer to the sound is played."""
        self._false_interruption.on_superseded()
        self._note_cut(self._false_interruption.take_cut())
        return self._discard_withheld()

    def confirm_interruption(self) -> list[AgentSound]:
        """The interruption was real: what was cut stays so. The answer to it may be played now."""
        self._note_cut(self._false_interruption.take_cut())
        return self._false_interruption.take_withheld()

    def resume(self, now_ms: int) -> list[Action]:
        """The interruption was false: go on where the agent was cut, and take back the answer."""
        actions: list[Action] = [*self._dialogue.drop_response(server_cancels=False)]
        actions += self._discard_withheld()
        actions += [ToVoice(ItemDelete(item_id)) for item_id in self._false_interruption.noises]
        unheard = self._false_interruption.take_unheard()
        self._counters.false_interruptions += 1
        chunks: list[Chunk] = []
        for piece in unheard:
            chunks += self._playout.push(piece.item_id, piece.content_index, piece.audio, now_ms)
            chunks += self._playout.finish(piece.item_id, now_ms)
        resumed = SpeechResumed(
            call_id=self._call_id,
            at_ms=now_ms,
            item_id=unheard[0].item_id,
            heard_ms=self._false_interruption.heard_before_ms(unheard[0].item_id),
        )
        return [*actions, *self._play(chunks, now_ms), Record(resumed)]

    def _discard_withheld(self) -> list[Action]:
        """Delete the answer that was withheld: the model shall not take it for heard."""
        item_ids = dict.fromkeys(
            event.item_id for event in self._false_interruption.take_withheld()
        )
        return [ToVoice(ItemDelete(item_id)) for item_id in item_ids]

    def on_call_over(self, now_ms: int) -> None:
        """Settle the transcript at what the caller has heard."""
        self.supersede_interruption()
        self.settle(now_ms, by_clock=True)
        for item in self._interrupt_playout(now_ms).items:
            _, whole = self._report_heard(item)
            self._dialogue.transcript.on_heard(
                whole.item_id, whole.heard_ms, whole.sent_ms, cut_off=not whole.whole
            )
