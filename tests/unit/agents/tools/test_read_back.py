"""Spelled values are checked, and confirmed in another way each time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.agents.tools.invocation import ToolInvoker
from app.agents.tools.read_back import KINDS, check_entry, read_back_tool, spelled
from app.agents.tools.tool import ToolContext
from app.errors import ToolArgsInvalid
from app.events import CallId


@pytest.mark.parametrize(
    ("kind", "said", "value"),
    [
        ("email", "Jo.Smith@Example.COM", "Jo.Smith@example.com"),
        ("email", "jo dot smith at example dot com", "jo.smith@example.com"),
        ("phone_number", "+1 (555) 010-0199", "+15550100199"),
        ("phone_number", "0 30 / 12 34 5", "03012345"),
        ("code", "ab-12 c", "AB12C"),
        ("date", "2026-02-28", "2026-02-28"),
        ("name", "  Ana  Luísa ", "Ana Luísa"),
    ],
)
def test_a_valid_value_gets_its_usual_form(kind: str, said: str, value: str) -> None:
    assert check_entry(kind, said) == value


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("email", "jo.smith"),
        ("email", "jo@example"),
        ("email", "jo@@example.com"),
        ("email", "jo@example.com, jane@example.com"),
        ("phone_number", "1234"),
        ("phone_number", "1" * 16),
        ("phone_number", "555-CALL"),
        ("code", "a"),
        ("code", "a?b"),
        ("date", "2026-02-30"),
        ("date", "next Friday"),
        ("name", "12"),
        ("name", "a\u0000b"),
    ],
)
def test_an_invalid_value_is_refused_with_the_reason(kind: str, said: str) -> None:
    with pytest.raises(ToolArgsInvalid, match="That is no"):
        check_entry(kind, said)


def test_signs_are_spelled_so_that_nobody_mishears_them() -> None:
    assert spelled("a1@x.de") == (
        "A as in Alfa, 1, at, X as in X-ray, dot, D as in Delta, E as in Echo"
    )


async def told(box: ToolInvoker, number: int, kind: str, value: str, call_id: str = "c") -> Any:
    context = ToolContext(call_id=CallId(call_id), tool_call_id=f"t{number}")
    result = await box.invoke("read_back", json.dumps({"kind": kind, "value": value}), context)
    return json.loads(result.output).get("result", result.error)


async def test_a_correction_is_read_back_more_slowly_and_then_keyed_in() -> None:
    box = ToolInvoker([read_back_tool()])
    first, second, third = [await told(box, n, "code", "B12") for n in range(3)]
    assert first["read_back"] == "B 1 2"
    assert second["read_back"] == "B as in Bravo, 1, 2"
    assert (third["read_back"], third["value"]) == ("", "B12")
    assert "collect_digits" in third["then"]


async def test_attempts_count_by_kind_and_conversation_and_not_for_what_is_refused() -> None:
    box = ToolInvoker([read_back_tool()])
    assert await told(box, 0, "email", "nonsense") == "tool_args_invalid"
    assert (await told(box, 1, "email", "jo@example.com"))["read_back"] == "jo at example dot com"
    assert "sign by sign" in (await told(box, 2, "email", "joe@example.com"))["then"]
    assert (await told(box, 3, "name", "Jo"))["read_back"] == "Jo"
    assert (await told(box, 4, "email", "jo@example.com", "other"))["read_back"].startswith("jo at")
    assert "calls back" in (await told(box, 5, "email", "jo@example.com"))["then"]


async def test_a_date_is_read_back_with_its_weekday() -> None:
    box = ToolInvoker([read_back_tool()])
    for number in range(2):
        found = await told(box, number, "date", "2026-11-27")
        assert found["read_back"] == "Friday, November 27, 2026"


def test_every_kind_is_offered() -> None:
    assert set(read_back_tool().parameters["properties"]["kind"]["enum"]) == set(KINDS)
