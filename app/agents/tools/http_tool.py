"""Tools that are HTTP requests: sends them, and picks the model's part of the answer.

`app.agents.tools.http_template` reads the description, and `app.http.client` guards the addresses.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from app.agents.tools.http_template import HttpToolSpec, RequestTemplate
from app.agents.tools.tool import Tool, ToolContext
from app.errors import ToolError, ToolFailed
from app.http.client import Fetched, Outgoing, SafeHttp
from app.json_text import parse_json
from app.retry import parse_retry_after, retry

__all__ = ["HttpToolSpec", "http_tool", "point"]


logger = logging.getLogger(__name__)

_WORTH_A_RETRY: Final = frozenset((429, 502, 503, 504))
_FIRST_DELAY_S: Final = 0.2
_MAX_DELAY_S: Final = 5.0  # a caller waits


def http_tool(spec: HttpToolSpec, http: SafeHttp) -> Tool:
    """Make a tool of a spec; requests go through `http`, which the caller closes.

    Raises:
        ConfigError: the message names the tool and the field.
    """
    request = RequestTemplate(spec)

    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
        outgoing = request.fill(context, arguments)
        return _result(spec, await _fetch(spec, http, outgoing))

    return Tool(
        name=spec.name,
        description=spec.description,
        parameters=request.parameters,
        run=run,
        timeout_ms=spec.timeout_ms,
        filler=spec.filler,
        filler_after_ms=spec.filler_after_ms,
        approval=spec.approval,
        verified_caller=spec.verified_caller,
        reply=spec.reply,
        max_output_chars=spec.max_output_chars,
    )


class _ForNow(ToolFailed):
    """The service answered that another try may succeed."""

    retryable = True

    def __init__(self, fetched: Fetched) -> None:
        retry_after_s = parse_retry_after(fetched.headers.get("retry-after"))
        super().__init__(f"The service answered {fetched.status}.", retry_after_s=retry_after_s)
        self.fetched = fetched


async def _fetch(spec: HttpToolSpec, http: SafeHttp, outgoing: Outgoing) -> Fetched:
    """Send the request, again where that does no harm; the tool's timeout covers all of it."""

    async def attempt() -> Fetched:
        fetched = await http.fetch(outgoing)
        if fetched.status in _WORTH_A_RETRY:
            raise _ForNow(fetched)
        return fetched

    try:
        return await retry(
            attempt,
            attempts=spec.retries + 1,
            first_delay_s=_FIRST_DELAY_S,
            max_delay_s=_MAX_DELAY_S,
        )
    except _ForNow as error:
        return error.fetched
    except ToolError as error:
        logger.warning(
            "http tool got no answer",
            extra={
                "tool": spec.name,
                "error": error.code,
                "error_type": type(error.__cause__ or error).__name__,
                # Not the whole address: arguments of the model may stand in it.
                "host": _host(outgoing.url),
            },
        )
        raise


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return ""


# Answers ------------------------------------------------------------------------------------------


def _result(spec: HttpToolSpec, fetched: Fetched) -> Any:
    if fetched.status >= 400:
        logger.warning(
            "http tool was answered with an error",
            extra={"tool": spec.name, "status": fetched.status},
        )
        if spec.error_body and fetched.status < 500:
            return {"status": fetched.status, "answer": _decoded(fetched, must_be_json=False)}
        raise ToolFailed(f"The service answered {fetched.status}.", code="http_error")
    if not fetched.body:
        return {"status": fetched.status}
    return point(_decoded(fetched, must_be_json=bool(spec.result)), spec.result)


def _decoded(fetched: Fetched, *, must_be_json: bool) -> Any:
    if must_be_json or "json" in fetched.headers.get("content-type", "").lower():
        try:
            return parse_json(fetched.body)
        except (ValueError, RecursionError) as error:
            raise ToolFailed(
                "The service's answer is not JSON.", code="response_invalid"
            ) from error
    return fetched.body.decode("utf-8", "replace")


def point(value: Any, pointer: str) -> Any:
    """The part of a JSON value that a JSON pointer names (RFC 6901).

    Raises:
        ToolFailed: there is no such part.
    """
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,6}", key):
            if int(key) >= len(value):
                raise _missing(pointer)
            value = value[int(key)]
        else:
            raise _missing(pointer)
    return value


def _missing(pointer: str) -> ToolFailed:
    return ToolFailed(f"The service's answer has no {pointer}.", code="response_invalid")
