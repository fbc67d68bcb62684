"""`AgentSession`: an agent in a conversation without a phone, over any voice model.

    async with AgentSession([greeter, billing], model) as session:
        await session.send_message("Hello!")
        async for event in session:
            ...

It shares the dialogue and the voice loop with phone calls, and plays and records nothing: sound
comes in by `send_audio` and goes out as events. All that the session started ends with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, assert_never

from app.agents.agent import Agent
from app.agents.analysis.live_analysis import AnalysisPlan
from app.agents.dialogue.actions import GiveUp, RunTool, ToVoice
from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.dialogue.tool_runner import consent_prompt
from app.agents.dialogue.voice_loop import VoiceLoop
from app.agents.dialogue.voice_outbox import VoiceOutbox
from app.agents.guardrails.rules import CheckGuardrail
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.session.events import HistoryItem, SessionError, ToolApproval
from app.agents.session.session_conversation import (
    EndSession,
    Publish,
    SessionAction,
    SessionConversation,
)
from app.agents.session.subscriptions import DEFAULT_LIMIT, Subscription, Subscriptions
from app.agents.tools.invocation import ApprovalRequest
from app.agents.tools.tool import ToolResult
from app.agents.work import DialogueWork
from app.errors import ConfigError, VoiceClosed, VoiceError, VoiceUnavailable
from app.events import CallId, Party, TokenUsage
from app.realtime.connection import Room, VoiceConnection, VoiceModel
from app.realtime.events import InputAudioCommit, ServerEvent, Unknown
from app.tasks import CancellableGroup

__all__ = ["AgentSession"]


logger = logging.getLogger(__name__)

TICK_S: Final = 0.2
UPLINK_MAX_MS: Final = 10_000
PIECE_MS: Final = 500
"""Sound is sent in pieces: one long recording must not hold up a message behind it."""

_OWN: Final = object()


class AgentSession:
    """A conversation, from entering its block to leaving it or `close`."""

    def __init__(  # noqa: PLR0913 - options of the public API, each with a default
        self,
        agents: Agent | Iterable[Agent] | Roster,
        model: VoiceModel,
        *,
        facts: CallFacts | None = None,
        greet: bool = False,
        plays_audio: bool = True,
        price: Callable[[TokenUsage], float | None] = lambda _usage: None,
        event_limit: int = DEFAULT_LIMIT,
        analysis: AnalysisPlan | None = None,
        uplink_max_ms: int | None = None,
        reconnect: bool = True,
        brain: AnalysisPlan | None = None,
    ) -> None:
        """The first of `agents` speaks; the others are there to be handed over to.

        `greet`: the agent speaks first. `plays_audio`: sound takes its time to be heard; without,
        it counts as heard when it is made. `analysis` is made of each of the caller's turns.
        `uplink_max_ms`: sound beyond it that the model does not take is dropped, the oldest first;
        without it, `send_audio` waits. `reconnect`: a connection that breaks is replaced.
        `brain` is the old name of `analysis`, for one more version.

        Raises:
            ConfigError: the agents do not fit together, or `model` is no voice model.
        """
        if isinstance(model, type) or not callable(getattr(model, "connect", None)):
            raise ConfigError(
                f"{model!r:.80} is not a voice model: give WebSocketModel.openai(key, name), or "
                "the model() of an engine"
            )
        if brain is not None:
            _warn_renamed("AgentSession(brain=...)", "AgentSession(analysis=...)")
            analysis = brain
        roster = _roster(agents)
        self._greet = greet
        self._conversation = SessionConversation(
            roster,
            facts
            or CallFacts(call_id=CallId(f"session_{secrets.token_hex(8)}"), started_at=time.time()),
            price=price,
            plays_audio=plays_audio,
        )
        listener = _Listener(self)
        self._subscriptions = Subscriptions()
        self._subscriptions.subscribe(_OWN, event_limit)
        self._drops_audio = uplink_max_ms is not None
        self._outbox = VoiceOutbox(
            roster.first.input_format, uplink_max_ms or UPLINK_MAX_MS, self._conversation.counters
        )
        self._beside = DialogueWork(
            self._conversation.dialogue,
            listener,
            send=self._outbox.put,
            analysis=analysis,
            emit=self._subscriptions.publish,
            say=self._pass_on,
        )
        self._tools = self._beside.tools
        self._analysis = self._beside.analysis
        self._voice = VoiceLoop(
            model, self._conversation.dialogue, self._outbox.take, listener, reconnects=reconnect
        )
        self._work: CancellableGroup | None = None
        self._began_s = 0.0
        self._ended = False
        self._checks_running = 0
        self._moved = asyncio.Event()
        self._trouble = ""
        self.failure: VoiceError | None = None

    async def __aenter__(self) -> AgentSession:
        """Connect.

        Raises:
            ConfigError: it was entered or closed before.
            VoiceRefused: wrong key, model or settings.
            VoiceUnavailable: not reached within the budget, after retries.
        """
        if self._work is not None:
            raise ConfigError("a session is entered once; make another one")
        if self._ended:
            raise ConfigError("the session was closed before; make another one")
        try:
            await self._voice.connect()
        except VoiceError as error:
            self.failure = error
            raise
        finally:
            if not self._voice.connected:
                self._end()  # subscribers must not wait: nothing will happen
        if self._ended:
            await self._voice.close()
            raise ConfigError("the session was closed while it connected; make another one")
        self._began_s = asyncio.get_running_loop().time()
        work = self._work = CancellableGroup()
        await work.__aenter__()
        work.create_task(self._talk_with_model(), name="agent session")
        work.create_task(self._tick())
        self._beside.begin(work)
        if self._greet:
            self._perform(self._conversation.greet(self._now_ms()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
        assert self._work is not None
        await self._work.__aexit__(None, None, None)

    def __aiter__(self) -> Subscription:
        """The session's events from its beginning, for one reader; see `subscribe` for more.

        Raises:
            VoiceClosed: the session was not entered yet.
        """
        if self._work is None and not self._ended:
            self._check_open()
        return self._subscriptions.subscribe(_OWN)

    # Talking ------------------------------------------------------------------------------------

    async def send_message(self, text: str, *, reply: bool = True) -> None:
        """Say something in writing; the agent answers unless `reply` is false.

        Raises:
            VoiceError: not connected (VoiceClosed), or what the session has ended by. So do the
                other methods below.
        """
        self._check_open()
        self._perform(self._conversation.type_in(text, self._now_ms(), reply=reply))
        if self._analysis is not None:
            self._analysis.on_caller_turn()

    async def ask(self, text: str) -> str:
        """Say something in writing, and return what the agent answers once its turn is over.

        The turn includes the tools that it uses, also those that wait for approval, and what other
        agents say whom it hands over to. Events are published as ever.

        Raises:
            VoiceError: as `send_message`; or the model failed to answer.
        """
        self._check_open()
        known = {item.item_id for item in self.history}
        self._trouble = ""
        await self.send_message(text)
        while self.connected and not self._turn_over:
            self._moved.clear()
            await self._moved.wait()
        said = [item for item in self.history if item.item_id not in known]
        words = [
            (item.heard_text if item.cut_off else item.text).strip()
            for item in said
            if item.party is Party.AGENT
        ]
        reply = " ".join(filter(None, words))
        if self.failure is not None:
            raise self.failure
        if not reply and self._trouble:
            raise VoiceUnavailable("the model did not answer", code=self._trouble)
        return reply

    async def send_event(self, event: Mapping[str, Any]) -> None:
        """Send an event of the Realtime protocol as it is, such as `{"type": "response.cancel"}`.

        For what this class has no method for: nothing checks that the event fits the conversation.

        Raises:
            ConfigError: it has no type, or JSON cannot hold it.
        """
        self._check_open()
        kind = event.get("type")
        if not isinstance(kind, str) or not kind:
            raise ConfigError("an event has a `type`, a text such as response.cancel")
        try:
            raw = json.loads(json.dumps(dict(event), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"an event is sent as JSON: {error}") from None
        self._outbox.put(Unknown(kind, raw))

    async def send_audio(self, chunk: bytes, *, commit: bool = False) -> None:
        """Give the model sound in the session's input format; waits while it takes no more.

        With `uplink_max_ms` the wait lasts no longer than the sound. `commit`: the turn ends here
        and is answered; a session without turn detection needs it. While a broken connection is
        replaced, sound is dropped: it would come too late.
        """
        self._check_open()
        sound = self._conversation.dialogue.active.agent.input_format
        piece_bytes = sound.ms_to_bytes(PIECE_MS)
        counters = self._conversation.counters
        dropped_before_ms = counters.uplink_dropped_ms
        for start in range(0, len(chunk), piece_bytes):
            piece = chunk[start : start + piece_bytes]
            lasts_s = len(piece) / sound.bytes_per_second
            await self._outbox.room(len(piece), within_s=lasts_s if self._drops_audio else None)
            self._check_open()
            if self._voice.connected:
                self._outbox.put_audio(piece)
            else:
                counters.uplink_dropped_ms += int(lasts_s * 1000)
        if counters.uplink_dropped_ms and not dropped_before_ms:
            logger.warning("sound dropped, the model is slow")
        if commit and self._voice.connected:
            self._conversation.on_commit()
            self._outbox.put(InputAudioCommit())

    async def say(
        self,
        text: str,
        *,
        mode: SayMode | str = SayMode.VERBATIM,
        when: SayWhen | str = SayWhen.AFTER_TURN,
    ) -> None:
        """Have the agent say a text: word for word, or as information in its own words."""
        self._check_open()
        self._say(text, SayMode(mode), SayWhen(when))

    def _say(self, text: str, mode: SayMode, when: SayWhen) -> None:
        now_ms = self._now_ms()
        actions = self._conversation.dialogue.say(text, now_ms, mode=mode, when=when)
        self._perform(self._conversation.carry_out(actions, now_ms))

    async def interrupt(self, heard_ms: int | None = None) -> None:
        """Stop the agent; `heard_ms` of its present item, where the player knows it."""
        self._check_open()
        self._perform(self._conversation.interrupt(self._now_ms(), heard_ms))

    async def update_agent(self, agent: Agent | str) -> None:
        """Put another agent in charge: by name, or a new one, which replaces one of its name.

        Raises:
            ConfigError: there is no such agent, or it does not fit the session.
        """
        self._check_open()
        active = self._conversation.dialogue.active
        named = agent if isinstance(agent, Agent) else active.roster.get(agent)
        if named is None:
            raise ConfigError(f"there is no agent {agent!r}")
        formats = (named.input_format, named.output_format)
        if formats != (active.agent.input_format, active.agent.output_format):
            raise ConfigError("a session keeps its sound format")
        if isinstance(agent, Agent):
            others = [known for known in active.roster if known.name != agent.name]
            active.roster = Roster([*others, agent])
        now_ms = self._now_ms()
        actions = self._conversation.dialogue.change_agent(active.roster[named.name], now_ms)
        self._perform(self._conversation.carry_out(actions, now_ms))

    async def approve_tool_call(self, tool_call_id: str, *, always: bool = False) -> bool:
        """Let a tool run that waits for it; False when none does."""
        self._check_open()
        return self._tools.decide(tool_call_id, approved=True, always=always)

    async def reject_tool_call(self, tool_call_id: str, message: str = "") -> bool:
        """Refuse a tool that waits for approval; False when none does.

        `message` goes to the model in place of "This was not approved."
        """
        self._check_open()
        return self._tools.decide(tool_call_id, approved=False, message=message)

    async def close(self) -> None:
        """End the conversation; safe at any time, also twice."""
        self._end()
        if self._work is not None:
            await self._work.gone()

    # Looking ------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """True while the session can be used."""
        return self._work is not None and not self._ended

    @property
    def busy(self) -> bool:
        """True while a response, a tool, a guardrail check or a fresh connection is on its way."""
        if not self.connected:
            return False
        return not self._voice.connected or self._conversation.busy or self._checks_running > 0

    @property
    def _turn_over(self) -> bool:
        return not self.busy and self._conversation.turn_over

    @property
    def analyzing(self) -> bool:
        """True while the analysis is at work, or an answer of a delegate waits to be said."""
        at_work = self._analysis is not None and self._analysis.analyzer.busy
        return self.connected and (at_work or self._conversation.dialogue.responses.waits_for_quiet)

    @property
    def thinking(self) -> bool:
        """The old name of `analyzing`, for one more version."""
        _warn_renamed("session.thinking", "session.analyzing")
        return self.analyzing

    @property
    def current_agent(self) -> Agent:
        return self._conversation.dialogue.active.agent

    @property
    def history(self) -> list[HistoryItem]:
        """The conversation so far, in its own order."""
        return self._conversation.history()

    @property
    def usage(self) -> TokenUsage:
        return self._conversation.dialogue.usage

    def subscribe(self, key: Hashable, *, limit: int = DEFAULT_LIMIT) -> Subscription:
        """Events from now on, to be iterated; the same key again is the same subscription."""
        return self._subscriptions.subscribe(key, limit)

    def unsubscribe(self, key: Hashable) -> None:
        """End a subscription, if there is one under this key."""
        self._subscriptions.unsubscribe(key)

    def _check_open(self) -> None:
        if not self.connected:
            if self.failure is not None:
                raise self.failure
            raise VoiceClosed("not connected: use the session inside its block", close_code=1000)

    def _now_ms(self) -> int:
        return int((asyncio.get_running_loop().time() - self._began_s) * 1000)

    def _pass_on(self, text: str) -> None:
        if self.connected:
            self._say(text, SayMode.RELAY, SayWhen.IDLE)

    # Work ---------------------------------------------------------------------------------------

    def _end(self) -> None:
        """End the conversation, and all that it has started."""
        self._ended = True
        if self._work is not None:
            self._work.cancel()
        self._outbox.clear()
        self._subscriptions.end()
        self._moved.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._voice.connected:
                self._perform(self._conversation.on_tick(self._now_ms()))

    def _perform(self, actions: Sequence[SessionAction]) -> None:
        """Carry out actions in order. Never waits."""
        for action in actions:
            match action:
                case ToVoice(event):
                    self._outbox.put(event)
                case Publish(event):
                    if isinstance(event, SessionError) and not event.benign:
                        self._trouble = event.code
                    self._subscriptions.publish(event)
                case RunTool():
                    assert self._work is not None
                    self._tools.run(action, self._work)
                case CheckGuardrail():
                    assert self._work is not None
                    self._work.create_task(self._check_rule(action), name="guardrails")
                case GiveUp():
                    self._voice.give_up(action)
                case EndSession():
                    self._end()
                case _:
                    assert_never(action)
        self._moved.set()

    async def _check_rule(self, check: CheckGuardrail) -> None:
        self._checks_running += 1
        try:
            result = await self._beside.check(check)
        finally:
            self._checks_running -= 1
        self._tools.on_guardrail_result(check.side, result.verdict)
        now_ms = self._now_ms()
        actions = self._conversation.dialogue.on_guardrail_result(check, result, now_ms)
        self._perform(self._conversation.carry_out(actions, now_ms))

    # Model --------------------------------------------------------------------------------------

    async def _talk_with_model(self) -> None:
        """Converse with the model until it is lost for good."""
        try:
            lost = await self._voice.run()
            self.failure = VoiceUnavailable("the model was lost", code=lost.code)
            self.failure.__cause__ = self._voice.error
        except VoiceError as error:
            self.failure = error
        finally:
            await self._voice.close()
        self._subscriptions.publish(
            SessionError(code=self.failure.code, message=self.failure.message, fatal=True)
        )
        self._end()


class _Listener:
    """The session's side that its tools and its connection report to."""

    def __init__(self, session: AgentSession) -> None:
        self._session = session

    def on_tool_result(self, run: RunTool, result: ToolResult) -> None:
        session = self._session
        if session.connected:
            session._perform(session._conversation.on_tool_done(run, result, session._now_ms()))

    def on_tool_slow(self, run: RunTool, filler: str) -> bool:
        session = self._session
        if not session.connected:
            return True
        said = session._conversation.on_tool_slow(run, filler, session._now_ms())
        session._perform(said)
        return bool(said)

    def on_approval_wanted(self, request: ApprovalRequest) -> None:
        wanted = ToolApproval(
            agent=request.context.agent,
            tool=request.tool.name,
            tool_call_id=request.context.tool_call_id,
            arguments=json.dumps(dict(request.arguments), ensure_ascii=False),
            prompt=consent_prompt(request),
        )
        self._session._subscriptions.publish(wanted)

    @property
    def present(self) -> bool:
        return True

    def on_voice_ready(self, connection: VoiceConnection, *, reconnected: bool) -> None:
        session = self._session
        if reconnected:
            session._outbox.clear()  # meant for the connection before; the dialogue is replayed
            session._perform(session._conversation.on_ready(session._now_ms()))

    @property
    def voice_room(self) -> Room:
        return self

    @property
    def has_room(self) -> bool:
        return True  # a program takes what came at its own pace

    async def room(self) -> None:
        """There is always room."""

    def on_voice(self, event: ServerEvent) -> None:
        session = self._session
        session._beside.on_voice(event)
        session._perform(session._conversation.on_voice(event, session._now_ms()))
        session._beside.after_voice(event)

    async def on_voice_lost(self, code: str, session_id: str) -> None:
        session = self._session
        session._outbox.clear()  # sound that waits would come too late
        session._beside.ask.on_voice_lost()
        session._conversation.on_lost()


def _warn_renamed(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)


def _roster(agents: Agent | Iterable[Agent] | Roster) -> Roster:
    return agents if isinstance(agents, Roster) else Roster(agents)
