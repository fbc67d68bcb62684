"""Analysis of the caller's turns beside the voice, which never waits for it.

When a turn of the caller has its transcript, `Analyzer.on_caller_turn` takes it and returns at
once; the analysis runs in a task of the call and comes out as an event. While one analysis runs,
later turns wait as one: each question holds the whole transcript and marks what is new in it. A
task that the operator allows is handed to a delegate, and the agent passes the answer on. Nothing
here can end a call: a failure is an event. After the call, `app.agents.analysis.review` takes over.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from app.agents.analysis.delegates import Delegate
from app.agents.analysis.questions import AnalysisSpec, TranscriptLine, turn_question
from app.agents.llm.question import Ask
from app.errors import AppError, FunctionFailed
from app.events import (
    Analysis,
    AnalysisEvent,
    AnalysisFailed,
    CallId,
    TaskAnswered,
    TaskRequest,
    TaskStarted,
    TurnAnalyzed,
)
from app.threads import in_own_task

__all__ = ["Analyzer", "AnalyzerLimits", "Emit", "attempt", "task_report"]


logger = logging.getLogger(__name__)

T = TypeVar("T")
Emit = Callable[[AnalysisEvent], None]
_MAX_ANSWER_CHARS: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzerLimits:
    """Limits of one call. Tasks beyond `max_tasks` are not handed out."""

    analysis_timeout_ms: int = 10_000
    task_timeout_ms: int = 60_000
    max_tasks: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    item_id: str
    lines: tuple[TranscriptLine, ...] = field(repr=False)


@dataclass(slots=True)
class _Done:
    """The items that were analyzed, and the tasks that were handed out."""

    items: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)


class Analyzer:
    """Analyzes one call. `run` is a task of the call; everything else returns at once."""

    def __init__(
        self,
        call_id: CallId,
        spec: AnalysisSpec,
        ask: Ask,
        emit: Emit,
        *,
        delegate: Delegate | None = None,
        say: Callable[[str], None] | None = None,
        limits: AnalyzerLimits | None = None,
        relay: Callable[[str], None] | None = None,
    ) -> None:
        """`say` has the agent pass a text on in its own words, as data, when nobody speaks.

        `relay` is its old name, for one more version.
        """
        if relay is not None:
            renamed = "Analyzer(relay=...) is now Analyzer(say=...)"
            warnings.warn(renamed, DeprecationWarning, stacklevel=2)
            say = relay
        self.analysis = Analysis()
        self._call_id = call_id
        self._spec = spec
        self._ask = ask
        self._emit = emit
        self._delegate = delegate
        self._say = say
        self._limits = limits or AnalyzerLimits()
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

        async def ask() -> Analysis:
            return self._spec.read(await self._ask(question))

        timeout_ms = self._limits.analysis_timeout_ms
        analysis, code = await attempt(ask, timeout_ms, "analysis", self._call_id)
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
        answer, code = await attempt(
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
        if self._say is not None and (answer or code):
            self._say(task_report(task, answer, code))


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


def task_report(task: TaskRequest, answer: str, error: str) -> str:
    """The outcome of a task, which the agent is to pass on."""
    if error in _LEAVES_OPEN:
        outcome = "It has not answered: nobody knows whether it was done."
        return f"Another system was asked to do this: {task.text}\n{outcome}"
    if error:
        return f"Another system was asked to do this: {task.text}\nIt was not done."
    return f"Another system was asked to do this: {task.text}\nIt answered: {answer}"


async def attempt(
    work: Callable[[], Awaitable[T]], timeout_ms: int, kind: str, call_id: CallId
) -> tuple[T | None, str]:
    """The value of the work, or an error code. Raises nothing but cancellation."""
    deadline = asyncio.timeout(timeout_ms / 1000)
    failure: BaseException
    try:
        async with deadline:
            return await in_own_task(work), ""
    except TimeoutError as error:
        code, failure = "timeout" if deadline.expired() else "failed", error
    except FunctionFailed as error:
        code, failure = error.code, error.__cause__ or error
    except AppError as error:
        code, failure = error.code, error
    except Exception as error:  # models and agents are asked through what the operator hands in
        code, failure = "failed", error
    logger.warning(
        "analysis could not finish",
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
