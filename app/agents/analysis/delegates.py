"""Delegates: a webhook or a tool that does a task for the agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from app.agents.tools.invocation import ToolInvoker
from app.agents.tools.tool import ToolContext
from app.errors import ToolFailed
from app.events import TaskRequest
from app.http.signed_webhook import Message, Webhook
from app.json_text import parse_json

__all__ = ["Delegate", "ToolDelegate", "WebhookDelegate"]


class Delegate(Protocol):
    """An outside agent that does tasks."""

    async def run(self, task: TaskRequest) -> str:
        """Do a task and return the answer, which may be empty.

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
            answer = parse_json(text)
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

    The call goes through the call's own `ToolInvoker`, so that its limits and approvals hold here
    too.
    """

    def __init__(
        self,
        invoker: ToolInvoker,
        tool: str,
        context: Callable[[str], ToolContext],
        *,
        argument: str = "task",
    ) -> None:
        """`context` makes the facts of the call, with the given id as the tool call's."""
        self._invoker = invoker
        self._tool = tool
        self._context = context
        self._argument = argument

    async def run(self, task: TaskRequest) -> str:
        arguments = json.dumps({self._argument: task.text})
        result = await self._invoker.invoke(self._tool, arguments, self._context(task.key))
        if result.error:
            raise ToolFailed("The tool did not do the task.", code=result.error)
        return result.output
