"""Settings that take their value from a variable, also where the file does not name them.

The table is what `config.yaml` of the repository says, for files that say less: a key in `.env`
works with each of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from app.errors import ConfigError
from app.settings.reader.environment import Environment
from app.settings.reader.names import NEAR_MISS, nearest
from app.settings.reader.strict_yaml import Mapping, Node, Scalar

__all__ = ["FROM_VARIABLES", "misspelled", "with_variables"]


FROM_VARIABLES: Final[dict[tuple[str, ...], str]] = {
    ("voice_model",): "${VOICE_MODEL:-auto}",
    ("state_dir",): "${STATE_DIR:-var}",
    ("openai_realtime", "api_key"): "${OPENAI_API_KEY:-}",
    ("offline", "messages_dir"): "${STATE_DIR:-var}/messages",
    ("offline", "realtime_token"): "${REALTIME_TOKEN:-}",
    ("twilio", "account_sid"): "${TWILIO_ACCOUNT_SID:-}",
    ("twilio", "auth_token"): "${TWILIO_AUTH_TOKEN:-}",
    ("twilio", "auth_token_secondary"): "${TWILIO_AUTH_TOKEN_SECONDARY:-}",
    ("twilio", "shared_key"): "${TWILIO_SHARED_KEY:-}",
    ("twilio", "shared_key_secondary"): "${TWILIO_SHARED_KEY_SECONDARY:-}",
    ("twilio", "from_number"): "${TWILIO_PHONE_NUMBER:-}",
    ("server", "host"): "${SERVER_HOST:-127.0.0.1}",
    ("server", "port"): "${SERVER_PORT:-8080}",
    ("server", "public_url"): "${PUBLIC_URL:-}",
    ("server", "metrics_token"): "${METRICS_TOKEN:-}",
    ("server", "operator_token"): "${OPERATOR_TOKEN:-}",
    ("store", "url"): "${DATABASE_URL:-}",
    ("bus", "url"): "${REDIS_URL:-}",
    ("bus", "server"): "${BUS_SERVER:-}",
    ("network", "ca_file"): "${TRUNKLINE_CA_FILE:-}",
    ("network", "proxy"): "${TRUNKLINE_PROXY:-}",
    ("otel", "endpoint"): "${OTEL_EXPORTER_OTLP_ENDPOINT:-}",
    ("otel", "authorization"): "${OTEL_AUTHORIZATION:-}",
    ("logging", "level"): "${LOG_LEVEL:-INFO}",
    ("logging", "format"): "${LOG_FORMAT:-auto}",
}


def with_variables(root: Mapping, environment: Environment) -> Mapping:
    """`root` and what the table adds to it: keys that it lacks and whose variable is set."""
    for path, text in FROM_VARIABLES.items():
        if _is_set(text, environment):
            root = _added(root, path, text)
    return root


_OFTEN_MEANT: Final = {
    "BASE_URL": "PUBLIC_URL",
    "HOST": "SERVER_HOST",
    "NGROK_URL": "PUBLIC_URL",
    "OPENAI_KEY": "OPENAI_API_KEY",
    "PORT": "SERVER_PORT",
    "TWILIO_FROM_NUMBER": "TWILIO_PHONE_NUMBER",
    "TWILIO_NUMBER": "TWILIO_PHONE_NUMBER",
    "TWILIO_SID": "TWILIO_ACCOUNT_SID",
    "TWILIO_TOKEN": "TWILIO_AUTH_TOKEN",
}
"""Names of other programs for the same things. Only in `.env`: a shell has them for others."""


def misspelled(environment: Environment, referenced: Collection[str]) -> Iterator[str]:
    """Notices about variables that nothing reads and whose names are nearly ones that are read."""
    known = {*referenced, *(_name_in(text) for text in FROM_VARIABLES.values())}
    known |= {f"{name}_FILE" for name in known}
    missing = {name for name in known if name not in environment.names()}
    for name in sorted(environment.names() - known):
        own = name in environment.dotenv.values
        meant = nearest(name, missing, cutoff=NEAR_MISS)
        if meant is None and own and _OFTEN_MEANT.get(name) in missing:
            meant = _OFTEN_MEANT[name]
        if meant is not None:
            place = environment.place(name)
            where = f"{place[0]}:{place[1]}: " if place else "environment: "
            yield f'{where}{name}: nothing reads this variable; did you mean "{meant}"?'


def _name_in(text: str) -> str:
    return str(re.findall(r"\$\{(\w+)", text)[0])


def _is_set(text: str, environment: Environment) -> bool:
    try:
        return environment.get(_name_in(text)) is not None
    except ConfigError:  # reported where it is filled in
        return True


def _added(root: Mapping, path: tuple[str, ...], text: str) -> Mapping:
    key, line = path[0], root.key_lines.get(path[0], root.line)
    present = root.entries.get(key)
    node: Node
    if len(path) == 1:
        node = present or Scalar(text, line, plain=True)
    elif present is None or (isinstance(present, Scalar) and present.value is None):
        node = _added(Mapping({}, {}, line), path[1:], text)
    elif isinstance(present, Mapping):
        node = _added(replace(present, line=line), path[1:], text)
    else:
        return root  # no section: refused later
    return replace(
        root,
        entries={**root.entries, key: node},
        key_lines={**root.key_lines, key: line},
    )
