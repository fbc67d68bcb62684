"""The brain: what is thought about a call beside the voice, and never in its way.

When a turn of the caller has its transcript, `Brain.on_caller_turn` takes it and returns at once;
the analysis runs in a task of the call and comes out as an event. It is that turn which is
analyzed, not the one before; while one analysis runs, later turns wait as one: each question holds
all that was said, and says what of it is new. A task that the operator allows is handed to an
outside agent, whose answer is relayed as data. Nothing here can end a call: what fails is an event.
`Reviewer` thinks about the call once more when it is over, in the process's own time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from app.agents.analysis import (
    AnalysisSpec,
    ReviewSpec,
    TranscriptLine,
    review_question,
    turn_question,
)
from app.agents.errands import Errands
from app.agents.questions import Ask
from app.agents.toolbox import ToolBox
from app.agents.tools import ToolContext
from app.agents.webhook import Message, Outbox, Webhook
from app.errors import AppError, ToolFailed
from app.events import (
    Analysis,
    AnalysisFailed,
    BrainEvent,
    CallId,
    CallReviewed,
    TaskAnswered,
    TaskRequest,
    TaskStarted,
    TurnAnalyzed,
)

__all__ = [
    "Brain",
    "BrainLimits",
    "Delegate",
    "Emit",
    "Reviewer",
    "ToolDelegate",
    "WebhookDelegate",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Emit = Callable[[BrainEvent], None]
EmitReview = Callable[[CallReviewed | AnalysisFailed], None]
_MAX_ANSWER_CHARS: Final = 4_000


# Outside agents -----------------------------------------------------------------------------------


class Delegate(Protocol):
    """An outside agent that does tasks."""

    async def run(self, task: TaskRequest) -> str:
        """Do a task and give the answer, or nothing when there is nothing to say.

        Raises:
            AppError: it was not done.
        """
        ...


class WebhookDelegate:
    """An agent behind a signed webhook: `task.requested` goes there, its response is the answer.

    The answer is the member `answer` of a JSON object, or plain text; none, for example with status
    202, when the agent has taken the task and has nothing to say.
    """

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook

    async def run(self, task: TaskRequest) -> str:
        data = {
            "call_id": task.call_id,
            "task": task.text,
            "intent": task.intent,
            "entities": dict(task.entities),
            "summary": task.summary,
        }
        fetched = await self._webhook.post(Message(key=task.key, kind="task.requested", data=data))
        text = fetched.body.decode("utf-8", "replace").strip()
        if "json" not in fetched.headers.get("content-type", "").lower() or not text:
            return text
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ToolFailed("The agent's answer is not JSON.", code="response_invalid") from error
        match answer:
            case {"answer": str(words)}:
                return words
            case {"answer": _}:
                return json.dumps(answer["answer"], ensure_ascii=False)
            case _:
                return ""


class ToolDelegate:
    """An agent behind a tool, such as one of an MCP server: the task is one of its arguments.

    The call goes through the call's own `ToolBox`, so that its limits and approvals hold here too.
    """

    def __init__(
        self,
        box: ToolBox,
        tool: str,
        context: Callable[[str], ToolContext],
        *,
        argument: str = "task",
    ) -> None:
        """`context` makes the facts of the call, with the given id as the tool call's."""
        self._box = box
        self._tool = tool
        self._context = context
        self._argument = argument

    async def run(self, task: TaskRequest) -> str:
        arguments = json.dumps({self._argument: task.text})
        result = await self._box.invoke(self._tool, arguments, self._context(task.key))
        if result.error:
            raise ToolFailed("The tool did not do the task.", code=result.error)
        return result.output


# During the call ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BrainLimits:
    """What one call may use. Tasks beyond the limit are not handed to anybody."""

    analysis_timeout_ms: int = 10_000
    task_timeout_ms: int = 60_000
    max_tasks: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    item_id: str
    lines: tuple[TranscriptLine, ...] = field(repr=False)


@dataclass(slots=True)
class _Done:
    """What need not be done again: the items that were analyzed, the tasks that were given out."""

    items: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)


class Brain:
    """One call's brain. `run` is a task of the call; everything else returns at once."""

    def __init__(
        self,
        call_id: CallId,
        spec: AnalysisSpec,
        ask: Ask,
        emit: Emit,
        *,
        delegate: Delegate | None = None,
        relay: Callable[[str], None] | None = None,
        limits: BrainLimits | None = None,
    ) -> None:
        """`relay` has a text told in the agent's own words, as data, when nobody speaks."""
        self.analysis = Analysis()
        self._call_id = call_id
        self._spec = spec
        self._ask = ask
        self._emit = emit
        self._delegate = delegate
        self._relay = relay
        self._limits = limits or BrainLimits()
        self._next: _Turn | None = None
        self._wanted = asyncio.Event()
        self._done = _Done()
        self._working = 0

    @property
    def busy(self) -> bool:
        """A turn waits or is being analyzed, or a task is being done."""
        return self._next is not None or self._working > 0

    def on_caller_turn(self, item_id: str, lines: Sequence[TranscriptLine]) -> None:
        """A caller's turn has its transcript: `lines` is the conversation up to it."""
        self._next = _Turn(item_id=item_id, lines=tuple(lines))
        self._wanted.set()

    async def run(self) -> None:
        """Analyze turns and hand out tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                turn, self._next = self._next, None
                if turn is None:
                    continue
                self._working += 1
                try:
                    analysis = await self._analyze(turn)
                finally:
                    self._working -= 1
                if analysis is not None and self._delegate is not None and analysis.task:
                    task = self._task(turn, analysis)
                    if task is not None:
                        self._working += 1
                        group.create_task(self._do(self._delegate, task))

    async def _analyze(self, turn: _Turn) -> Analysis | None:
        began = time.monotonic()
        question = turn_question(self._spec, turn.lines, self.analysis, self._done.items)

        async def think() -> Analysis:
            return self._spec.read(await self._ask(question))

        timeout_ms = self._limits.analysis_timeout_ms
        analysis, code = await _attempt(think, timeout_ms, "analysis", self._call_id)
        if analysis is None:
            self._emit(AnalysisFailed(call_id=self._call_id, item_id=turn.item_id, code=code))
            return None
        self.analysis = analysis
        self._done.items.update(line.item_id for line in turn.lines)
        self._emit(
            TurnAnalyzed(
                call_id=self._call_id,
                item_id=turn.item_id,
                analysis=analysis,
                duration_ms=_since_ms(began),
            )
        )
        return analysis

    def _task(self, turn: _Turn, analysis: Analysis) -> TaskRequest | None:
        """A task once only: models name it again for as long as the caller talks about it."""
        words = " ".join(analysis.task.lower().split())
        if words in self._done.tasks or len(self._done.tasks) >= self._limits.max_tasks:
            logger.info("task was not handed out", extra={"call_id": self._call_id})
            return None
        self._done.tasks.add(words)
        text = json.dumps([self._call_id, turn.item_id, words])
        return TaskRequest(
            key=f"task_{hashlib.sha256(text.encode()).hexdigest()[:32]}",
            call_id=self._call_id,
            text=analysis.task,
            intent=analysis.intent,
            entities=analysis.entities,
            summary=analysis.summary,
        )

    async def _do(self, delegate: Delegate, task: TaskRequest) -> None:
        began = time.monotonic()
        self._emit(TaskStarted(call_id=self._call_id, task=task))
        answer, code = await _attempt(
            partial(delegate.run, task), self._limits.task_timeout_ms, "task", self._call_id
        )
        answer = (answer or "")[:_MAX_ANSWER_CHARS]
        self._working -= 1
        self._emit(
            TaskAnswered(
                call_id=self._call_id,
                key=task.key,
                answer=answer,
                duration_ms=_since_ms(began),
                error=code,
            )
        )
        if self._relay is not None and (answer or code):
            self._relay(relayed(task, answer, code))


_LEAVES_OPEN: Final = frozenset(
    {
        "connection_lost",
        "response_invalid",
        "response_too_large",
        "timeout",
        "tool_timeout",
        "unreachable",  # which a connection that broke after the request is too
        "webhook_failed",
    }
)
"""Errors after which a task may have been done all the same."""


def relayed(task: TaskRequest, answer: str, error: str) -> str:
    """What the agent is told to pass on; `say(relay)` makes data of it, and nobody's order."""
    if error in _LEAVES_OPEN:
        outcome = "It has not answered: nobody knows whether it was done."
        return f"Another system was asked to do this: {task.text}\n{outcome}"
    if error:
        return f"Another system was asked to do this: {task.text}\nIt was not done."
    return f"Another system was asked to do this: {task.text}\nIt answered: {answer}"


async def _attempt(
    work: Callable[[], Awaitable[T]], timeout_ms: int, kind: str, call_id: CallId
) -> tuple[T | None, str]:
    """The work's value, or a code; whatever goes wrong goes no further than this."""
    deadline = asyncio.timeout(timeout_ms / 1000)
    failure: BaseException
    try:
        async with deadline:
            return await work(), ""
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        code, failure = "failed", error
    except TimeoutError as error:
        code, failure = "timeout" if deadline.expired() else "failed", error
    except AppError as error:
        code, failure = error.code, error
    except Exception as error:  # models and agents are asked through what the operator hands in
        code, failure = "failed", error
    logger.warning(
        "brain could not finish",
        extra={
            "call_id": call_id,
            "work": kind,
            "error": code,
            "error_type": type(failure).__name__,
            "pii.detail": str(failure)[:300],
        },
    )
    return None, code


def _since_ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


# After the call -----------------------------------------------------------------------------------


class Reviewer:
    """Summary and extraction of calls that are over, sent to a webhook.

    The webhook hears of every call, also of one that could not be reviewed: then `review` is null
    and `error` says why.
    """

    def __init__(
        self,
        spec: ReviewSpec,
        ask: Ask,
        errands: Errands,
        emit: EmitReview,
        *,
        webhook: Webhook | None = None,
        attempts: int = 3,
        retry_delay_ms: int = 2_000,
        timeout_ms: int = 30_000,
    ) -> None:
        self._spec = spec
        self._ask = ask
        self._errands = errands
        self._emit = emit
        self.outbox = Outbox(errands)
        self._webhook = webhook
        self._attempts = max(1, attempts)
        self._retry_delay_ms = retry_delay_ms
        self._timeout_ms = timeout_ms

    def on_call_over(
        self, call_id: CallId, lines: Sequence[TranscriptLine], facts: Mapping[str, Any]
    ) -> bool:
        """Review a call in the background; `facts` go along (numbers, duration, reason)."""
        work = partial(self._review, call_id, tuple(lines), dict(facts))
        return self._errands.put(f"review {call_id}", work)

    async def _review(
        self, call_id: CallId, lines: tuple[TranscriptLine, ...], facts: dict[str, Any]
    ) -> None:
        review, code = (None, "nothing_said") if not lines else await self._think(call_id, lines)
        if review is None:
            self._emit(AnalysisFailed(call_id=call_id, item_id="", code=code))
        else:
            self._emit(CallReviewed(call_id=call_id, review=review))
        if self._webhook is not None:
            digest = hashlib.sha256(str(call_id).encode()).hexdigest()[:32]
            data = {"call_id": call_id, "review": review, "error": code, "facts": facts}
            message = Message(key=f"review_{digest}", kind="call.reviewed", data=data)
            self.outbox.put(self._webhook, message)

    async def _think(
        self, call_id: CallId, lines: tuple[TranscriptLine, ...]
    ) -> tuple[dict[str, Any] | None, str]:
        question = review_question(self._spec, lines)

        async def think() -> dict[str, Any]:
            return self._spec.read(await self._ask(question))

        attempt = 1
        while True:
            review, code = await _attempt(think, self._timeout_ms, "review", call_id)
            # A model that answered badly may answer well; one that refuses us will not.
            if review is not None or attempt == self._attempts or code == "chat_refused":
                return review, code
            await asyncio.sleep(self._retry_delay_ms * 2 ** (attempt - 1) / 1000)
            attempt += 1
