"""Makes guardrails of what the settings say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from app.agents.guardrails.rules import (
    Guardrail,
    GuardrailContext,
    Stop,
    Verdict,
    Warn,
    function_guardrail,
    model_guardrail,
    regex_guardrail,
)
from app.assembly.agents.python_functions import find_function
from app.assembly.problems import Problems
from app.events import Party
from app.settings import GuardrailSettings, Settings

__all__ = ["make_guardrails"]


def make_guardrails(settings: Settings, problems: Problems) -> dict[str, Guardrail]:
    """The guardrails by name; those with problems are left out."""
    rules: dict[str, Guardrail] = {}
    for name, written in settings.guardrails.items():
        with problems.at("guardrails", name, _KIND_KEYS[_kind(written)], prefix=_prefix(name)):
            rules[name] = _guardrail(name, written, settings.origin.folder)
    return rules


def _prefix(name: str) -> str:
    return f"guardrail {name}: "


_KIND_KEYS: Final = {"pattern": "pattern", "python": "python", "question": "question"}


def _kind(written: GuardrailSettings) -> str:
    if written.pattern is not None:
        return "pattern"
    return "question" if written.python is None else "python"


def _guardrail(name: str, written: GuardrailSettings, folder: Path | None) -> Guardrail:
    side = Party(written.side)
    options: dict[str, Any] = {"fail_open": written.fail == "open"}
    if written.timeout_ms is not None:
        options["timeout_ms"] = written.timeout_ms
    if written.pattern is not None:
        reason = written.reason or name.replace("_", " ").replace("-", " ")
        stops = written.action == "stop"
        verdict = Stop(written.say, reason) if stops else Warn(reason)
        return regex_guardrail(name, side, written.pattern, verdict, **options)
    if written.python is not None:
        function = find_function(written.python, folder)
        rule = function_guardrail(name, side, function, say=written.say, **options)
    else:
        rule = model_guardrail(name, side, written.question or "", say=written.say, **options)
    return _only_warning(rule) if written.action == "warn" else rule


def _only_warning(rule: Guardrail) -> Guardrail:
    """The rule as a warning: the operator hears of what it would stop, and the words pass."""

    async def check(text: str, context: GuardrailContext) -> Verdict:
        verdict = await rule.check(text, context)
        return Warn(verdict.reason) if isinstance(verdict, Stop) else verdict

    return replace(rule, check=check)
