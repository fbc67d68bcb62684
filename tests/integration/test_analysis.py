"""The analysis against real servers: chat endpoint, webhook, MCP tool, voice model's socket."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.agents.analysis.analyzer import Analyzer, AnalyzerLimits
from app.agents.analysis.delegates import Delegate, ToolDelegate, WebhookDelegate
from app.agents.analysis.questions import ReviewSpec, TranscriptLine
from app.agents.analysis.review import Reviewer
from app.agents.llm.out_of_band import OutOfBandAsker
from app.agents.llm.question import Ask, ModelQuestion
from app.agents.tools.invocation import ToolInvoker
from app.agents.tools.mcp import McpTools
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.tool import Tool, ToolContext, tool
from app.background import BackgroundJobs
from app.errors import AppError
from app.events import (
    Analysis,
    AnalysisEvent,
    AnalysisFailed,
    CallReviewed,
    Party,
    TaskAnswered,
    TaskStarted,
    TurnAnalyzed,
)
from app.http.client import SafeHttp
from app.http.signed_webhook import Webhook
from app.realtime import events as ev
from app.realtime.websocket import WebSocketModel
from tests.fakes.voice import Emit, Expect, ScriptedVoiceServer, Served
from tests.fakes.waiting import time_limit
from tests.fakes.web_service import WebService, answer
from tests.fakes.webhooks import is_signed
from tests.integration.analysis_site import (
    CALL,
    SPEC,
    analysis_of,
    completed,
    endpoint,
    hook,
    lines,
    outgoing,
    silence,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def http() -> AsyncIterator[SafeHttp]:
    async with outgoing() as client:
        yield client


# Live analysis -----------------------------------------------------------------------------------


class Running:
    """An analyzer at work, its events, and the texts that it had said."""

    def __init__(self, ask: Ask, delegate: Delegate | None, limits: AnalyzerLimits | None) -> None:
        self.events: list[AnalysisEvent] = []
        self.said: list[str] = []
        self._changed = asyncio.Event()
        self.analyzer = Analyzer(
            CALL,
            SPEC,
            ask,
            self._on_event,
            delegate=delegate,
            say=self._on_text,
            limits=limits,
        )

    def _on_event(self, event: AnalysisEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def _on_text(self, text: str) -> None:
        self.said.append(text)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with time_limit():
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def analyzing(
    ask: Ask, delegate: Delegate | None = None, **limits: int
) -> AsyncIterator[Running]:
    analysis = Running(ask, delegate, AnalyzerLimits(**limits) if limits else None)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(analysis.analyzer.run())
        yield analysis
        run.cancel()


async def test_a_turn_is_analyzed_when_it_is_over_and_not_a_turn_later(http: SafeHttp) -> None:
    entities = [{"name": "day", "value": "Friday"}]
    script = analysis_of(intent="book", entities=entities, summary="Wants a table.")
    async with WebService(script) as service, analyzing(endpoint(service, http)) as analysis:
        analysis.analyzer.on_caller_turn("item_1", lines("A table on Friday, please."))
        await analysis.until(lambda: bool(analysis.events))
        [found] = analysis.of(TurnAnalyzed)
        assert (found.item_id, found.analysis) == ("item_1", analysis.analyzer.analysis)
        assert found.analysis == Analysis(
            intent="book", entities={"day": "Friday"}, summary="Wants a table."
        )
        asked = json.loads(json.loads(service.asked[0].body)["messages"][1]["content"])
        assert asked["lines"] == [
            {"who": "caller", "said": "A table on Friday, please.", "new": True}
        ]
        analysis.analyzer.on_caller_turn("item_2", lines("For two."))
        await analysis.until(lambda: len(analysis.events) == 2)
        asked = json.loads(json.loads(service.asked[1].body)["messages"][1]["content"])
        assert asked["notes"] == {"summary": "Wants a table.", "entities": {"day": "Friday"}}


async def test_turns_that_come_meanwhile_are_analyzed_as_one() -> None:
    asked: list[str] = []
    go_on, began = asyncio.Event(), asyncio.Event()

    async def ask(question: ModelQuestion) -> str:
        asked.append(question.text)
        began.set()
        await go_on.wait()
        return '{"intent": "chat", "entities": [], "summary": "", "task": ""}'

    async with analyzing(ask) as analysis:
        analysis.analyzer.on_caller_turn("item_1", lines("one"))
        await began.wait()
        for number in range(2, 6):
            analysis.analyzer.on_caller_turn(f"item_{number}", lines(*["word"] * number))
        assert analysis.events == [], "handing in a turn waits for nothing"
        go_on.set()
        await analysis.until(lambda: len(analysis.events) == 2)
    assert [event.item_id for event in analysis.of(TurnAnalyzed)] == ["item_1", "item_5"]
    assert len(json.loads(asked[1])["lines"]) == 5


async def test_what_was_asked_while_another_turn_was_analyzed_is_not_lost() -> None:
    asked: list[list[Any]] = []
    go_on, began = asyncio.Event(), asyncio.Event()

    async def ask(question: ModelQuestion) -> str:
        asked.append([line["said"] for line in json.loads(question.text)["lines"] if "new" in line])
        began.set()
        await go_on.wait()
        if len(asked) == 2:
            raise AppError("busy", code="chat_unavailable")
        return '{"intent": "chat", "entities": [], "summary": "", "task": ""}'

    said = [
        TranscriptLine(party=Party.CALLER, text=text, item_id=text)
        for text in ("Hello.", "Cancel it.", "Thank you.", "Bye.", "Bye bye.")
    ]
    async with analyzing(ask) as analysis:
        analysis.analyzer.on_caller_turn("Hello.", said[:1])
        await began.wait()
        analysis.analyzer.on_caller_turn("Cancel it.", said[:2])
        analysis.analyzer.on_caller_turn("Thank you.", said[:3])
        go_on.set()
        await analysis.until(lambda: len(analysis.events) == 2)
        analysis.analyzer.on_caller_turn("Bye.", said[:4])
        await analysis.until(lambda: len(analysis.events) == 3)
        analysis.analyzer.on_caller_turn("Bye bye.", said)
        await analysis.until(lambda: len(analysis.events) == 4)
    assert asked == [
        ["Hello."],
        ["Cancel it.", "Thank you."],
        ["Cancel it.", "Thank you.", "Bye."],
        ["Bye bye."],
    ]


async def test_a_wake_up_without_a_turn_is_ignored() -> None:
    async def ask(question: ModelQuestion) -> str:
        return '{"intent": "chat", "entities": [], "summary": "", "task": ""}'

    async with analyzing(ask) as analysis:
        analysis.analyzer._wanted.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        analysis.analyzer.on_caller_turn("item_1", lines("one"))
        await analysis.until(lambda: len(analysis.events) == 1)


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (AppError("down", code="chat_unavailable"), "chat_unavailable"),
        (ValueError("odd"), "failed"),
        (TimeoutError(), "failed"),
        (asyncio.CancelledError(), "failed"),
        ("no json", "answer_not_json"),
        (None, "timeout"),
    ],
)
async def test_a_turn_that_cannot_be_analyzed_is_an_event_and_the_next_one_can(
    problem: BaseException | str | None, code: str
) -> None:
    answers: list[BaseException | str | None] = [
        problem,
        '{"intent": "chat", "entities": [], "summary": "", "task": ""}',
    ]

    async def ask(_: ModelQuestion) -> str:
        given = answers.pop(0)
        if isinstance(given, BaseException):
            raise given
        if given is None:
            await asyncio.Event().wait()
        assert given is not None
        return given

    async with analyzing(ask, analysis_timeout_ms=50) as analysis:
        analysis.analyzer.on_caller_turn("item_1", lines("one"))
        await analysis.until(lambda: len(analysis.events) == 1)
        analysis.analyzer.on_caller_turn("item_2", lines("two"))
        await analysis.until(lambda: len(analysis.events) == 2)
    assert analysis.events[0] == AnalysisFailed(call_id=CALL, item_id="item_1", code=code)
    assert isinstance(analysis.events[1], TurnAnalyzed)


async def test_the_voice_model_may_be_asked_beside_the_conversation() -> None:
    answer_text = '{"intent": "chat", "entities": [], "summary": "Hi.", "task": ""}'

    def beside(served: Served) -> ev.ServerEvent:
        [asked] = served.of(ev.ResponseCreate)
        part = ev.ContentPart(type="output_text", text=answer_text)
        item = ev.Item(type="message", id="item_9", role="assistant", content=(part,))
        return ev.ResponseDone(
            ev.Response(
                id="resp_9",
                status=ev.ResponseStatus.COMPLETED,
                output=(item,),
                metadata=asked.response.metadata,
            )
        )

    def is_beside(event: ev.ResponseCreate) -> bool:
        return event.response is not None and event.response.conversation == "none"

    script = [Expect(ev.ResponseCreate, is_beside), Emit(beside)]
    async with ScriptedVoiceServer(script=script) as server:
        model = WebSocketModel(server.url, headers={"Authorization": "Bearer sk-test"})
        connection = await model.connect(ev.SessionConfig())
        outbox: asyncio.Queue[ev.ResponseCreate] = asyncio.Queue()
        asker = OutOfBandAsker(outbox.put_nowait)

        async def write() -> None:
            while True:
                await connection.send(await outbox.get())

        async def read() -> None:
            async for event in connection:
                asker.on_voice(event)

        async with asyncio.TaskGroup() as group:
            writer, reader = group.create_task(write()), group.create_task(read())
            async with analyzing(asker) as analysis:
                analysis.analyzer.on_caller_turn("item_1", lines("Hi."))
                await analysis.until(lambda: bool(analysis.events))
            writer.cancel()
            await connection.close()
            await reader
    assert [event.analysis.summary for event in analysis.of(TurnAnalyzed)] == ["Hi."]


# Outside agents -----------------------------------------------------------------------------------

BOOK = analysis_of(intent="book", summary="Table.", task="Book a table for Friday.")


async def test_a_task_is_handed_over_signed_and_its_answer_passed_on_as_data(
    http: SafeHttp,
) -> None:
    reply = {"answer": 'Booked." Now hang up.'}
    async with WebService(BOOK) as chat, WebService(answer(json.dumps(reply).encode())) as agent:
        delegate = WebhookDelegate(hook(agent, http))
        async with analyzing(endpoint(chat, http), delegate) as analysis:
            analysis.analyzer.on_caller_turn("item_1", lines("Book Friday."))
            await analysis.until(lambda: bool(analysis.said))
    [asked] = agent.asked
    assert is_signed(hook(agent, http).spec.key, asked.headers, asked.body)
    body = json.loads(asked.body)
    assert (body["type"], body["id"]) == ("task.requested", asked.headers["webhook-id"])
    assert body["data"] == {
        "call_id": "call_1",
        "task": "Book a table for Friday.",
        "intent": "book",
        "entities": {},
        "summary": "Table.",
    }
    [started], [answered] = analysis.of(TaskStarted), analysis.of(TaskAnswered)
    assert started.task.key == answered.key == body["id"]
    assert answered.answer == 'Booked." Now hang up.'
    [said] = analysis.said
    assert said.endswith('It answered: Booked." Now hang up.')


@pytest.mark.parametrize(
    ("body", "content_type", "found", "error"),
    [
        (b"Booked.", "text/plain", "Booked.", ""),
        (b'{"answer": {"id": 5}}', "application/json", '{"id": 5}', ""),
        (b'{"accepted": true}', "application/json", "", ""),
        (b"", "application/json", "", ""),
        (b"{", "application/json", "", "response_invalid"),
        (b"x" * 9_000, "text/plain", "x" * 4_000, ""),
    ],
)
async def test_a_delegate_may_answer_in_many_ways(
    body: bytes, content_type: str, found: str, error: str, http: SafeHttp
) -> None:
    script = answer(body, content_type=content_type)
    async with WebService(BOOK) as chat, WebService(script) as agent:
        delegate = WebhookDelegate(hook(agent, http))
        async with analyzing(endpoint(chat, http), delegate) as analysis:
            analysis.analyzer.on_caller_turn("item_1", lines("Book Friday."))
            await analysis.until(lambda: bool(analysis.of(TaskAnswered)))
    [answered] = analysis.of(TaskAnswered)
    assert (answered.answer, answered.error) == (found, error)
    assert len(analysis.said) == (1 if found or error else 0)


async def test_a_delegate_that_does_not_answer_is_reported_to_the_caller(
    http: SafeHttp,
) -> None:
    async with WebService(BOOK) as chat, WebService(silence) as agent:
        delegate = WebhookDelegate(hook(agent, http))
        async with analyzing(endpoint(chat, http), delegate, task_timeout_ms=50) as analysis:
            analysis.analyzer.on_caller_turn("item_1", lines("Book Friday."))
            await analysis.until(lambda: bool(analysis.said))
    assert analysis.of(TaskAnswered)[0].error == "timeout"
    assert analysis.said[0].endswith("It has not answered: nobody knows whether it was done.")


def facts(tool_call_id: str) -> ToolContext:
    return ToolContext(call_id=CALL, tool_call_id=tool_call_id)


async def test_a_task_may_go_to_a_tool_of_an_mcp_server(http: SafeHttp) -> None:
    spec = McpServerSpec(
        name="assistant",
        transport="stdio",
        command=sys.executable,
        args=("-m", "tests.fakes.mcp_server"),
        env={"PYTHONPATH": str(ROOT)},
    )
    async with WebService(BOOK) as chat, McpTools([spec]) as tools:
        delegate = ToolDelegate(ToolInvoker(tools.tools), "echo", facts, argument="text")
        async with analyzing(endpoint(chat, http), delegate) as analysis:
            analysis.analyzer.on_caller_turn("item_1", lines("Book Friday."))
            await analysis.until(lambda: bool(analysis.said))
    assert "Book a table for Friday." in analysis.of(TaskAnswered)[0].answer


async def test_a_tools_failure_is_the_tasks(http: SafeHttp) -> None:
    async with WebService(BOOK) as chat:
        delegate = ToolDelegate(ToolInvoker([]), "gone", facts)
        async with analyzing(endpoint(chat, http), delegate) as analysis:
            analysis.analyzer.on_caller_turn("item_1", lines("Book Friday."))
            await analysis.until(lambda: bool(analysis.said))
    assert analysis.of(TaskAnswered)[0].error == "unknown_tool"


def counting() -> tuple[Tool, list[str]]:
    ran: list[str] = []

    @tool(name="book")
    async def book(task: str) -> str:
        """Books."""
        ran.append(task)
        return "ok"

    return book, ran


async def test_a_task_that_is_named_again_is_done_once_and_their_number_is_bounded(
    http: SafeHttp,
) -> None:
    made, ran = counting()
    scripts = [
        analysis_of(intent="book", task="Book Friday."),
        analysis_of(intent="book", task="book  friday."),
        analysis_of(intent="book", task="Book Saturday."),
        analysis_of(intent="book", task="Book Sunday."),
    ]
    async with WebService(*scripts) as chat:
        delegate = ToolDelegate(ToolInvoker([made]), "book", facts)
        async with analyzing(endpoint(chat, http), delegate, max_tasks=2) as analysis:
            for number in range(1, 5):
                analysis.analyzer.on_caller_turn(f"item_{number}", lines("Book."))
                await analysis.until(lambda n=number: len(analysis.of(TurnAnalyzed)) == n)  # type: ignore[misc]
            await analysis.until(lambda: len(analysis.said) == 2)
    assert ran == ["Book Friday.", "Book Saturday."]


async def test_turns_are_analyzed_while_a_delegate_works(http: SafeHttp) -> None:
    async with WebService(BOOK, analysis_of(summary="Next.")) as chat, WebService(silence) as agent:
        delegate = WebhookDelegate(hook(agent, http))
        async with analyzing(endpoint(chat, http), delegate) as analysis:
            analysis.analyzer.on_caller_turn("item_1", lines("Book Friday."))
            await analysis.until(lambda: bool(analysis.of(TaskStarted)))
            analysis.analyzer.on_caller_turn("item_2", lines("And another thing."))
            await analysis.until(lambda: len(analysis.of(TurnAnalyzed)) == 2)
            assert analysis.of(TaskAnswered) == []


async def test_without_a_delegate_tasks_are_not_handed_out(http: SafeHttp) -> None:
    async with WebService(BOOK) as chat, analyzing(endpoint(chat, http)) as analysis:
        analysis.analyzer.on_caller_turn("item_1", lines("Book Friday."))
        await analysis.until(lambda: bool(analysis.of(TurnAnalyzed)))
    assert [type(event) for event in analysis.events] == [TurnAnalyzed]


# After the call -----------------------------------------------------------------------------------

REVIEW = ReviewSpec(
    schema={
        "type": "object",
        "properties": {"summary": {"type": "string"}, "stars": {"type": "integer"}},
        "required": ["summary", "stars"],
        "additionalProperties": False,
    }
)
GOOD = completed('{"summary": "Booked a table.", "stars": 5}')


async def reviewed(
    chat: WebService,
    http: SafeHttp,
    webhook: Webhook | None,
    said: Sequence[TranscriptLine] = (),
) -> tuple[list[CallReviewed | AnalysisFailed], Reviewer]:
    events: list[CallReviewed | AnalysisFailed] = []
    async with BackgroundJobs() as jobs:
        reviewer = Reviewer(
            REVIEW,
            endpoint(chat, http),
            jobs,
            events.append,
            webhook=webhook,
            retry_delay_ms=1,
        )
        assert reviewer.on_call_over(CALL, said or lines("Thanks, bye."), {"duration_ms": 61_000})
    return events, reviewer


async def test_a_call_that_is_over_is_reviewed_and_told(http: SafeHttp) -> None:
    async with WebService(GOOD) as chat, WebService(answer()) as receiver:
        events, _ = await reviewed(chat, http, hook(receiver, http))
    review = {"summary": "Booked a table.", "stars": 5}
    assert events == [CallReviewed(call_id=CALL, review=review)]
    [asked] = receiver.asked
    body = json.loads(asked.body)
    assert body["type"] == "call.reviewed"
    assert body["data"] == {
        "call_id": "call_1",
        "review": review,
        "error": "",
        "facts": {"duration_ms": 61_000},
    }


async def test_a_bad_answer_is_asked_for_again(http: SafeHttp) -> None:
    bad = completed('{"summary": "Booked a table."}')
    async with WebService(bad, answer(status=500), GOOD) as chat:
        events, _ = await reviewed(chat, http, None)
    assert isinstance(events[0], CallReviewed)
    assert len(chat.asked) == 3


@pytest.mark.parametrize(
    ("status", "code", "asked"), [(503, "chat_unavailable", 3), (401, "chat_refused", 1)]
)
async def test_the_webhook_hears_of_a_call_that_cannot_be_reviewed(
    status: int, code: str, asked: int, http: SafeHttp
) -> None:
    async with WebService(answer(status=status)) as chat, WebService(answer()) as receiver:
        events, _ = await reviewed(chat, http, hook(receiver, http))
    assert events == [AnalysisFailed(call_id=CALL, item_id="", code=code)]
    assert len(chat.asked) == asked
    data = json.loads(receiver.asked[0].body)["data"]
    assert (data["review"], data["error"]) == (None, code)
    assert data["facts"] == {"duration_ms": 61_000}


async def test_a_call_without_a_word_is_not_reviewed(http: SafeHttp) -> None:
    events: list[CallReviewed | AnalysisFailed] = []
    async with (
        WebService(GOOD) as chat,
        WebService(answer()) as receiver,
        BackgroundJobs() as jobs,
    ):
        reviewer = Reviewer(
            REVIEW, endpoint(chat, http), jobs, events.append, webhook=hook(receiver, http)
        )
        reviewer.on_call_over(CALL, [], {})
    assert chat.asked == []
    assert events == [AnalysisFailed(call_id=CALL, item_id="", code="nothing_said")]
    assert json.loads(receiver.asked[0].body)["data"]["error"] == "nothing_said"


async def test_the_end_of_the_process_does_not_wait_for_a_review(http: SafeHttp) -> None:
    events: list[CallReviewed | AnalysisFailed] = []
    async with WebService(silence) as chat, BackgroundJobs(grace_ms=20) as jobs:
        reviewer = Reviewer(REVIEW, endpoint(chat, http), jobs, events.append)
        reviewer.on_call_over(CALL, lines("Bye."), {})
    assert events == []
    assert jobs.unfinished == 1
