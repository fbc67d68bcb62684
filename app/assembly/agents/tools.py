"""Makes tools, and the specs of MCP servers, of what the settings say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.agents.roster import Roster
from app.agents.tools.call_control import CALL_TOOLS, DO_NOT_CALL, END_CALL
from app.agents.tools.http_template import HttpToolSpec
from app.agents.tools.http_tool import http_tool
from app.agents.tools.mcp import missing_package
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.tool import Approval, Tool, run_in_process, tool
from app.assembly.agents.python_functions import find_function
from app.assembly.problems import Problems, agent_place
from app.credentials.api_keys import ApiKeys, Scope
from app.errors import ConfigError, ToolFailed
from app.http.addresses import check_url
from app.http.client import SafeHttp
from app.installation import command
from app.settings import McpServerSettings, Mode, Settings, ToolSettings
from app.settings.sections.tools import HttpToolSettings

__all__ = ["make_mcp_specs", "make_tools", "session_tools"]


def session_tools(
    named: Iterable[str] = (), *, outbound: bool = False
) -> tuple[Mapping[str, Any], ...]:
    """Tools that the call runs itself: end_call for every agent, others by name.

    `outbound`: the server places calls, so that every agent can end them for good.
    """
    wanted = dict.fromkeys((END_CALL, *((DO_NOT_CALL,) if outbound else ()), *named))
    return tuple(CALL_TOOLS[name] for name in wanted if name in CALL_TOOLS)


def make_tools(settings: Settings, http: SafeHttp, problems: Problems) -> dict[str, Tool]:
    """The tools by name; those with problems are left out."""
    tools: dict[str, Tool] = {}
    for name, written in settings.tools.items():
        with problems.at("tools", name, prefix=f"tool {name}: "):
            if written.http is not None:
                tools[name] = _http_tool(name, written, written.http, http)
            else:
                place = ("tools", name, "python")
                with problems.at(*place, prefix=f"tool {name}: "):
                    tools[name] = _python_tool(name, written, settings.origin.folder)
    return tools


def _python_tool(name: str, written: ToolSettings, folder: Path | None) -> Tool:
    found = find_function(written.python or "", folder)
    options = _options(written)
    if isinstance(found, Tool):  # made with @tool: what the settings say goes before it
        made = replace(found, name=name, **options)
    else:
        description = options.pop("description", None)
        made = tool(name=name, description=description, **options)(found)
    return run_in_process(made) if written.run_in == "process" else made


def _http_tool(name: str, written: ToolSettings, request: HttpToolSettings, http: SafeHttp) -> Tool:
    spec = HttpToolSpec(
        name=name,
        description=written.description or "",
        url=request.url,
        method=request.method,
        headers={key: value.get_secret_value() for key, value in request.headers.items()},
        body=request.body,
        result=request.result,
        error_body=request.error_body,
        retries=request.retries,
        idempotency_header=request.idempotency_header,
        response_max_bytes=request.response_max_bytes,
        allow_private=request.allow_private,
        follow_redirects=request.follow_redirects,
    )
    if request.parameters is not None:
        spec = replace(spec, parameters=request.parameters)
    if written.timeout_ms is not None:
        spec = replace(spec, timeout_ms=written.timeout_ms)  # the request's as well as the tool's
    return replace(http_tool(spec, http), **_options(written))


def _options(written: ToolSettings) -> dict[str, Any]:
    """The fields of `Tool` that are given; an empty filler takes away that of the function."""
    options: dict[str, Any] = {
        "description": written.description,
        "timeout_ms": written.timeout_ms,
        "filler": written.filler,
        "filler_after_ms": written.filler_after_ms,
        "approval": written.approval,
        "verified_caller": written.verified_caller,
        "reply": written.reply,
        "interruptible": written.interruptible,
        "max_output_chars": written.max_output_chars,
        "max_concurrency": written.max_concurrency,
    }
    given = {key: value for key, value in options.items() if value is not None}
    if "filler" in written.model_fields_set:
        given["filler"] = written.filler
    return given


# Approvals ----------------------------------------------------------------------------------------


def approval_notices(settings: Settings, roster: Roster) -> list[str]:
    """Tools that wait for an operator where nobody may be one."""
    if settings.mode is not Mode.LIVE or settings.server.operator_token is not None:
        return []
    try:
        keys = ApiKeys(settings.state_dir).listed()
    except ConfigError:  # nobody gets in, which the start reports
        keys = []
    # Without any key, the start makes the first one, which may do everything.
    if not keys or any(key.scope.covers(Scope.OPERATOR) and not key.revoked_at for key in keys):
        return []
    place = settings.origin.place
    waiting = [
        place("tools", tool.name, "approval")
        if tool.name in settings.tools
        else f"{agent_place(settings, agent.name)}: tool {tool.name!r}"
        for agent in roster
        for tool in agent.tools
        if tool.approval is Approval.OPERATOR
    ]
    waiting += [
        place("mcp_servers", name, "approval")
        for name, server in settings.mcp_servers.items()
        if server.approval == Approval.OPERATOR.value
    ]
    cure = f"set OPERATOR_TOKEN, or run {command()} keys create NAME --scope operator"
    return [
        f"{where}: waits for an operator, and nobody may be one: {cure}"
        for where in dict.fromkeys(waiting)
    ]


# MCP servers --------------------------------------------------------------------------------------


def make_mcp_specs(settings: Settings, problems: Problems) -> tuple[McpServerSpec, ...]:
    """The specs for connecting to the servers; nothing is connected yet."""
    specs = []
    if settings.mcp_servers and (missing := missing_package()):
        problems.add(("mcp_servers",), missing)
    for name, written in settings.mcp_servers.items():
        with problems.at("mcp_servers", name, prefix=f"mcp server {name}: "):
            specs.append(_mcp_spec(name, written))
    return tuple(specs)


def _mcp_spec(name: str, written: McpServerSettings) -> McpServerSpec:
    if written.url is not None:
        try:
            check_url(written.url, allow_private=written.allow_private)
        except ToolFailed as error:
            raise ConfigError(f"url: {error.message}") from error
    return McpServerSpec(
        name=name,
        transport="stdio" if written.url is None else "http",
        url=written.url or "",
        headers={key: value.get_secret_value() for key, value in written.headers.items()},
        command=written.command or "",
        args=written.args,
        env={key: value.get_secret_value() for key, value in written.env.items()},
        allowed_tools=written.allowed_tools,
        timeout_ms=written.timeout_ms,
        connect_timeout_ms=written.connect_timeout_ms,
        allow_private=written.allow_private,
        filler=written.filler,
        approval=Approval(written.approval),
        max_output_chars=written.max_output_chars,
    )
