"""The responses of an engine session and the prompts that they answer.

Pure. At most one response of the default conversation lives at a time; responses out of band run
beside it. A response created by the client may have to wait until the turn that it answers has
been heard; one that the session creates itself is created only then, so that a noise makes none.

An interrupted response gives prompts that it has not answered back; one that the client cancels
does not. Neither touches the hearing of a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from app.engine.actions import Action, Note, NoteKind, Prepare
from app.engine.base import Reply, Responder, ToolUse
from app.engine.generation import ModelResponder, request_of
from app.engine.items import Conversation, typed_text
from app.engine.live_response import LiveResponse, ResponsePlan, ResponseState
from app.engine.prompts import (
    CallerTurn,
    Prompt,
    Prompts,
    ToolOutput,
    TypedText,
    answer,
    surely_worth_an_answer,
)
from app.engine.refusal import Refusal
from app.engine.session_settings import check_response
from app.engine.stages.base import Message, TextUsage, ToolCall
from app.realtime.events import (
    NOTICE_METADATA_KEY,
    SAY_METADATA_KEY,
    UNSET,
    ErrorDetail,
    Item,
    ResponseConfig,
    ResponseStatus,
    SessionConfig,
    Unset,
)
from audio.format import AudioFormat

__all__ = ["SessionResponses"]

MAX_OUT_OF_BAND: Final = 4
"""Out-of-band responses at a time: each may be making speech."""
_NO_SUCH_TOOL: Final = '{"error": "this tool is not available"}'
_TOOL_ROUNDS: Final = 3


_REFUSALS: Final = frozenset({"stage_key_refused", "stage_not_found", "stage_refused"})
"""Failures of a stage that the same request would meet again."""


class SessionResponses:
    """The live responses of a session, and `prompts`, which they answer."""

    def __init__(
        self,
        responder: Responder,
        conversation: Conversation,
        conversation_id: str,
        new_id: Callable[[str], str],
    ) -> None:
        self.prompts = Prompts()
        self.spoken = False
        """The session has produced audio."""
        self._responder = responder
        self._generates = isinstance(responder, ModelResponder)
        self._conversation = conversation
        self._conversation_id = conversation_id
        self._new_id = new_id
        self._active: LiveResponse | None = None
        self._out_of_band: dict[str, LiveResponse] = {}
        self._ended_audio_ms: int | None = None
        self._dropped = TextUsage()

    @property
    def opened(self) -> bool:
        """The agent has spoken, so there is no second greeting."""
        return self._responder.opened

    @opened.setter
    def opened(self, opened: bool) -> None:
        self._responder.opened = opened

    @property
    def active(self) -> bool:
        """A response of the default conversation is live."""
        return self._active is not None

    def pop_ended_audio_ms(self) -> int | None:
        """Audio of the response that ended since the last call of this method; None without one."""
        ended, self._ended_audio_ms = self._ended_audio_ms, None
        return ended

    # The client's requests ------------------------------------------------------------------------

    def create(self, request: ResponseConfig | None, config: SessionConfig) -> list[Action]:
        """Create the response that the client asks for.

        Raises:
            Refusal: settings that a response does not have, or one is live already.
        """
        request = request or ResponseConfig()
        assert not isinstance(config.voice, Unset)
        check_response(request, voice=config.voice, spoken=self.spoken, tools=config.tools)
        out_of_band = request.conversation == "none"
        if not out_of_band and self._active is not None:
            raise Refusal(
                "conversation_already_has_active_response",
                f"Response {self._active.plan.response_id} is still in progress.",
            )
        if out_of_band and len(self._out_of_band) >= MAX_OUT_OF_BAND:
            raise Refusal("too_many_responses", "Too many responses out of band at a time.")
        plan = self._plan(request, config, out_of_band=out_of_band)
        prompts: Sequence[Prompt]
        if plan.say is not None:
            prompts = ()
        elif not isinstance(request.input, Unset):
            prompts = self._from_input(request.input)
        elif out_of_band:
            prompts = ()
        else:
            prompts = self.prompts.take()
        actions: list[Action] = []
        ignored = plan.say is None and not isinstance(request.instructions, Unset)
        if ignored and not self._generates:
            actions.append(Note(NoteKind.INSTRUCTIONS_IGNORED))
        return actions + self._start(plan, prompts)

    def foresee(self, transcript: str, config: SessionConfig) -> list[Action]:
        """Prepare the reply that a turn with these words would ask for if it ended now."""
        if not transcript.strip() or self.active or self.prompts.being_heard:
            return []
        plan = self._plan(ResponseConfig(), config, out_of_band=False)
        request = request_of(plan, self._conversation)
        messages = (*request.messages, Message(role="user", text=transcript))
        return [Prepare(plan.generate(replace(request, messages=messages)))]

    def cancel(self, response_id: str | None) -> list[Action]:
        """Cancel the response of this id, or the live one; its prompts go unanswered.

        Raises:
            Refusal: it is over or never was. Harmless: nothing else is cancelled instead.
        """
        reply = self._active if response_id is None else self._find(response_id)
        if reply is None:
            raise Refusal("response_cancel_not_active", "Cancellation failed: no active response.")
        return self._end(reply.stop(ResponseStatus.CANCELLED, reason="client_cancelled"), reply)

    def interrupt(self) -> list[Action]:
        """The caller speaks: cancel the live response."""
        reply = self._active
        if reply is None:
            return []
        if reply.state is ResponseState.WAITING:
            self.prompts.put_back(reply.prompts)
        return self._end(reply.stop(ResponseStatus.CANCELLED, reason="turn_detected"), reply)

    # Changes --------------------------------------------------------------------------------------

    def settle(self, config: SessionConfig, *, may_begin: bool) -> list[Action]:
        """Do what has become possible: begin a waiting response, create one for a heard turn.

        `may_begin`: the caller is not speaking.
        """
        actions: list[Action] = []
        while True:
            reply = self._active
            if reply is not None and reply.state is ResponseState.WAITING and _all_heard(reply):
                actions += self._begin(reply)
            elif reply is None and may_begin and self.prompts.call_for_reply:
                plan = self._plan(ResponseConfig(), config, out_of_band=False)
                actions += self._start(plan, self.prompts.take())
            else:
                return actions

    def fill(
        self, text: str, pcm16: Sequence[bytes], config: SessionConfig, *, may_begin: bool
    ) -> list[Action]:
        """Say a filler (int16 mono, 24 kHz, in chunks) where an answer is late, once for each.

        A turn that is still being heard is promised an answer, which it gets even if no word of it
        is understood; what may be a noise is promised nothing.
        """
        if not may_begin or not pcm16:
            return []
        actions: list[Action] = []
        if self._active is None and self.prompts.will_call_for_reply:
            plan = self._plan(ResponseConfig(), config, out_of_band=False)
            actions += self._start(plan, self.prompts.take())
        reply = self._active
        if reply is None or not reply.is_late or not surely_worth_an_answer(reply.prompts):
            return actions
        for prompt in reply.prompts:
            if isinstance(prompt, CallerTurn) and prompt.heard is None:
                prompt.never_empty = True
        self.spoken = True
        return actions + reply.fill(text, pcm16)

    def on_speech(self, response_id: str, pcm16: bytes) -> list[Action]:
        """Speech of a response (int16 mono, 24 kHz); that of a dead one is dropped."""
        reply = self._find(response_id)
        if reply is None:
            return []
        self.spoken = True
        return reply.on_speech(pcm16)

    def on_words(self, response_id: str, text: str, written: str | None = None) -> list[Action]:
        """More text of a response; that of a dead one is dropped."""
        reply = self._find(response_id)
        return [] if reply is None else reply.on_words(text, written)

    def on_used(self, response_id: str, usage: TextUsage) -> None:
        """The text model has told its usage for a response; that of a dead one was estimated."""
        reply = self._find(response_id)
        if reply is not None:
            reply.on_used(usage)

    def on_dropped(self, usage: TextUsage) -> None:
        """Nobody will hear of this usage but by the response that ends next."""
        self._dropped += usage

    def on_generated(
        self,
        response_id: str,
        calls: Sequence[ToolCall],
        stages: Mapping[str, str],
    ) -> list[Action]:
        """The text model has written all of a response, and all of it was spoken."""
        reply = self._find(response_id)
        return [] if reply is None else self._end(reply.on_generated(calls, stages), reply)

    def on_speech_end(self, response_id: str) -> list[Action]:
        """All of a response's text has been spoken."""
        reply = self._find(response_id)
        return [] if reply is None else self._end(reply.on_speech_end(), reply)

    def on_speech_failed(self, response_id: str, code: str, message: str) -> list[Action]:
        """The synthesizer failed: so does the response, and says so."""
        reply = self._find(response_id)
        if reply is None:
            return []
        kind = "invalid_request_error" if code in _REFUSALS else "server_error"
        error = ErrorDetail(type=kind, code=code, message=message)
        return self._end(reply.stop(ResponseStatus.FAILED, error=error), reply)

    # Inside ---------------------------------------------------------------------------------------

    def _plan(
        self, request: ResponseConfig, config: SessionConfig, *, out_of_band: bool
    ) -> ResponsePlan:
        metadata = {} if isinstance(request.metadata, Unset) else dict(request.metadata)
        modalities = _given(request.output_modalities, config.output_modalities)
        output_format = _given(request.output_format, config.output_format)
        voice = _given(request.voice, config.voice)
        tools = _given(request.tools, config.tools)
        choice = _given(request.tool_choice, config.tool_choice)
        limit = _given(request.max_output_tokens, config.max_output_tokens)
        assert isinstance(modalities, tuple) and isinstance(output_format, AudioFormat)
        assert isinstance(voice, str) and isinstance(config.speed, (int, float))
        assert isinstance(tools, tuple)
        return ResponsePlan(
            response_id=self._new_id("resp"),
            conversation_id=None if out_of_band else self._conversation_id,
            modality=modalities[0],
            output_format=output_format,
            voice=voice,
            speed=config.speed,
            max_output_tokens=limit if isinstance(limit, (int, str)) else "inf",
            metadata=metadata,
            say=metadata.get(SAY_METADATA_KEY) or None,
            opens=NOTICE_METADATA_KEY not in metadata,
            tools=_offered(tools, choice),
            instructions=_instructions(request, config),
            functions=() if choice == "none" else tools,
            tool_choice=choice,
            input=None if isinstance(request.input, Unset) else request.input,
        )

    def _from_input(self, items: Sequence[Item]) -> list[Prompt]:
        """The prompts among the items that a response is given in place of the conversation."""
        prompts: list[Prompt] = []
        for item in items:
            name = self._conversation.call_name(item.call_id or "")
            if item.type == "message" and item.role == "user" and typed_text(item):
                prompts.append(TypedText(item.id or "", typed_text(item)))
            elif item.type == "function_call_output" and name is not None:
                prompts.append(ToolOutput(item.id or "", name, item.output or ""))
        return prompts

    def _start(self, plan: ResponsePlan, prompts: Sequence[Prompt]) -> list[Action]:
        dropped = self._take_dropped if self._generates else None
        reply = LiveResponse(plan, prompts, self._conversation, self._new_id, dropped)
        if plan.conversation_id is None:
            self._out_of_band[plan.response_id] = reply
        else:
            self._active = reply
        actions = [reply.created()]
        return actions + self._begin(reply) if _all_heard(reply) else actions

    def _begin(self, reply: LiveResponse) -> list[Action]:
        plan = reply.plan
        if plan.say is not None:
            self.opened = self.opened or (plan.opens and plan.conversation_id is not None)
            return self._end(reply.begin(Reply(text=plan.say)), reply)
        if self._generates:
            return self._generate(reply)
        if plan.conversation_id is None:
            # There is one dialogue, and it cannot answer a question outside of it.
            error = ErrorDetail(
                type="invalid_request_error",
                code="offline_engine_cannot_answer",
                message="The offline engine answers in its conversation only.",
            )
            return self._end(reply.stop(ResponseStatus.FAILED, error=error), reply)
        prompts = [p for p in reply.prompts if not (isinstance(p, CallerTurn) and p.is_empty)]
        if reply.prompts and not prompts:
            return self._end(reply.finish(), reply)
        self._responder.offer_tools(frozenset(plan.tools))
        if prompts:
            decided = answer(self._responder, prompts)
        elif self.opened:
            # Nothing new was said: the last answer failed, was cut off or met silence. A caller
            # about to leave a message is not hurried.
            decided = Reply() if self._responder.keeps_audio else self._responder.repeat()
        else:
            decided = self._responder.open()
        self.opened = True
        offered, actions = self._offered_only(decided, plan.tools)
        return actions + self._end(reply.begin(offered), reply)

    def _generate(self, reply: LiveResponse) -> list[Action]:
        """Have the text model answer the conversation, or the items of the request."""
        prompts = [p for p in reply.prompts if not (isinstance(p, CallerTurn) and p.is_empty)]
        if reply.prompts and not prompts:
            return self._end(reply.finish(), reply)
        self.opened = True
        return reply.generate(request_of(reply.plan, self._conversation))

    def _offered_only(self, reply: Reply, offered: Mapping[str, Any]) -> tuple[Reply, list[Action]]:
        """Drop the calls of tools that the client does not offer, and tell the responder so."""
        text, kept = [reply.text], []
        actions: list[Action] = []
        tools = reply.tools
        for _ in range(_TOOL_ROUNDS):
            kept += [_completed(tool, offered[tool.name]) for tool in tools if tool.name in offered]
            missing = [tool for tool in tools if tool.name not in offered]
            if not missing:
                break
            actions.append(Note(NoteKind.TOOL_NOT_OFFERED))
            further = [self._responder.tool_result(tool.name, _NO_SUCH_TOOL) for tool in missing]
            text += [more.text for more in further]
            tools = tuple(tool for more in further for tool in more.tools)
        return Reply(text=" ".join(filter(None, text)), tools=tuple(kept)), actions

    def _take_dropped(self) -> TextUsage:
        dropped, self._dropped = self._dropped, TextUsage()
        return dropped

    def _find(self, response_id: str) -> LiveResponse | None:
        if self._active is not None and self._active.plan.response_id == response_id:
            return self._active
        return self._out_of_band.get(response_id)

    def _end(self, actions: list[Action], reply: LiveResponse) -> list[Action]:
        """Forget the reply if these actions were its last."""
        if reply.state is ResponseState.DONE:
            if reply is self._active:
                self._active = None
                self._ended_audio_ms = reply.audio_ms
            else:
                self._out_of_band.pop(reply.plan.response_id, None)
        return actions


def _all_heard(reply: LiveResponse) -> bool:
    return all(prompt.ready for prompt in reply.prompts)


def _given(override: object, otherwise: object) -> object:
    return otherwise if override is UNSET else override


def _instructions(request: ResponseConfig, config: SessionConfig) -> str:
    """The session's instructions with those of one response, which do not repeat them here.

    OpenAI's server replaces the one by the other; a text model would forget who it is.
    """
    always = config.instructions if isinstance(config.instructions, str) else ""
    if not isinstance(request.instructions, str):
        return always
    if request.conversation == "none" or always in request.instructions:
        return request.instructions
    return f"{always}\n\n{request.instructions}"


def _offered(tools: Sequence[Mapping[str, Any]], choice: object) -> dict[str, Any]:
    """Return the functions that a response may call, with the schemas of their arguments."""
    if choice == "none":
        return {}
    return {tool["name"]: tool.get("parameters") for tool in tools}


def _completed(tool: ToolUse, schema: Any) -> ToolUse:
    """The call with each required argument that it lacks and that its schema has a value for.

    A dialogue file cannot know what an operator's tools take, such as the names of destinations.
    """
    match schema:
        case {"required": list(required), "properties": dict(properties)}:
            pass
        case _:
            return tool
    found = {}
    for name in required:
        match properties.get(name) if isinstance(name, str) else None:
            case {"default": value} | {"enum": [value, *_]} if name not in tool.arguments:
                found[name] = value
    return ToolUse(name=tool.name, arguments={**tool.arguments, **found}) if found else tool
