"""The examples and figures of the documents on agents, guardrails and analysis."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from app.agents.analysis.analyzer import AnalyzerLimits
from app.agents.guardrails.rules import DEBOUNCE_CHARS, Guardrail, GuardrailContext, model_guardrail
from app.agents.guardrails.runner import GuardrailRunner
from app.agents.roster import Roster
from app.background import BackgroundJobs
from app.calls.keypad.digits import DigitRequest
from app.calls.keypad.menu import MenuPlan
from app.calls.media.false_interruption import FalseInterruption
from app.calls.policy import InactivityTexts, ProductivityRules
from app.calls.turns.inactivity import InactivityPrompts
from app.calls.turns.presets import PRESETS
from app.events import CallId
from app.http.signed_webhook import WebhookSpec

PAGES = Path(__file__).parents[4] / "docs"
RULES = ("agents.md", "Keypad, silence, opening hours")
GUARDRAILS = ("guardrails.md", "Guardrails")
ANALYSIS = ("guardrails.md", "Analysis")


def section(page: str, title: str) -> str:
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.split(r"^## ", text.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


async def run(page: str, title: str) -> dict[str, Any]:
    """The names that the code of a section makes."""
    names: dict[str, Any] = {}
    for source in re.findall(r"```python\n(.*?)```", section(page, title), re.DOTALL):
        code = compile(source, title, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, names)
        if inspect.isawaitable(done):
            await done
    return names


async def test_the_guardrails_of_the_document_work() -> None:
    rules = (await run(*GUARDRAILS))["rules"]
    runner = GuardrailRunner(rules)
    context = GuardrailContext(call_id=CallId("c"), item_id="i")
    for side in {rule.side for rule in rules}:
        assert (await runner.check(side, "Hello.", context)).results


async def test_the_analyzer_of_the_document_can_be_made() -> None:
    names = await run("python-api.md", "Analysis")
    assert names["analyzer"].analysis.intent == ""
    assert len(names["jobs"]) == 0


async def test_the_agents_tools_and_handoffs_of_the_documents_can_be_made() -> None:
    agents = await run("python-api.md", "Agents")
    assert [agent.name for agent in Roster([agents["greeter"], agents["billing"]])] == [
        "Greeter",
        "Billing Support",
    ]
    assert agents["to_billing"].agent == "Billing Support"
    assert (await run("tools.md", "Python functions"))["refund"].name == "refund"
    assert (await run("tools.md", "HTTP requests"))["find_orders"].name == "find_orders"


def default(owner: Any, name: str) -> Any:
    return inspect.signature(owner).parameters[name].default


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (GUARDRAILS, f"every {DEBOUNCE_CHARS} characters"),
        (GUARDRAILS, f"`timeout_ms`: {default(Guardrail, 'timeout_ms')}, for a model "
                       f"{default(model_guardrail, 'timeout_ms')}"),
        (ANALYSIS, f"at most {AnalyzerLimits().max_tasks} in all"),
        (ANALYSIS, f"with {AnalyzerLimits().task_timeout_ms // 1000} seconds"),
        (ANALYSIS, f"{default(WebhookSpec, 'attempts')} attempts in all"),
        (ANALYSIS, f"at most {default(BackgroundJobs, 'max_waiting')} at a time"),
        (ANALYSIS, f"{default(BackgroundJobs, 'grace_ms') // 1000} seconds, and what is lost"),
        (RULES, f"when {default(MenuPlan, 'timeout_ms') // 1000} s"),
        (RULES, f"a pause of {DigitRequest().between_ms // 1000} s"),
        (RULES, f"first digit has {DigitRequest().first_ms // 1000} s"),
        (RULES, f"After {default(InactivityPrompts, 'after_ms') // 1000} s"),
        (RULES,
         f"within {default(FalseInterruption, 'false_interruption_ms') // 1000} seconds"),
    ],
)  # fmt: skip
def test_the_figures_of_the_document_are_the_codes(place: tuple[str, str], words: str) -> None:
    assert words in " ".join(section(*place).split())


def test_the_figures_that_the_document_writes_as_words() -> None:
    text = " ".join(section(*RULES).split())
    assert default(MenuPlan, "tries") == 3
    assert "After three tries" in text
    rules = ProductivityRules()
    assert (rules.max_turns, rules.max_wordless_ms) == (6, 180_000)
    assert "Six turns in a row" in text
    assert "three minutes of such turns" in text
    assert len(InactivityTexts().prompts) == 2
    assert "then once more; then it says goodbye" in text


def test_the_presets_of_the_document_are_the_codes() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section(*RULES), re.M))
    assert rows == {
        name: f"{chosen.vad.threshold} | {chosen.vad.silence_duration_ms} ms | "
        f"`{chosen.noise_reduction}` | " + ("yes" if chosen.echo_guard else "no")
        for name, chosen in PRESETS.items()
    }
