"""Responses that leave the caller in silence count as failed."""

from __future__ import annotations

import pytest

from app.agents.dialogue.failures import ResponseFailures
from app.events import CallCounters, CallId
from app.realtime.events import ContentPart, Item, Response, ResponseStatus

SPOKEN = Item(
    type="message",
    role="assistant",
    content=(ContentPart(type="output_audio", transcript="Hello."),),
)
UNTOLD = Item(type="message", role="assistant", content=(ContentPart(type="output_audio"),))
EMPTY = Item(type="message", role="assistant")
CALL = Item(type="function_call", call_id="c", name="look_up", arguments="{}")


def ended(*output: Item, status: ResponseStatus, reason: str | None = None) -> str | None:
    """The code of the failure that it is, if any."""
    response = Response(id="r", status=status, status_reason=reason, output=output)
    failure = ResponseFailures(CallId("call_1"), CallCounters()).on_response(response, 0)
    if failure is None:
        return None
    assert failure.goes_on  # it is asked for once more
    return failure.actions[0].event.code  # type: ignore[union-attr]


@pytest.mark.parametrize("item", [SPOKEN, UNTOLD, CALL])
@pytest.mark.parametrize("status", [ResponseStatus.COMPLETED, ResponseStatus.INCOMPLETE])
def test_a_response_with_words_or_calls_has_not_failed(item: Item, status: ResponseStatus) -> None:
    assert ended(item, status=status) is None
    assert ended(EMPTY, item, status=status) is None


def test_a_response_without_output_has_failed() -> None:
    assert ended(status=ResponseStatus.COMPLETED) == "empty_response"


@pytest.mark.parametrize("output", [(), (EMPTY,)])
def test_a_response_that_was_filtered_before_its_first_word_has_failed(
    output: tuple[Item, ...],
) -> None:
    filtered = ended(*output, status=ResponseStatus.INCOMPLETE, reason="content_filter")
    assert filtered == "content_filter"


def test_a_completed_response_may_come_without_the_content_of_its_items() -> None:
    assert ended(EMPTY, status=ResponseStatus.COMPLETED) is None  # some servers do


def test_a_cancelled_response_has_not_failed() -> None:
    assert ended(status=ResponseStatus.CANCELLED, reason="turn_detected") is None
