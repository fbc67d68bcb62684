"""The requests of HTTP tools, and mistakes in their descriptions and arguments."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agents.tools.http_template import HttpToolSpec, RequestTemplate
from app.agents.tools.http_tool import point
from app.agents.tools.tool import ToolContext
from app.errors import ConfigError, ToolArgsInvalid, ToolFailed
from app.events import CallId

CONTEXT = ToolContext(
    call_id=CallId("c1"),
    tool_call_id="t1",
    agent="reception",
    caller_number="+15550100",
    variables={"plan": "gold & more"},
)
TEXT = {"type": "string"}


def spec(
    url: str, *names: str, required: tuple[str, ...] | None = None, **more: Any
) -> HttpToolSpec:
    parameters = {
        "type": "object",
        "properties": dict.fromkeys(names, TEXT),
        "required": list(names if required is None else required),
    }
    return HttpToolSpec(
        name="ask", description="Asks.", url=url, **{"parameters": parameters, **more}
    )


def url_of(made: HttpToolSpec, **arguments: Any) -> str:
    return RequestTemplate(made).fill(CONTEXT, arguments).url


def body_of(made: HttpToolSpec, **arguments: Any) -> Any:
    content = RequestTemplate(made).fill(CONTEXT, arguments).content
    assert content is not None
    return json.loads(content)


# Filling ------------------------------------------------------------------------------------------


def test_arguments_fill_the_path_and_the_query_encoded() -> None:
    made = spec("https://api.example/v1/{kind}s/no-{id}?q={text}&fixed=1", "kind", "id", "text")
    assert (
        url_of(made, kind="ord er", id="ü&?#", text="a=b&c=d#e+f g")
        == "https://api.example/v1/ord%20ers/no-%C3%BC%26%3F%23?q=a%3Db%26c%3Dd%23e%2Bf%20g&fixed=1"
    )


def test_a_pair_of_the_query_without_its_argument_is_left_out() -> None:
    made = spec("https://api.example/?a={a}&b={b}&c=1", "a", "b", required=())
    assert url_of(made, b="x") == "https://api.example/?b=x&c=1"
    assert url_of(made, a=None) == "https://api.example/?c=1"
    assert url_of(spec("https://api.example/?a={a}", "a", required=())) == "https://api.example/"


def test_a_list_repeats_its_pair() -> None:
    assert url_of(spec("https://api.example/?id={ids}", "ids"), ids=["a b", 2]) == (
        "https://api.example/?id=a%20b&id=2"
    )


def test_facts_of_the_call_come_from_the_context() -> None:
    made = spec("https://api.example/{context.caller_number}?p={context.variables.plan}")
    assert url_of(made) == "https://api.example/%2B15550100?p=gold%20%26%20more"


def test_an_unknown_caller_number_cannot_fill_a_path() -> None:
    request = RequestTemplate(spec("https://api.example/by/{context.caller_number}/orders"))
    with pytest.raises(ToolArgsInvalid):
        request.fill(ToolContext(call_id=CallId("c"), tool_call_id="t"), {})


@pytest.mark.parametrize(
    "value", ["", ".", "..", "...", "a/b", "../admin", "a\\b", "a\0", "a\r\nb"]
)
def test_an_argument_cannot_leave_its_segment_of_the_path(value: str) -> None:
    with pytest.raises(ToolArgsInvalid):
        url_of(spec("https://api.example/orders/{id}", "id"), id=value)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_argument_changes_the_host_or_the_path(name: str, query: str) -> None:
    made = spec("https://api.example/orders/{id}/items?q={q}", "id", "q")
    try:
        url = url_of(made, id=name, q=query)
    except ToolArgsInvalid:
        return
    parsed = httpx2.URL(url)
    assert (parsed.scheme, parsed.host, parsed.port) == ("https", "api.example", None)
    path = parsed.raw_path.decode().partition("?")[0].split("/")
    assert len(path) == 4
    assert (path[1], path[3]) == ("orders", "items")
    assert unquote(path[2]) == name
    assert parse_qsl(urlsplit(url).query, keep_blank_values=True) == [("q", query)]


def test_without_a_body_a_post_sends_the_arguments_that_its_url_does_not_use() -> None:
    made = spec("https://api.example/{id}", "id", "name", "note", required=("id",), method="POST")
    assert body_of(made, id="7", name="Ada") == {"name": "Ada"}


def test_a_body_takes_arguments_with_their_types_and_leaves_out_what_is_absent() -> None:
    body = {
        "who": {"phone": "{context.caller_number}", "name": "Dear {name}"},
        "places": "{places}",
        "tags": ["fixed", "{tag}"],
        "note": "{note}",
        "paid": False,
    }
    names = ("name", "places", "tag", "note")
    made = spec("https://api.example/", *names, method="POST", body=body)
    assert body_of(made, name='"A"', places=[2, {"x": 1}]) == {
        "who": {"phone": "+15550100", "name": 'Dear "A"'},
        "places": [2, {"x": 1}],
        "tags": ["fixed"],
        "paid": False,
    }


def test_an_object_cannot_stand_within_a_text() -> None:
    with pytest.raises(ToolArgsInvalid):
        url_of(spec("https://api.example/{id}", "id"), id={"a": 1})


def test_only_requests_that_change_something_carry_the_idempotency_key() -> None:
    url = "https://api.example/"
    sent = RequestTemplate(spec(url, method="POST", headers={"X-Key": "s"})).fill(CONTEXT, {})
    assert sent.headers["Idempotency-Key"] == CONTEXT.idempotency_key
    assert sent.headers["X-Key"] == "s"
    asked = RequestTemplate(spec(url)).fill(CONTEXT, {})
    assert "Idempotency-Key" not in asked.headers
    assert asked.content is None


def test_secrets_do_not_show_in_a_spec_or_a_request() -> None:
    made = spec("https://api.example/", headers={"Authorization": "Bearer sk-12345"})
    assert "sk-12345" not in repr(made)
    assert "sk-12345" not in repr(RequestTemplate(made).fill(CONTEXT, {}))


# Refused at the start -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (spec("https://{host}.example/", "host"), "path and the query only"),
        (spec("{base}/x", "base"), "only https"),
        (spec("https://api.example:{port}/", "port"), "path and the query only"),
        (spec("https://api.example/{id}"), "neither a parameter"),
        (spec("https://api.example/{context.secret}"), "neither a parameter"),
        (spec("https://api.example/{other.call_id}"), "neither a parameter"),
        (spec("https://api.example/{id}", "id", required=()), "must be required"),
        (spec("https://api.example/?{name}=1", "name"), "cannot name a query"),
        (spec("https://api.example/#{id}", "id"), "fragment"),
        (spec("https://api.example/", "id"), "makes no use of 'id'"),
        (spec("https://api.example/", "context.caller_number"), "not a valid name of a parameter"),
        (spec("https://api.example/", method="TRACE"), "TRACE"),
        (spec("https://api.example/", body={"a": 1}), "takes no body"),
        (
            spec("https://api.example/", method="POST", retries=1, idempotency_header=None),
            "retried",
        ),
        (spec("https://api.example/", retries=99), "between 0 and 5"),
        (spec("https://api.example/", result="items"), "JSON pointer"),
        (spec("https://api.example/", headers={"Host": "x"}), "cannot be set"),
        (spec("https://api.example/", headers={"A B": "x"}), "cannot be set"),
        (spec("https://api.example/", headers={"A": "x\r\nB: y"}), "not plain"),
        (spec("http://api.example/"), "must be https"),
        (spec("https://10.0.0.5/"), "not a public one"),
        (spec("https://0x7f.1/"), "in disguise"),
        (spec("https://me:pw@api.example/"), "user name"),
        (spec("https://[/"), "cannot be read"),
        (spec("https://api.example/", required=("day",)), "'day' is required and none of the"),
    ],
)
def test_a_wrong_description_is_refused_when_it_is_read(made: HttpToolSpec, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        RequestTemplate(made)
    assert "tool ask" in caught.value.message
    assert "pw@" not in caught.value.message


def test_parameters_are_closed_so_that_no_argument_replaces_a_fact() -> None:
    assert RequestTemplate(spec("https://api.example/")).parameters["additionalProperties"] is False
    open_to_all = {"type": "object", "properties": {}, "additionalProperties": True}
    made = spec("https://api.example/{context.caller_number}", parameters=open_to_all)
    # Even an operator who opens the schema does not let the model choose who calls.
    slipped = RequestTemplate(made).fill(CONTEXT, {"context.caller_number": "+1999"})
    assert slipped.url == "https://api.example/%2B15550100"


# Answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pointer", "part"),
    [
        ("", {"a": [{"b/c": 1}, None], "": 2}),
        ("/a/0/b~1c", 1),
        ("/a/1", None),
        ("/", 2),
    ],
)
def test_a_pointer_names_a_part(pointer: str, part: Any) -> None:
    assert point({"a": [{"b/c": 1}, None], "": 2}, pointer) == part


@pytest.mark.parametrize("pointer", ["/b", "/a/2", "/a/-", "/a/00", "/a/0/x/y"])
def test_a_pointer_to_a_missing_part_is_an_invalid_answer(pointer: str) -> None:
    with pytest.raises(ToolFailed, match="has no"):
        point({"a": [1, 2]}, pointer)
