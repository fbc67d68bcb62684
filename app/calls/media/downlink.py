"""What the agent says, as the caller hears it: playing, cutting, and going on after a noise.

Between the dialogue, which knows what was generated, and `Playout`, which knows what was heard:
each item that is over or cut is settled here on both sides, the model's and the transcript's. When
the agent is to be cut, and who has the floor then, the conversation knows. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from app.agents.dialogue.actions import Record, ToVoice
from app.agents.dialogue.dialogue import Dialogue
from app.calls.actions import Action, Clear, PlayAudio
from app.calls.media.false_interruption import Held, Resumption
from app.calls.media.playout import Chunk, HeardItem, Interruption, Playout, Rest
from app.calls.policy import CallPolicy
from app.events import BargeIn, CallCounters, CallId, SpeechResumed
from app.realtime.events import AudioDelta, ItemDelete, ItemTruncate
from audio.bridge import Transcoder
from audio.format import AudioFormat
from audio.level import peak_dbfs

__all__ = ["Downlink", "Speech"]


class Speech:
    """The agent's voice in one call."""

    def __init__(
        self,
        call_id: CallId,
        dialogue: Dialogue,
        counters: CallCounters,
        policy: CallPolicy,
        carrier_format: AudioFormat,
    ) -> None:
        self._call_id = call_id
        self._dialogue = dialogue
        self._counters = counters
        self._keep_ms = policy.resume_max_ms if policy.false_interruption_ms else 0
        self.items_over = 0
        self.resumption = Resumption(policy.false_interruption_ms)
        self.use_line(carrier_format)

    def use_line(self, carrier_format: AudioFormat) -> None:
        """Speak on a carrier of this format; nothing has been said on another one."""
        self._downlink = Downlink(
            self._dialogue.active.agent.output_format,
            carrier_format,
            self._counters,
            keep_ms=self._keep_ms,
        )
        self.playout = self._downlink.playout

    # Playing ------------------------------------------------------------------------------------

    def push(self, event: AudioDelta, now_ms: int) -> list[Action]:
        """Play audio of the model."""
        self._dialogue.on_sound(event.response_id, event.item_id)
        return self._downlink.push(event, now_ms)

    def was_inaudible(self, response_id: str) -> bool:
        """Whether a response that is over had sound, and all of it was silence."""
        return self._downlink.was_inaudible(response_id)

    def finish(self, item_id: str, now_ms: int) -> list[Action]:
        """An item has no more audio."""
        return self._downlink.finish(item_id, now_ms)

    def settle(self, now_ms: int) -> list[Action]:
        """Items that were heard to their end are over."""
        actions: list[Action] = []
        for item in self.playout.heard_items(now_ms):
            told, whole = self._tell_heard(item)
            actions += told
            self.items_over += 1
            self._dialogue.transcript.on_heard(whole.item_id, whole.heard_ms, whole.sent_ms)
        return actions

    def on_voice_lost(self, now_ms: int) -> list[Action]:
        """The model is gone: what the caller is hearing plays on."""
        dropped = self.overtaken()
        self.resumption.on_voice_lost()
        return dropped + self._downlink.finish_all(now_ms)

    # Cutting ------------------------------------------------------------------------------------

    def interrupt(
        self, now_ms: int, *, server_cancels: bool, sound_id: str | None = None
    ) -> list[Action]:
        """Stop the agent: discard, clear, cancel, truncate at what was heard. One step.

        `sound_id`: what stops it is a sound, which may turn out to be none of the caller's.
        """
        held = self.overtaken() if sound_id is None else self._discard_held()
        unfinished = self._dialogue.gate.active_response_id is not None
        # A mark that is overdue may be a carrier that plays late: only the carrier knows.
        playing = not self.playout.confirmed
        drop = self._dialogue.drop_response(server_cancels=server_cancels)
        cut, items = self._cut(now_ms, sound_id=sound_id, unfinished=unfinished)
        if not playing and not items:
            return [*drop, *held]
        actions: list[Action] = [Clear(), *drop, *cut, *held]
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
        return [*actions, *self._dialogue.lines(now_ms)]

    def silence(self, now_ms: int) -> list[Action]:
        """Stop the agent for a reason of ours; its response has been dropped already."""
        held = self.overtaken()
        playing = not self.playout.drained(now_ms)
        cut, items = self._cut(now_ms)
        stopped = [Clear(), *cut, *self._dialogue.lines(now_ms)] if playing or items else []
        return [*stopped, *held]

    def _cut(
        self, now_ms: int, *, sound_id: str | None = None, unfinished: bool = False
    ) -> tuple[list[Action], Sequence[HeardItem]]:
        """Truncate what is playing at what was heard; the items that were cut."""
        actions = self.settle(now_ms)
        interruption = self._downlink.interrupt(now_ms)
        items: list[HeardItem] = []
        for item in interruption.items:
            told, whole = self._tell_heard(item, cut_off=True)
            actions += told
            items.append(whole)
        if sound_id is None or not self.resumption.on_cut(
            sound_id, items, interruption.rest, now_ms, unfinished=unfinished
        ):
            self._note_cut(items)
        return actions, items

    def _tell_heard(
        self, item: HeardItem, *, cut_off: bool = False
    ) -> tuple[list[Action], HeardItem]:
        """Tell the model what it does not know of an item's hearing; and all that was heard."""
        before = self.resumption.take_resumed(item.item_id)
        if before is None:
            if not cut_off:
                return [], item
            truncation = ItemTruncate(item.item_id, item.content_index, item.heard_ms)
            return [ToVoice(truncation)], item
        heard_ms = before.heard_ms + item.heard_ms
        whole = replace(item, heard_ms=heard_ms, sent_ms=before.sent_ms)
        if not before.known:
            return [], whole
        told = self._dialogue.on_heard_after_all(
            item.item_id, before.heard_ms, heard_ms, before.sent_ms
        )
        return [*told], whole

    def _note_cut(self, items: Sequence[HeardItem]) -> None:
        for item in items:
            self._dialogue.transcript.on_heard(
                item.item_id, item.heard_ms, item.sent_ms, cut_off=True
            )

    # After a sound ------------------------------------------------------------------------------

    def overtaken(self) -> list[Action]:
        """Something else comes first: neither the speech nor the answer to the sound is played."""
        self.resumption.on_overtaken()
        self._note_cut(self.resumption.take_cut())
        return self._discard_held()

    def confirm(self) -> list[Held]:
        """It was the caller: what was cut stays so. The answer to it, which may be played now."""
        self._note_cut(self.resumption.take_cut())
        return self.resumption.take_held()

    def resume(self, now_ms: int) -> list[Action]:
        """It was a noise: go on where the agent was cut off, and take back the answer to it."""
        actions: list[Action] = [*self._dialogue.drop_response(server_cancels=False)]
        actions += self._discard_held()
        actions += [ToVoice(ItemDelete(item_id)) for item_id in self.resumption.noises]
        rest = self.resumption.take_rest()
        self._counters.false_interruptions += 1
        resumed = SpeechResumed(
            call_id=self._call_id,
            at_ms=now_ms,
            item_id=rest[0].item_id,
            heard_ms=self.resumption.heard_ms(rest[0].item_id),
        )
        return [*actions, *self._downlink.resume(rest, now_ms), Record(resumed)]

    def _discard_held(self) -> list[Action]:
        """Nobody has heard the answer that was held: the model shall not think so."""
        held = dict.fromkeys(event.item_id for event in self.resumption.take_held())
        return [ToVoice(ItemDelete(item_id)) for item_id in held]

    def on_call_over(self, now_ms: int) -> None:
        """Settle the transcript at what the caller has heard."""
        self.overtaken()
        self.settle(now_ms)
        for item in self._downlink.interrupt(now_ms).items:
            _, whole = self._tell_heard(item)
            self._dialogue.transcript.on_heard(
                whole.item_id, whole.heard_ms, whole.sent_ms, cut_off=not whole.whole
            )


AUDIBLE_PEAK_DBFS: Final = -40.0
"""The peaks of the quietest speech on a line are some 15 dB above it, a line's noise is below."""


class Downlink:
    """The sound of one call's agent."""

    def __init__(
        self,
        model_format: AudioFormat,
        carrier_format: AudioFormat,
        counters: CallCounters,
        *,
        keep_ms: int = 0,
    ) -> None:
        """`keep_ms`: how much unheard audio an interruption may give back, see `Playout`."""
        self.playout = Playout(carrier_format, keep_ms=keep_ms)
        self._model_format = model_format
        self._carrier_format = carrier_format
        self._frame_bytes = carrier_format.ms_to_bytes(20)
        self._counters = counters
        self._transcoder: tuple[str, Transcoder] | None = None
        self._audible = ("", False)  # the last response that had sound, and whether one can hear it

    def push(self, event: AudioDelta, now_ms: int) -> list[Action]:
        """Take audio of the model; give what to send."""
        item_id = event.item_id
        if self._transcoder is None or self._transcoder[0] != item_id:
            self._transcoder = (item_id, Transcoder(self._model_format, self._carrier_format))
        audio = self._transcoder[1].push(event.audio)
        if self._audible != (event.response_id, True):
            loud = peak_dbfs(audio, self._carrier_format) > AUDIBLE_PEAK_DBFS
            self._audible = (event.response_id, loud)
        return self._play(self.playout.push(item_id, event.content_index, audio, now_ms))

    def was_inaudible(self, response_id: str) -> bool:
        """Whether a response that is over had no sound, or nothing but silence."""
        return self._audible != (response_id, True)

    def finish(self, item_id: str, now_ms: int) -> list[Action]:
        """The item has no more audio."""
        chunks: list[Chunk] = []
        if self._transcoder is not None and self._transcoder[0] == item_id:
            tail = self._transcoder[1].flush()
            self._transcoder = None
            chunks = self.playout.push(item_id, 0, tail, now_ms) if tail else []
        return self._play(chunks + self.playout.finish(item_id, now_ms))

    def finish_all(self, now_ms: int) -> list[Action]:
        """No item has more audio: the model is gone."""
        self._transcoder = None
        return self._play(self.playout.finish_all(now_ms))

    def interrupt(self, now_ms: int) -> Interruption:
        """Forget what is queued and begin a new generation."""
        self._transcoder = None
        return self.playout.interrupt(now_ms)

    def resume(self, rest: Iterable[Rest], now_ms: int) -> list[Action]:
        """Play what an interruption cut off, from what was heard on."""
        chunks: list[Chunk] = []
        for piece in rest:
            chunks += self.playout.push(piece.item_id, piece.content_index, piece.audio, now_ms)
            chunks += self.playout.finish(piece.item_id, now_ms)
        return self._play(chunks)

    def _play(self, chunks: list[Chunk]) -> list[Action]:
        for chunk in chunks:
            self._counters.agent_frames += len(chunk.payload) // self._frame_bytes
            self._counters.agent_audio_ms += self._carrier_format.bytes_to_ms(len(chunk.payload))
        return [PlayAudio(chunk.payload, chunk.mark) for chunk in chunks]
