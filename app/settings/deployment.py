"""Checks that a server may start with its settings, and gives its carrier credentials.

With carrier credentials the server is reachable by strangers and spends money: whatever is missing
or insecure keeps it from starting. Without them it is a development server for this machine only,
with a fixed account and an auth token of its own, made once and kept in `state_dir`.
"""

from __future__ import annotations

import os
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from app.errors import ConfigError
from app.settings.model import Mode, Settings, VoiceChoice
from app.settings.values import is_loopback

__all__ = [
    "DEVELOPMENT_ACCOUNT_SID",
    "CarrierCredentials",
    "carrier_credentials",
    "check_deployment",
    "development_token_path",
    "needed_open_files",
]

DEVELOPMENT_ACCOUNT_SID: Final = "AC" + "0" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierCredentials:
    """The account whose webhooks are believed, and each secret that may have signed them."""

    account_sid: str
    auth_tokens: tuple[str, ...]
    development: bool
    shared_keys: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"CarrierCredentials(account_sid={self.account_sid!r}, <secrets hidden>)"


def check_deployment(settings: Settings) -> list[str]:
    """Every reason not to start, as sentences with their remedy; empty when all is well."""
    if settings.mode is Mode.DEVELOPMENT:
        problems = _development_problems(settings)
    else:
        problems = _live_problems(settings)
    return problems + _model_problems(settings) + _network_problems(settings)


def _development_problems(settings: Settings) -> list[str]:
    problems = []
    at = settings.origin.prefix
    host = settings.server.host
    if not is_loopback(host):
        problems.append(
            f"{at('server', 'host')}"
            f"server.host is {host}, but there are no carrier credentials: without them only this "
            "machine may reach the server. Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, or use "
            "127.0.0.1"
        )
    url = settings.server.public_url
    if url is not None and not is_loopback(urlsplit(url).hostname or ""):
        problems.append(
            f"{at('server', 'public_url')}"
            "server.public_url is set, but there are no carrier credentials to check callers with. "
            "Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, or remove PUBLIC_URL"
        )
    return problems


def _live_problems(settings: Settings) -> list[str]:
    twilio, server = settings.twilio, settings.server
    at = settings.origin.prefix
    problems = []
    if twilio.account_sid is None:
        problems.append(
            "twilio.account_sid is not set, but an auth token is: set TWILIO_ACCOUNT_SID"
        )
    if twilio.auth_token is None:
        problems.append(
            "twilio.auth_token is not set, but other credentials are: set TWILIO_AUTH_TOKEN"
        )
    if server.public_url is None:
        problems.append(
            "server.public_url is not set: Twilio signs requests with it. Set PUBLIC_URL to the "
            "https address at which Twilio reaches this server"
        )
    elif is_loopback(urlsplit(server.public_url).hostname or ""):
        problems.append(
            f"{at('server', 'public_url')}"
            f"server.public_url is {server.public_url}, which Twilio cannot reach. Set PUBLIC_URL "
            "to the https address of this server on the internet"
        )
    elif server.public_url.endswith(server.webhook_path):
        right = server.public_url.removesuffix(server.webhook_path)
        problems.append(
            f"{at('server', 'public_url')}"
            f"server.public_url ends in {server.webhook_path}, which is added to it: set "
            f"PUBLIC_URL to {right}"
        )
    if not twilio.validate_signatures:
        problems.append(
            f"{at('twilio', 'validate_signatures')}"
            "twilio.validate_signatures is false: anyone could place calls at your cost. Remove it"
        )
    if settings.voice_model == "auto" and settings.voice_choice is VoiceChoice.OFFLINE:
        model = "no key for the voice model: set OPENAI_API_KEY"
        if not settings.openai_realtime.enabled:
            model = "no voice model: remove openai_realtime.enabled: false"
        problems.append(
            f"{model}, or choose the offline receptionist for real callers with VOICE_MODEL=offline"
        )
    return problems


def _model_problems(settings: Settings) -> list[str]:
    model = settings.openai_realtime
    if settings.voice_choice is not VoiceChoice.OPENAI:
        return []
    at = settings.origin.prefix
    problems = []
    if model.is_openai and not model.has_credentials:
        problems.append("voice_model is openai, but there is no key: set OPENAI_API_KEY")
    parts = urlsplit(model.url)
    if parts.scheme == "ws" and model.has_credentials and not is_loopback(parts.hostname or ""):
        problems.append(
            f"{at('openai_realtime', 'url')}"
            "openai_realtime.url is ws://, which would send the key unencrypted: use wss://"
        )
    return problems


def _network_problems(settings: Settings) -> list[str]:
    at = settings.origin.prefix
    return [
        f"{at('network', field)}network.{field}: {text}"
        for field, text in settings.network.rule.problems()
    ]


def needed_open_files(settings: Settings) -> int:
    """The number of file handles that `limits.max_calls` need."""
    # Two sockets a call, and as many again while calls come and go; the rest is the process's own.
    return 4 * settings.limits.max_calls + 200


def open_files() -> int | None:
    """The number of file handles that the system allows this process; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def development_token_path(settings: Settings) -> Path:
    """The file of the development auth token; `make demo` reads it."""
    return settings.state_dir / "development_token"


def state_dir_problem(settings: Settings) -> tuple[str, str] | None:
    """The reason why this user cannot write to `state_dir`, and the cure; None if they can."""
    place = settings.state_dir
    while not os.path.lexists(place):
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return None
    problem = f"{settings.state_dir} cannot be written"
    other_folder = "set STATE_DIR to a folder that this user may write to"
    if not place.is_dir():
        return f"{problem}: {place} is no folder", other_folder
    if os.name == "nt":
        return problem, other_folder
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return (
            f"{problem}: its file system is read-only",
            f"mount a volume there, or {other_folder}",
        )
    user = os.geteuid()
    cure = f"run `chown -R {user} {shlex.quote(str(place))}` as root, or {other_folder}"
    return f"{problem} by user {user}", cure


def carrier_credentials(settings: Settings) -> CarrierCredentials:
    """The account's credentials; in development mode ours, made and stored at the first call.

    Raises:
        ConfigError: incomplete credentials, or the token can be neither read nor stored.
    """
    twilio = settings.twilio
    if settings.mode is Mode.DEVELOPMENT:
        token = _development_token(settings)
        return CarrierCredentials(
            account_sid=DEVELOPMENT_ACCOUNT_SID, auth_tokens=(token,), development=True
        )
    if twilio.account_sid is None or twilio.auth_token is None:
        raise ConfigError(
            "twilio.account_sid and twilio.auth_token belong together: one is missing"
        )
    tokens = (twilio.auth_token, twilio.auth_token_secondary)
    keys = (twilio.shared_key, twilio.shared_key_secondary)
    return CarrierCredentials(
        account_sid=twilio.account_sid,
        auth_tokens=tuple(token.get_secret_value() for token in tokens if token is not None),
        development=False,
        shared_keys=tuple(key.get_secret_value() for key in keys if key is not None),
    )


def _development_token(settings: Settings) -> str:
    path = development_token_path(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _store_once(path, secrets.token_hex(16))
        path.chmod(0o600)
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        found = state_dir_problem(settings)
        reason, cure = found or (error.strerror, "delete the file if it is another user's")
        text = f"{path}: the development token cannot be kept: {reason}; {cure}"
        raise ConfigError(text) from None
    except UnicodeDecodeError:
        token = ""
    if len(token) < 16:
        raise ConfigError(f"{path}: holds no token; delete the file to have a new one made")
    return token


def _store_once(path: Path, token: str) -> None:
    """Store whole or not at all; of two processes at once the first wins."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
