"""The template of an HTTP tool's request: reads it once, and fills it for each call.

The model's arguments fill placeholders in the path, the query and the body, encoded, and never the
host or a header. `{name}` is an argument, `{context.caller_number}` a fact of the call that the
model cannot choose. Mistakes are a ConfigError when the tool is made. `app.agents.tools.http_tool`
sends it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from app.agents.tools.schema import closed
from app.agents.tools.tool import Approval, ToolContext
from app.errors import ConfigError, ToolArgsInvalid, ToolFailed
from app.http.addresses import check_url
from app.http.client import Outgoing

__all__ = ["HttpToolSpec", "RequestTemplate"]


_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
_WITH_BODY: Final = frozenset(("POST", "PUT", "PATCH"))
_IDEMPOTENT: Final = frozenset(("GET", "HEAD", "PUT", "DELETE"))  # RFC 9110, section 9.2.2
_OUR_HEADERS: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "accept-encoding")
)
_CONTEXT_FACTS: Final = frozenset(
    ("call_id", "agent", "caller_number", "called_number", "idempotency_key")
)

_PARAMETER = re.compile(r"[A-Za-z_][\w-]*")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w-]*(?:\.[\w-]+)*)\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_NOT_IN_A_PATH = re.compile(r"[/\\\x00-\x1f\x7f]")
_MAX_URL_CHARS: Final = 8_000

_NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpToolSpec:
    """A request that an agent may make.

    `body` is a JSON value with placeholders in its strings; without it POST, PUT and PATCH send the
    arguments that the URL does not use. A string that is only a placeholder takes the argument
    with its type. `result` is a JSON pointer to the part of the answer that the model
    gets. `error_body` gives the model the body of a 4xx answer. `allow_private` opens plain HTTP
    and private addresses.
    """

    name: str
    description: str
    url: str
    method: str = "GET"
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NO_PARAMETERS)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Any = None
    result: str = ""
    error_body: bool = False
    timeout_ms: int = 8_000
    retries: int = 0
    idempotency_header: str | None = "Idempotency-Key"
    response_max_bytes: int = 262_144
    allow_private: bool = False
    follow_redirects: bool = False
    filler: str | None = None
    filler_after_ms: int = 2_000
    approval: Approval = Approval.NONE
    verified_caller: bool = False
    reply: bool = True
    max_output_chars: int = 8_000


class RequestTemplate:
    """A checked spec, with its URL taken apart."""

    def __init__(self, spec: HttpToolSpec) -> None:
        self._spec = spec
        self._label = f"tool {spec.name}"
        self.parameters = closed(spec.parameters)
        properties = spec.parameters.get("properties", {})
        self._names = frozenset(properties)
        for name in self._names:
            if not _PARAMETER.fullmatch(name):
                raise ConfigError(f"{self._label}: {name!r} is not a valid name of a parameter")
        self._check_method()
        self._check_headers()
        try:
            parts = urlsplit(spec.url)
        except ValueError as error:
            raise ConfigError(f"{self._label}: its URL cannot be read") from error
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._path = parts.path.split("/")
        self._query = [pair for pair in parts.query.split("&") if pair]
        in_path = self._placeholders(parts.path)
        in_query = self._placeholders(parts.query)
        in_body = self._placeholders(spec.body)
        self._check_url(parts.fragment)
        required = set(spec.parameters.get("required", ()))
        for name in sorted(required - self._names):
            if self.parameters.get("additionalProperties") is False:
                raise ConfigError(
                    f"{self._label}: {name!r} is required and none of the properties: no call "
                    "could have it"
                )
        for name in in_path - required:
            if not name.startswith("context."):
                raise ConfigError(f"{self._label}: {{{name}}} in the path must be required")
        self._in_url = in_path | in_query
        sends_rest = spec.method in _WITH_BODY and spec.body is None
        unused = self._names - self._in_url - in_body
        if unused and not sends_rest:
            raise ConfigError(f"{self._label}: the request makes no use of {sorted(unused)[0]!r}")

    def _check_method(self) -> None:
        spec = self._spec
        if spec.method not in _METHODS:
            raise ConfigError(
                f"{self._label}: the method {spec.method!r} is not one that tools use"
            )
        if spec.body is not None and spec.method not in _WITH_BODY:
            raise ConfigError(f"{self._label}: {spec.method} takes no body")
        if spec.retries and spec.method not in _IDEMPOTENT and not spec.idempotency_header:
            raise ConfigError(
                f"{self._label}: {spec.method} may only be retried with an idempotency_header"
            )
        if not 0 <= spec.retries <= 5:
            raise ConfigError(f"{self._label}: retries must be between 0 and 5")
        if spec.result and not spec.result.startswith("/"):
            raise ConfigError(f"{self._label}: result must be a JSON pointer such as /items/0")

    def _check_headers(self) -> None:
        names = [*self._spec.headers, self._spec.idempotency_header or "X"]
        for name in names:
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OUR_HEADERS:
                raise ConfigError(f"{self._label}: the header {name!r} cannot be set")
        for name, value in self._spec.headers.items():
            if not _HEADER_VALUE.fullmatch(value):  # never quoted: it may be a secret
                raise ConfigError(f"{self._label}: the value of the header {name!r} is not plain")

    def _check_url(self, fragment: str) -> None:
        if "{" in self._base or "}" in self._base:
            raise ConfigError(f"{self._label}: arguments go into the path and the query only")
        if fragment:
            raise ConfigError(f"{self._label}: its URL has a fragment, which is never sent")
        for pair in self._query:
            if _PLACEHOLDER.search(pair.partition("=")[0]):
                raise ConfigError(f"{self._label}: arguments cannot name a query parameter")
        try:
            check_url(self._base, allow_private=self._spec.allow_private)
        except ToolFailed as error:
            raise ConfigError(f"{self._label}: {error.message}") from error

    def _placeholders(self, template: Any) -> set[str]:
        """The names that a template uses, each of them known."""
        if isinstance(template, Mapping):
            return set().union(*(self._placeholders(inner) for inner in template.values()))
        if isinstance(template, Sequence) and not isinstance(template, str):
            return set().union(*(self._placeholders(inner) for inner in template))
        names = set(_PLACEHOLDER.findall(template)) if isinstance(template, str) else set()
        for name in names:
            group, _, fact = name.partition(".")
            known = fact in _CONTEXT_FACTS or fact.startswith("variables.")
            if name not in self._names and not (group == "context" and known):
                raise ConfigError(f"{self._label}: {{{name}}} is neither a parameter nor a fact")
        return names

    def fill(self, context: ToolContext, arguments: Mapping[str, Any]) -> Outgoing:
        """The request for one call. Raises ToolArgsInvalid for values that a URL cannot hold."""
        spec = self._spec
        values = _Values(context, arguments)
        path = "/".join(_path_segment(segment, values) for segment in self._path)
        query = "&".join(text for pair in self._query if (text := _query_pair(pair, values)))
        url = f"{self._base}{path}{'?' if query else ''}{query}"
        if len(url) > _MAX_URL_CHARS:
            raise ToolArgsInvalid("The arguments are too long for a URL.")
        headers = {"Accept": "application/json, text/plain;q=0.9, */*;q=0.5", **spec.headers}
        content = None
        if spec.method in _WITH_BODY:
            rest = {k: v for k, v in arguments.items() if k not in self._in_url}
            body = rest if spec.body is None else _filled(spec.body, values)
            content = json.dumps(None if body is _ABSENT else body).encode()
            headers.setdefault("Content-Type", "application/json")
        if spec.idempotency_header and spec.method not in ("GET", "HEAD"):
            headers[spec.idempotency_header] = context.idempotency_key
        return Outgoing(
            method=spec.method,
            url=url,
            headers=headers,
            content=content,
            timeout_ms=spec.timeout_ms,
            max_bytes=spec.response_max_bytes,
            follow_redirects=spec.follow_redirects,
            allow_private=spec.allow_private,
        )


class _Absent:
    """Stands for an optional argument that was not given."""


_ABSENT: Final = _Absent()


class _Values:
    """The values of a template's placeholders."""

    def __init__(self, context: ToolContext, arguments: Mapping[str, Any]) -> None:
        self._context = context
        self._arguments = arguments

    def __getitem__(self, name: str) -> Any:
        _, _, fact = name.partition(".")
        if not fact:
            return self._arguments.get(name, _ABSENT)
        _, _, variable = fact.partition("variables.")
        value = self._context.variables.get(variable) if variable else getattr(self._context, fact)
        return _ABSENT if value is None else value

    def text(self, name: str) -> str:
        """The value within other text."""
        value = self[name]
        if value is _ABSENT or value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str | int | float):
            return str(value)
        raise ToolArgsInvalid(f"{name}: a list or an object cannot stand within a text.")


def _path_segment(template: str, values: _Values) -> str:
    """One segment of a path. An argument cannot make two of it, none, or a way up."""
    names = _PLACEHOLDER.findall(template)
    if not names:
        return template
    for name in names:
        text = values.text(name)
        if not text or _NOT_IN_A_PATH.search(text):
            raise ToolArgsInvalid(f"{name}: must be a name, without slashes.")
    filled = _PLACEHOLDER.sub(lambda match: _quoted(values.text(match[1])), template)
    if filled.strip(".") == "":
        raise ToolArgsInvalid(f"{names[0]}: must be a name, not dots.")
    return filled


def _query_pair(template: str, values: _Values) -> str:
    """One pair of a query: left out when its argument is absent, repeated for a list."""
    key, _, value = template.partition("=")
    names = _PLACEHOLDER.findall(value)
    if any(values[name] is _ABSENT or values[name] is None for name in names):
        return ""
    if len(names) == 1 and value == f"{{{names[0]}}}" and isinstance(values[names[0]], list):
        items = values[names[0]]
        if not all(isinstance(item, str | int | float) for item in items):
            raise ToolArgsInvalid(f"{names[0]}: must be a list of plain values.")
        return "&".join(f"{key}={_quoted(str(item))}" for item in items)
    return f"{key}={_PLACEHOLDER.sub(lambda match: _quoted(values.text(match[1])), value)}"


def _filled(template: Any, values: _Values) -> Any:
    """A body with its placeholders filled; entries whose argument is absent are left out."""
    if isinstance(template, Mapping):
        filled = {key: _filled(inner, values) for key, inner in template.items()}
        return {key: value for key, value in filled.items() if value is not _ABSENT}
    if isinstance(template, str):
        if whole := _PLACEHOLDER.fullmatch(template):
            return values[whole[1]]
        return _PLACEHOLDER.sub(lambda match: values.text(match[1]), template)
    if isinstance(template, Sequence):
        return [value for inner in template if (value := _filled(inner, values)) is not _ABSENT]
    return template


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="")
