"""Sixty function calls of a model that was talked into anything: none has an effect.

`data/hostile_tools.jsonl` holds them: what the model calls, and the code that it is answered with.
A long text is a list of pieces, each with how often it is repeated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from app.agents.tools.http_tool import HttpToolSpec, http_tool
from app.agents.tools.invocation import ApprovalRequest, ToolInvoker
from app.agents.tools.tool import Tool, ToolContext, tool
from app.events import CallId
from app.http.client import SafeHttp
from tests.fakes.web_service import WebService, answer

BUDGET = 50
PATH = Path(__file__).parent / "data" / "hostile_tools.jsonl"
ATTACKS = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]


def spelled(text: str | list[tuple[str, int]]) -> str:
    return text if isinstance(text, str) else "".join(piece * times for piece, times in text)


def make_tools(
    crm: WebService, http: SafeHttp, effects: list[str], lookups: list[str]
) -> list[Tool]:
    @tool(verified_caller=True)
    async def read_balance(context: ToolContext, account: Literal["savings", "current"]) -> str:
        """Read the balance of the caller's own account."""
        effects.append(f"{account} of {context.caller_number}")
        return "100.00"

    @tool(approval="operator")
    def refund(amount_cents: Annotated[int, Field(gt=0, le=5_000)]) -> str:
        """Pay money back to the caller."""
        effects.append(f"paid {amount_cents}")
        return "paid"

    @tool
    def look_up(word: str) -> str:
        """Look a word up; without any effect."""
        lookups.append(word)
        return word

    ask_crm = http_tool(
        HttpToolSpec(
            name="ask_crm",
            description="Read a customer.",
            url=f"{crm.url}/customers/{{customer_id}}",
            headers={"Authorization": "Bearer secret"},
            parameters={
                "type": "object",
                "properties": {"customer_id": {"type": "string"}},
                "required": ["customer_id"],
            },
            allow_private=True,
        ),
        http,
    )
    return [read_balance, refund, look_up, ask_crm]


async def deny(_: ApprovalRequest) -> bool:
    return False


def context(number: int, *, verified: bool = False) -> ToolContext:
    return ToolContext(
        call_id=CallId("CA1"),
        tool_call_id=f"call_{number}",
        caller_number="+15550100",
        caller_verified=verified,
    )


def test_there_are_sixty_different_attacks() -> None:
    assert len({(spelled(a["name"]), spelled(a["arguments"])) for a in ATTACKS}) == 60


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack["why"] for attack in ATTACKS])
async def test_a_hostile_call_has_no_effect_and_is_answered(attack: dict[str, Any]) -> None:
    effects: list[str] = []
    lookups: list[str] = []
    times = attack.get("times", 1)
    name, arguments = spelled(attack["name"]), spelled(attack["arguments"])
    async with WebService(answer(b"{}")) as crm, SafeHttp() as http:
        tools = make_tools(crm, http, effects, lookups)
        box = ToolInvoker(tools, max_calls_per_call=BUDGET, approver=deny)
        for number in range(times):
            result = await box.invoke(name, arguments, context(number))
        assert effects == []
        assert crm.connections == 0
        assert len(lookups) <= BUDGET
    assert result.error == attack["error"]
    told = json.loads(result.output)
    assert told["code"] == attack["error"]
    assert len(result.output) < 1_000
    assert "secret" not in result.output


async def test_the_same_tools_work_for_an_allowed_caller() -> None:
    effects: list[str] = []
    lookups: list[str] = []

    async def approve(_: ApprovalRequest) -> bool:
        return True

    async with WebService(answer(b'{"name": "Ada"}')) as crm, SafeHttp() as http:
        box = ToolInvoker(make_tools(crm, http, effects, lookups), approver=approve)
        calls = [
            ("read_balance", '{"account": "savings"}'),
            ("refund", '{"amount_cents": 500}'),
            ("look_up", '{"word": "salon"}'),
            ("ask_crm", '{"customer_id": "7"}'),
        ]
        for number, (name, arguments) in enumerate(calls):
            result = await box.invoke(name, arguments, context(number, verified=True))
            assert result.error == ""
        assert effects == ["savings of +15550100", "paid 500"]
        assert lookups == ["salon"]
        assert [asked.target for asked in crm.asked] == ["/customers/7"]


async def test_a_flood_spends_the_budget_and_the_call_goes_on() -> None:
    lookups: list[str] = []
    async with WebService(answer(b"{}")) as crm, SafeHttp() as http:
        box = ToolInvoker(make_tools(crm, http, [], lookups), max_calls_per_call=BUDGET)
        results = [
            await box.invoke("look_up", '{"word": "x"}', context(number)) for number in range(1_000)
        ]
    assert len(lookups) == BUDGET
    assert [result.error for result in results] == [""] * BUDGET + ["tool_budget_spent"] * 950
