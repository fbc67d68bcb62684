"""Runs the rules that apply to a text, side by side, each within its deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Final

from app.agents.agent import Agent
from app.agents.guardrails.rules import (
    MAX_REASON_CHARS,
    MAX_TEXT_CHARS,
    Allow,
    CheckGuardrail,
    Guardrail,
    GuardrailContext,
    GuardrailResult,
    RuleResult,
    Stop,
    Verdict,
    Warn,
    read_verdict,
)
from app.agents.instructions import CallFacts
from app.agents.llm.question import Ask
from app.errors import AppError, ConfigError, FunctionFailed
from app.events import Party
from app.threads import Slots, in_own_task, run_function

__all__ = ["GuardrailRunner", "check_guardrails"]

logger = logging.getLogger(__name__)


class GuardrailRunner:
    """The rules of an agent. `check` never raises; only cancellation gets through."""

    def __init__(self, rules: Iterable[Guardrail] = ()) -> None:
        """Raises ConfigError for two rules of one name."""
        self._rules = tuple(rules)
        names = [rule.name for rule in self._rules]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigError(f"two guardrails are called {sorted(twice)[0]!r}")

    async def check(self, side: Party, text: str, context: GuardrailContext) -> GuardrailResult:
        """Ask all rules of a side at once; a stop does not wait for slower rules."""
        rules = [rule for rule in self._rules if rule.side is side]
        if not rules:
            return GuardrailResult()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_check_rule(rule, text, context)) for rule in rules]
            for result in asyncio.as_completed(tasks):
                if isinstance((await result).verdict, Stop):
                    break
            for task in tasks:
                task.cancel()
        return _strictest([task.result() for task in tasks if not task.cancelled()])


_SLOTS: Final = Slots(16)
"""For checks that are not async functions: they would hold up the sound of all calls."""


async def _check_rule(rule: Guardrail, text: str, context: GuardrailContext) -> RuleResult:
    began = time.monotonic()
    code = ""
    deadline = asyncio.timeout(rule.timeout_ms / 1000)
    verdict: Verdict = Allow()
    try:
        if len(text) > MAX_TEXT_CHARS:
            raise AppError("the text is too long to check", code="text_too_long")
        async with deadline:
            check = partial(run_function, rule.check, _SLOTS, text, context)
            verdict = read_verdict(await in_own_task(check))
    except TimeoutError as error:
        code = _report(rule, error, "timeout" if deadline.expired() else "failed")
    except FunctionFailed as error:
        code = _report(rule, error.__cause__ or error, error.code)
    except AppError as error:
        code = _report(rule, error, error.code)
    except Exception as error:
        code = _report(rule, error, "failed")
    if code:
        verdict = rule.failed(code)
    duration_ms = round((time.monotonic() - began) * 1000)
    return RuleResult(rule=rule.name, verdict=verdict, duration_ms=duration_ms, error=code)


def _report(rule: Guardrail, error: BaseException, code: str) -> str:
    logger.warning(
        "guardrail check failed",
        extra={
            "guardrail": rule.name,
            "error": code,
            "error_type": type(error).__name__,
            "fail_open": rule.fail_open,
            "pii.detail": str(error)[:MAX_REASON_CHARS],
        },
    )
    return code


def _strictest(results: list[RuleResult]) -> GuardrailResult:
    worst = RuleResult(rule="", verdict=Allow(), duration_ms=0)
    for result in results:
        if _strictness(result.verdict) > _strictness(worst.verdict):
            worst = result
    return GuardrailResult(verdict=worst.verdict, rule=worst.rule, results=tuple(results))


def _strictness(verdict: Verdict) -> int:
    return 2 if isinstance(verdict, Stop) else int(isinstance(verdict, Warn))


async def check_guardrails(
    check: CheckGuardrail, agent: Agent | None, facts: CallFacts, ask: Ask | None = None
) -> GuardrailResult:
    """Check a text; `ask` reaches a model for the rules that need one. Never raises."""
    if agent is None:  # taken out of the conversation meanwhile
        return GuardrailResult()
    context = GuardrailContext(
        call_id=facts.call_id,
        item_id=check.item_id,
        agent=agent.name,
        final=check.final,
        variables=facts.declared(agent.variables),
        ask=ask,
    )
    return await GuardrailRunner(agent.guardrails).check(check.side, check.text, context)
