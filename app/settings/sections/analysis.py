"""The settings of the analysis of calls."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from app.settings.values import Blank, Name, OptionalSecret, Secret, Section, Text

__all__ = ["AnalysisSettings", "ChatSettings", "ReviewSettings", "WebhookSettings"]


Timeout = Annotated[int, Field(ge=100, le=300_000)]


class ChatSettings(Section):
    """Any endpoint that speaks OpenAI's chat completions."""

    base_url: Text
    model: Name
    api_key: OptionalSecret = None
    timeout_ms: Timeout = 8_000
    json_mode: Literal["json_schema", "json_object", "none"] = "json_schema"
    allow_private: bool = False


class ReviewSettings(Section):
    """The review of a call that is over."""

    json_schema: dict[str, Any] | None = None
    instructions: str = ""


class WebhookSettings(Section):
    """A receiver of signed messages (Standard Webhooks)."""

    url: Text
    secret: Secret
    timeout_ms: Timeout = 10_000
    attempts: int = Field(default=5, ge=1, le=10)
    allow_private: bool = False


class AnalysisSettings(Section):
    """Analysis of each turn, tasks for other systems, and a review after the call."""

    endpoint: ChatSettings | None = None
    instructions: str = ""
    intents: tuple[Name, ...] = ()
    entities: tuple[Name, ...] = ()
    tasks: tuple[Name, ...] = ()
    task_tool: Annotated[Name | None, Blank] = None
    task_argument: Name = "task"
    max_tasks: int = Field(default=5, ge=0, le=100)
    turn_timeout_ms: Timeout = 10_000
    task_timeout_ms: Timeout = 60_000
    review: ReviewSettings | None = None
    webhook: WebhookSettings | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        unknown = [name for name in self.tasks if name not in self.intents]
        if unknown:
            raise ValueError(f"tasks names {unknown[0]!r}, which is none of the intents")
        if self.tasks and self.task_tool is None and self.webhook is None:
            raise ValueError("tasks need a task_tool or a webhook that does them")
        if self.review is not None and self.endpoint is None:
            # The voice connection is gone when the call is over: no other model can be asked.
            raise ValueError("review needs an endpoint: the voice model is gone after the call")
        if self.review is not None and self.webhook is None:
            raise ValueError("review needs a webhook, which gets it")
        return self
