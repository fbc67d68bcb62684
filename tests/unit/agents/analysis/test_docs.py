"""The examples and figures of docs/agents.md that are about guardrails and the brain."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from app.agents.analysis.analyzer import AnalyzerLimits
from app.agents.guardrails.rules import (
    DEBOUNCE_CHARS,
    Guardrail,
    model_guardrail,
)
from app.agents.guardrails.runner import GuardrailRunner
from app.background import BackgroundJobs
from app.calls.keypad.digits import DigitRequest
from app.calls.keypad.menu import MenuPlan
from app.calls.media.false_interruption import FalseInterruption
from app.calls.policy import (
    InactivityTexts,
    ProductivityRules,
)
from app.calls.turns.inactivity import InactivityPrompts
from app.calls.turns.presets import PRESETS
from app.http.webhook import (
    TOLERANCE_S,
    WebhookSpec,
)

TEXT = (Path(__file__).parents[4] / "docs" / "agents.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return re.split(r"^## ", TEXT.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


async def run(title: str) -> dict[str, Any]:
    [source] = re.findall(r"```python\n(.*?)```", section(title), re.DOTALL)
    code = compile(source, title, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {}
    done = eval(code, names)
    if inspect.isawaitable(done):
        await done
    return names


async def test_the_guardrails_of_the_document_work() -> None:
    runner = GuardrailRunner((await run("Guardrails"))["rules"])
    assert all(runner.watches(rule.side) for rule in runner._rules)


async def test_the_brain_of_the_document_can_be_made() -> None:
    names = await run("Brain")
    assert names["brain"].analysis.intent == ""
    assert len(names["errands"]) == 0


def default(owner: Any, name: str) -> Any:
    return inspect.signature(owner).parameters[name].default


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Guardrails", f"every {DEBOUNCE_CHARS} characters"),
        ("Guardrails", f"`timeout_ms`: {default(Guardrail, 'timeout_ms')}, for a model "
                       f"{default(model_guardrail, 'timeout_ms')}"),
        ("Brain", f"at most {AnalyzerLimits().max_tasks} in all"),
        ("Brain", f"with {AnalyzerLimits().task_timeout_ms // 1000} seconds"),
        ("Brain", f"{default(WebhookSpec, 'attempts')} attempts in all"),
        ("Brain", f"at most {default(BackgroundJobs, 'max_waiting')} at a time"),
        ("Brain", f"{default(BackgroundJobs, 'grace_ms') // 1000} seconds, and what is lost"),
        ("Keypad, silence, opening hours", f"when {default(MenuPlan, 'timeout_ms') // 1000} s"),
        ("Keypad, silence, opening hours", f"a pause of {DigitRequest().between_ms // 1000} s"),
        ("Keypad, silence, opening hours", f"first digit has {DigitRequest().first_ms // 1000} s"),
        (
            "Keypad, silence, opening hours",
            f"After {default(InactivityPrompts, 'after_ms') // 1000} s",
        ),
        ("Keypad, silence, opening hours",
         f"within {default(FalseInterruption, 'false_interruption_ms') // 1000} seconds"),
    ],
)  # fmt: skip
def test_the_figures_of_the_document_are_the_codes(title: str, words: str) -> None:
    assert words in " ".join(section(title).split())


def test_the_figures_that_the_document_writes_as_words() -> None:
    text = " ".join(section("Keypad, silence, opening hours").split())
    assert default(MenuPlan, "tries") == 3
    assert "after three tries" in text
    rules = ProductivityRules()
    assert (rules.max_turns, rules.max_wordless_ms) == (6, 180_000)
    assert "Six turns in a row" in text
    assert "three minutes of such turns" in text
    assert len(InactivityTexts().prompts) == 2
    assert "then once more; then it says goodbye" in text
    assert TOLERANCE_S == 5 * 60


def test_the_presets_of_the_document_are_the_codes() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*) \|$", section("Keypad, silence, opening hours"), re.M)
    )
    assert rows == {
        name: f"{chosen.vad.threshold} | {chosen.vad.silence_duration_ms} ms | "
        f"`{chosen.noise_reduction}` | " + ("yes" if chosen.echo_guard else "no")
        for name, chosen in PRESETS.items()
    }
