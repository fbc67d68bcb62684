"""One response of an engine session, from `response.created` to its one `response.done`.

Pure. A reply says a text (as audio or as text), then makes its function calls. Whatever ends it,
everything that it opened is closed first: the parts, then the item, then the response. Order of
events as on OpenAI's server, but for `rate_limits.updated`: there are no limits to report.

Usage is an estimate by the figures known of OpenAI's billing: caller audio 1 token per 100 ms,
agent audio 1 token per 50 ms, text 1 token per 4 characters. Input counts what this reply
answered, not the conversation before it, since that is all that the engine reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from app.engine.actions import Action, Generate, Send, Speak, StopSpeaking
from app.engine.base import Reply, ToolUse
from app.engine.items import Conversation, Span
from app.engine.prompts import CallerTurn, Prompt, ToolOutput, TypedText
from app.engine.stages.base import AnswerUsage, TextRequest, TextUsage, ToolCall
from app.realtime.events import (
    AudioDelta,
    AudioDone,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    ContentPart,
    ContentPartAdded,
    ContentPartDone,
    ErrorDetail,
    FunctionArgumentsDelta,
    FunctionArgumentsDone,
    Item,
    ItemAdded,
    ItemDone,
    OutputItemAdded,
    OutputItemDone,
    Response,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    TextDelta,
    TextDone,
    Usage,
)
from audio.format import PCM16_24K, AudioFormat
from audio.transcoder import Transcoder

__all__ = ["LiveResponse", "ResponsePlan", "ResponseState"]

_CALLER_MS_PER_TOKEN = 100
_AGENT_MS_PER_TOKEN = 50
_CHARS_PER_TOKEN = 4


class ResponseState(Enum):
    """WAITING for its prompts to be heard, SPEAKING, or DONE."""

    WAITING = auto()
    SPEAKING = auto()
    DONE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePlan:
    """The settings of a response, fixed when it is created.

    `conversation_id` is `None` for an out-of-band response, whose items are not stored. `say` is a
    text to be spoken word for word; `tools` are the functions that it may call, with the schemas
    of their arguments.
    """

    response_id: str
    conversation_id: str | None
    modality: str
    output_format: AudioFormat
    voice: str
    speed: float
    max_output_tokens: int | str = "inf"
    metadata: dict[str, str] = field(default_factory=dict)
    say: str | None = None
    opens: bool = True
    tools: Mapping[str, Any] = field(default_factory=dict)
    instructions: str = ""
    functions: tuple[Mapping[str, Any], ...] = ()
    tool_choice: Any = "auto"
    input: tuple[Item, ...] | None = None
    """Items that this response is given in place of the conversation."""

    def generate(self, request: TextRequest) -> Generate:
        """The action that has a text model write the reply."""
        return Generate(
            response_id=self.response_id,
            request=request,
            speaks=self.modality == "audio",
            voice=self.voice,
            speed=self.speed,
        )


class LiveResponse:
    """A response that has been created; dead once `state` is DONE."""

    def __init__(
        self,
        plan: ResponsePlan,
        prompts: Sequence[Prompt],
        conversation: Conversation,
        new_id: Callable[[str], str],
        dropped: Callable[[], TextUsage] | None = None,
    ) -> None:
        """`dropped` takes what a text model has used that no response has told yet.

        Without it nothing is asked of one: usage is an estimate of what was heard and said.
        """
        self.plan = plan
        self.prompts = list(prompts)
        self.state = ResponseState.WAITING
        self.audio_ms = 0
        self._conversation = conversation if plan.conversation_id is not None else None
        self._new_id = new_id
        self._dropped = dropped
        self._message: Item | None = None
        self._text = ""
        self._said = ""
        """The part of the text whose sound has begun."""
        self._written = ""
        """The text as the model wrote it, behind the filler."""
        self._filler = ""
        self._spans: list[Span] = []
        self._request: TextRequest | None = None
        self._usage = AnswerUsage()
        self._stages: Mapping[str, str] = {}
        self._tools: tuple[ToolUse | ToolCall, ...] = ()
        self._output: list[Item] = []
        self._sound: _Sound | None = None

    def created(self) -> Action:
        """Announce the response."""
        return Send(ResponseCreated(self._response(ResponseStatus.IN_PROGRESS)))

    def begin(self, reply: Reply) -> list[Action]:
        """Say what the responder decided, then make its calls."""
        self.state = ResponseState.SPEAKING
        self._tools = reply.tools
        if not reply.text:
            return self._calls_and_done()
        self._text = reply.text
        actions = self._open_message()
        if self.plan.modality == "text":
            where = self._where()
            actions.append(Send(TextDelta(*where, delta=reply.text)))
            return actions + self._close_message("completed") + self._calls_and_done()
        self._sound = _Sound(self.plan.output_format)
        plan = self.plan
        return [*actions, Speak(plan.response_id, reply.text, plan.voice, plan.speed)]

    def generate(self, request: TextRequest) -> list[Action]:
        """Have a text model write the reply."""
        self.state = ResponseState.SPEAKING
        self._request = request
        return [self.plan.generate(request)]

    def on_words(self, text: str, written: str | None = None) -> list[Action]:
        """More of the text; spoken words come a sentence at a time.

        `written` is what the model wrote for them, where that is not the same.
        """
        actions: list[Action] = []
        if self._message is None:
            actions = self._open_message()
            self._sound = _Sound(self.plan.output_format) if self.plan.modality == "audio" else None
        if self._filler and self._written == self._filler:
            text = f" {text}"
        self._text += text
        self._written += text if written is None else written
        if self._sound is None:
            actions.append(Send(TextDelta(*self._where(), delta=text)))
        return actions

    @property
    def is_late(self) -> bool:
        """No sound of an answer in speech has come yet, and no filler."""
        plan = self.plan
        answers = self.state is not ResponseState.DONE and plan.say is None
        return answers and plan.modality == "audio" and not (self._filler or self._said)

    def fill(self, text: str, pcm16: Sequence[bytes]) -> list[Action]:
        """Say `text` before the answer, with this sound: int16 mono, 24 kHz, in chunks."""
        actions: list[Action] = []
        if self._message is None:
            actions = self._open_message()
            self._sound = _Sound(self.plan.output_format)
        # Words that have no sound yet stay behind it.
        words, written = self._text, self._written
        self._text, self._written = text, f"{text} "
        self._filler = self._written
        for chunk in pcm16:
            actions += self.on_speech(chunk)
        if words:
            actions += self.on_words(words, written)
        return actions

    def on_used(self, usage: TextUsage) -> None:
        """The text model has told its usage."""
        self._usage.add(usage)

    def on_generated(self, calls: Sequence[ToolCall], stages: Mapping[str, str]) -> list[Action]:
        """The model has written all, and all of it was spoken: make the calls, be done."""
        self._tools, self._stages = tuple(calls), stages
        if self._message is None:
            return self._calls_and_done()
        tail = [] if self._sound is None else self._deltas(self._sound.flush())
        return tail + self._close_message("completed") + self._calls_and_done()

    def on_speech(self, pcm16: bytes) -> list[Action]:
        """Send on a piece of speech (int16 mono, 24 kHz)."""
        assert self._sound is not None
        actions: list[Action] = []
        if len(self._said) < len(self._text):
            # The transcript goes out with the first sound: no sound, no words.
            begun = self._text[len(self._said) :]
            written = self._written[sum(len(span.written) for span in self._spans) :]
            self._spans.append(Span(self.audio_ms, begun, written))
            self._said = self._text
            actions.append(Send(AudioTranscriptDelta(*self._where(), delta=begun)))
        return actions + self._deltas(self._sound.push(pcm16))

    def on_speech_end(self) -> list[Action]:
        """The text has been spoken: close the message, make the calls, be done."""
        assert self._sound is not None
        tail = self._deltas(self._sound.flush())
        return tail + self._close_message("completed") + self._calls_and_done()

    def stop(
        self, status: ResponseStatus, *, reason: str | None = None, error: ErrorDetail | None = None
    ) -> list[Action]:
        """End early: cancelled or failed. Work behind it is stopped, what is open is closed."""
        actions: list[Action] = []
        if self._sound is not None or self._request is not None:
            actions.append(StopSpeaking(self.plan.response_id))
        if self._message is not None:
            actions += self._close_message("incomplete")
        return actions + self._done(status, reason, error)

    def finish(self) -> list[Action]:
        """End a response that turned out to have nothing to answer."""
        return self._done(ResponseStatus.COMPLETED)

    # Messages -------------------------------------------------------------------------------------

    def _open_message(self) -> list[Action]:
        item_id = self._new_id("msg")
        self._message = Item(type="message", id=item_id, role="assistant", status="in_progress")
        part = self._part_on_wire("")
        return [
            *self._item_added(self._message),
            Send(ContentPartAdded(*self._where(), part=part)),
        ]

    def _close_message(self, status: str) -> list[Action]:
        assert self._message is not None
        where = self._where()
        events: list[ServerEvent] = []
        if self._sound is None:
            whole = status == "completed" or self._request is not None
            text = self._text if whole else ""
            content = ContentPart(type="output_text", text=text)
            events.append(TextDone(*where, text=text))
        else:
            text = self._said
            content = ContentPart(type="output_audio", transcript=text)
            events += [AudioDone(*where), AudioTranscriptDone(*where, transcript=text)]
        events.append(ContentPartDone(*where, part=self._part_on_wire(text)))
        item = Item(
            type="message",
            id=self._message.id,
            role="assistant",
            status=status,
            content=(content,),
        )
        self._message = self._sound = None
        return [*map(Send, events), *self._item_done(item)]

    def _deltas(self, audio: bytes) -> list[Action]:
        if not audio:
            return []
        assert self._sound is not None and self._message is not None
        self.audio_ms = self._sound.sent_ms
        if self._conversation is not None:
            part = ContentPart(type="output_audio", transcript=self._said)
            message = Item(
                type="message",
                id=self._message.id,
                role="assistant",
                status="in_progress",
                content=(part,),
            )
            spans = tuple(self._spans)
            self._conversation.update(message, audio_ms=self.audio_ms, spans=spans)
        return [Send(AudioDelta(*self._where(), audio=audio))]

    def _where(self) -> tuple[str, str, int, int]:
        """Response, item, output index and content index: how events name a part."""
        assert self._message is not None and self._message.id is not None
        return self.plan.response_id, self._message.id, len(self._output), 0

    def _part_on_wire(self, text: str) -> ContentPart:
        # The part's type has the short names here, as in OpenAI's `response.content_part.*`.
        if self.plan.modality == "text":
            return ContentPart(type="text", text=text)
        return ContentPart(type="audio", transcript=text)

    # Calls and the end ----------------------------------------------------------------------------

    def _calls_and_done(self) -> list[Action]:
        actions: list[Action] = []
        for tool in self._tools:
            actions += self._call(tool)
        return actions + self._done(ResponseStatus.COMPLETED)

    def _call(self, tool: ToolUse | ToolCall) -> list[Action]:
        item_id, call_id = self._new_id("fc"), self._new_id("call")
        arguments = tool.arguments if isinstance(tool, ToolCall) else json.dumps(tool.arguments)
        opened = Item(
            type="function_call",
            id=item_id,
            status="in_progress",
            call_id=call_id,
            name=tool.name,
            arguments="",
        )
        actions = self._item_added(opened)
        where = (self.plan.response_id, item_id, len(self._output), call_id)
        actions.append(Send(FunctionArgumentsDelta(*where, delta=arguments)))
        actions.append(Send(FunctionArgumentsDone(*where, name=tool.name, arguments=arguments)))
        done = Item(
            type="function_call",
            id=item_id,
            status="completed",
            call_id=call_id,
            name=tool.name,
            arguments=arguments,
        )
        return actions + self._item_done(done)

    def _item_added(self, item: Item) -> list[Action]:
        actions: list[Action] = [
            Send(OutputItemAdded(self.plan.response_id, len(self._output), item))
        ]
        if self._conversation is not None:
            actions.append(Send(ItemAdded(item, self._conversation.add(item))))
        return actions

    def _item_done(self, item: Item) -> list[Action]:
        actions: list[Action] = [
            Send(OutputItemDone(self.plan.response_id, len(self._output), item))
        ]
        self._output.append(item)
        if self._conversation is not None and item.id is not None:
            spans = tuple(self._spans) if item.type == "message" else ()
            self._conversation.update(item, audio_ms=self.audio_ms, spans=spans)
            actions.append(Send(ItemDone(item, self._conversation.before(item.id))))
        return actions

    def _done(
        self, status: ResponseStatus, reason: str | None = None, error: ErrorDetail | None = None
    ) -> list[Action]:
        self.state = ResponseState.DONE
        return [Send(ResponseDone(self._response(status, reason=reason, error=error)))]

    def _response(
        self,
        status: ResponseStatus,
        *,
        reason: str | None = None,
        error: ErrorDetail | None = None,
    ) -> Response:
        ended = status is not ResponseStatus.IN_PROGRESS
        return Response(
            id=self.plan.response_id,
            status=status,
            status_reason=reason,
            error=error,
            output=tuple(self._output),
            usage=self._tokens(status) if ended else None,
            conversation_id=self.plan.conversation_id,
            metadata={**self.plan.metadata, **self._stages},
            output_modalities=(self.plan.modality,),
            max_output_tokens=self.plan.max_output_tokens,
            output_format=self.plan.output_format,
            voice=self.plan.voice,
        )

    def _tokens(self, status: ResponseStatus) -> Usage:
        """Usage as the text model tells it; of an answer that was cut, an estimate."""
        if self._dropped is None:
            return _usage(self.prompts, self._output, self.audio_ms)
        used = self._dropped() + self._written_for(status)
        return Usage(
            total_tokens=used.input_tokens + used.output_tokens,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            input_text_tokens=used.input_tokens,
            cached_tokens=used.cached_tokens,
            cached_text_tokens=used.cached_tokens,
            output_text_tokens=used.output_tokens,
            estimated=used.estimated,
        )

    def _written_for(self, status: ResponseStatus) -> TextUsage:
        """The text model's usage for this response: nothing where it was not asked, or refused."""
        if self._request is None:
            return TextUsage()
        written = self._written[len(self._filler) :]
        refused = status is ResponseStatus.FAILED and not written
        return self._usage.total(self._request, written, billed=not refused)


class _Sound:
    """The audio of one message on its way into the client's format."""

    def __init__(self, output_format: AudioFormat) -> None:
        self._format = output_format
        self._transcoder = Transcoder(PCM16_24K, output_format)
        self._sent_bytes = 0

    @property
    def sent_ms(self) -> int:
        return self._format.bytes_to_ms(self._sent_bytes)

    def push(self, pcm16: bytes) -> bytes:
        return self._count(self._transcoder.push(pcm16))

    def flush(self) -> bytes:
        return self._count(self._transcoder.flush())

    def _count(self, audio: bytes) -> bytes:
        self._sent_bytes += len(audio)
        return audio


def _usage(prompts: Iterable[Prompt], output: Iterable[Item], audio_ms: int) -> Usage:
    input_text = input_audio = output_text = 0
    for prompt in prompts:
        match prompt:
            case CallerTurn(audio_ms=ms):
                input_audio += _tokens(ms, _CALLER_MS_PER_TOKEN)
            case TypedText(text=text) | ToolOutput(output=text):
                input_text += _tokens(len(text), _CHARS_PER_TOKEN)
    for item in output:
        said = "".join((part.text or part.transcript or "") for part in item.content)
        output_text += _tokens(len(said) + len(item.arguments or ""), _CHARS_PER_TOKEN)
    output_audio = _tokens(audio_ms, _AGENT_MS_PER_TOKEN)
    return Usage(
        total_tokens=input_text + input_audio + output_text + output_audio,
        input_tokens=input_text + input_audio,
        output_tokens=output_text + output_audio,
        input_text_tokens=input_text,
        input_audio_tokens=input_audio,
        output_text_tokens=output_text,
        output_audio_tokens=output_audio,
    )


def _tokens(amount: int, per_token: int) -> int:
    """Whole tokens, rounded up."""
    return -(-amount // per_token)
