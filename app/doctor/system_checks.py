"""`trunkline doctor`: looks at everything that a real call needs and says what is wrong.

Each check gives results in plain words with what to do. Nothing here changes anything, places a
call or costs more than a line of text from the model. What cannot be reached is said to be
unchecked: without a network, doctor still checks the rest. The addresses come from the settings.
"""

from __future__ import annotations

import resource
import shlex
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from app.carrier.twilio.rest import NumberSetup, TwilioRest
from app.carrier.twilio.signature import SIGNATURE_HEADER, sign_http
from app.errors import CarrierError, CarrierRefused
from app.http.routed import open_client
from app.installation import command
from app.network import websocket_options
from app.realtime.connection import VoiceModel
from app.realtime.events import SessionConfig
from app.realtime.probe import ProbeOutcome, ProbeResult, probe
from app.settings import Mode, Settings, VoiceChoice, needed_open_files, state_dir_problem

__all__ = ["CheckResult", "Verdict", "failed", "run_checks", "verdict_of"]


_TIMEOUT_S: Final = 10.0
_CLOCK_TOLERANCE_S: Final = 30  # a media token is good for a minute


class Verdict(StrEnum):
    """The outcome of a check."""

    GOOD = "good"
    WARNING = "warning"
    WRONG = "wrong"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: its subject, the verdict, a sentence and the remedy."""

    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""


def failed(results: list[CheckResult]) -> bool:
    """True if anything is wrong; checks that could not be made do not count."""
    return any(result.verdict is Verdict.WRONG for result in results)


def verdict_of(results: list[CheckResult]) -> str:
    """Sum up all results in one or two sentences; what was not checked is named."""
    unchecked = dict.fromkeys(r.subject for r in results if r.verdict is Verdict.UNCHECKED)
    rest = f"Not checked: {', '.join(unchecked)}." if unchecked else ""
    if failed(results):
        found = "Something is wrong: see the lines with BAD."
    else:
        found = "The rest is right." if unchecked else "Nothing wrong was found."
    return f"{rest} {found}".strip()


async def run_checks(
    settings: Settings,
    *,
    problems: Sequence[str],
    surprises: Sequence[str],
    voices: Sequence[VoiceModel] = (),
    session: SessionConfig | None = None,
) -> AsyncIterator[CheckResult]:
    """Every result as soon as it is there.

    `problems` and `surprises` are those of `app.cli.check`; `voices` are the models of all numbers,
    `session` is that of a call.
    """
    for result in (*check_settings(problems, surprises), *check_host(settings)):
        yield result
    if settings.voice_choice is VoiceChoice.OFFLINE:
        yield _offline_choice(settings)
    elif settings.voice_choice is VoiceChoice.PIPELINE:
        for result in _pipeline_choice(settings):
            yield result
    elif session is not None:
        for voice in voices:
            for result in await check_voice_model(voice, session):
                yield result
    for result in _only_in_calls(settings):
        yield result
    if settings.mode is Mode.DEVELOPMENT:
        text = "no carrier credentials: a development server that only this machine can call"
        yield CheckResult(
            "Twilio",
            Verdict.UNCHECKED,
            text,
            "set TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and PUBLIC_URL in .env",
        )
        return
    for result in await check_account(settings):
        yield result
    for result in await check_public_address(settings):
        yield result
    yield await check_clock(settings.twilio.rest_url)


# Without a network --------------------------------------------------------------------------------


def check_settings(problems: Sequence[str], surprises: Sequence[str]) -> list[CheckResult]:
    """The configuration itself: what keeps the server from starting, and what may surprise."""
    name = "configuration"
    wrong = [CheckResult(name, Verdict.WRONG, text) for text in problems]
    soon = [CheckResult(name, Verdict.WARNING, text) for text in surprises]
    good = [] if wrong else [CheckResult(name, Verdict.GOOD, "can be started with")]
    return [*good, *wrong, *soon]


def check_host(settings: Settings, *, open_files: int | None = None) -> list[CheckResult]:
    """This machine: enough file handles for the calls, and a place to write to."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if open_files is None else open_files
    needed = needed_open_files(settings)
    if limit != resource.RLIM_INFINITY and limit < needed:
        files = CheckResult(
            "open files",
            Verdict.WRONG,
            f"this shell allows {limit}, {settings.limits.max_calls} calls need {needed}",
            f"run `ulimit -n {needed}` first, or lower limits.max_calls",
        )
    else:
        files = CheckResult(
            "open files", Verdict.GOOD, f"enough for {settings.limits.max_calls} calls"
        )
    return [files, _writable(settings), *_open_secrets(settings)]


def _open_secrets(settings: Settings) -> list[CheckResult]:
    """A `.env` that other users of the machine may read."""
    if settings.origin.folder is None:
        return []
    path = settings.origin.folder / ".env"
    if not path.exists() or not path.stat().st_mode & 0o077:
        return []
    text = "holds secrets, and other users of this machine may read it"
    return [CheckResult(".env", Verdict.WARNING, text, f"chmod 600 {shlex.quote(str(path))}")]


def _writable(settings: Settings) -> CheckResult:
    if problem := state_dir_problem(settings):
        return CheckResult("state_dir", Verdict.WRONG, *problem)
    return CheckResult("state_dir", Verdict.GOOD, f"{settings.state_dir} can be written")


def _offline_choice(settings: Settings) -> CheckResult:
    text = "the offline receptionist talks with callers"
    if settings.voice_model == "auto" and not settings.openai_realtime.has_credentials:
        return CheckResult("OPENAI_API_KEY", Verdict.UNCHECKED, f"not set: {text}")
    return CheckResult("voice", Verdict.GOOD, text)


def _pipeline_choice(settings: Settings) -> list[CheckResult]:
    """The servers of each stage. No request is made: each of them would cost money."""
    return [
        CheckResult(f"pipeline.{stage}", Verdict.UNCHECKED, " then ".join(names))
        for stage, names in settings.pipeline.names().items()
    ]


# The voice model ----------------------------------------------------------------------------------

_VOICE_REMEDIES: Final = {
    "invalid_api_key": "check OPENAI_API_KEY: it may be mistyped, revoked or another project's",
    "insufficient_quota": "the account has no credit left: add some in the billing settings",
    "credit_balance_exhausted": "the account has no credit left: add some in the billing settings",
    "billing_hard_limit_reached": "raise the spending limit in the account's billing settings",
    "model_not_found": "the key may not use openai_realtime.model: check its name and the project",
    "rate_limit_exceeded": "too much was asked of the account at once: wait, or raise its limits",
    "invalid_model": "check openai_realtime.model: it may not be a model of the Realtime API",
    "beta_api_shape_disabled": "set openai_realtime.dialect to ga",
    "format_mismatch": "try the other openai_realtime.audio.format",
    "dns_failed": "check openai_realtime.url and this machine's network",
    "connection_refused": "check openai_realtime.url: nothing listens there",
    "stage_key_refused": "check api_key in pipeline.llm, or OPENAI_API_KEY",
    "stage_not_found": "check model and base_url in pipeline.llm: the latter ends in /v1 with most",
    "stage_rate_limited": "ask the provider for a higher limit, or add a server to pipeline.llm",
    "stage_refused": "check pipeline.llm: the server does not take a field; see its extra_body",
    "stage_unreachable": "check base_url in pipeline.llm: nothing listens there",
    "tls_failed": "check this machine's clock and certificates, and openai_realtime.url",
}


async def check_voice_model(
    voice: VoiceModel, session: SessionConfig, *, timeout_s: float = _TIMEOUT_S
) -> list[CheckResult]:
    """Opens a session with the settings of a call, and has the model answer one line of text."""
    found = await probe(voice, round(timeout_s * 1000), session=session)
    name = f"voice model {voice.name}"
    opened = []
    if found.differences:
        text = f"took other values for: {', '.join(found.differences)}"
        opened = [CheckResult(name, Verdict.WARNING, text)]
    elif found.connected:
        opened = [CheckResult(name, Verdict.GOOD, "took the session as configured")]
    return [*opened, _answer_of(name, found)]


def _answer_of(name: str, found: ProbeResult) -> CheckResult:
    if found.ok:
        return CheckResult(name, Verdict.GOOD, "answered a line of text")
    evidence = f", session {found.session_id}" if found.session_id else ""
    text = f"{found.message} ({found.outcome}: {found.code}{evidence})"
    if found.connected and found.outcome is ProbeOutcome.TIMEOUT:
        return CheckResult(name, Verdict.WRONG, text, "try again; callers would hear nothing")
    if not found.retryable:
        remedy = _VOICE_REMEDIES.get(found.code, "check the openai_realtime settings")
        return CheckResult(name, Verdict.WRONG, text, remedy)
    remedy = _VOICE_REMEDIES.get(found.code, "try again; see also https://status.openai.com")
    return CheckResult(name, Verdict.UNCHECKED, text, remedy)


async def say(voice: VoiceModel, text: str) -> CheckResult:
    """Has the model answer `text` outside of any call; the answer, with the id of its session."""
    found = await probe(voice, say=text)
    name = f"voice model {voice.name}"
    if not found.ok:
        return _answer_of(name, found)
    where = f" (session {found.session_id})" if found.session_id else ""
    return CheckResult(name, Verdict.GOOD, f"{found.answer or 'no words'}{where}")


def _only_in_calls(settings: Settings) -> list[CheckResult]:
    """Notes on all that only a call, or a start of the server, tries."""
    found = []
    transcription = settings.openai_realtime.transcription
    if settings.voice_choice is VoiceChoice.OPENAI and transcription is not None:
        text = f"{transcription.model} is given nothing to write down"
        found.append(CheckResult("transcription", Verdict.UNCHECKED, text))
    requests = [name for name, tool in settings.tools.items() if tool.http is not None]
    if requests:
        text = f"no request is made for {', '.join(requests)}"
        found.append(CheckResult("tools", Verdict.UNCHECKED, text))
    if settings.mcp_servers:
        text = f"{', '.join(settings.mcp_servers)}: connected to when the server starts"
        found.append(CheckResult("MCP servers", Verdict.UNCHECKED, text))
    if settings.analysis is not None and (settings.analysis.endpoint or settings.analysis.webhook):
        text = "its endpoint and its webhook are not asked"
        found.append(CheckResult("analysis", Verdict.UNCHECKED, text))
    return found


# Twilio -------------------------------------------------------------------------------------------


async def check_account(settings: Settings) -> list[CheckResult]:
    """The credentials, and where each of our numbers points."""
    twilio = settings.twilio
    if twilio.account_sid is None or twilio.auth_token is None:
        return []  # named by check_settings
    rest = TwilioRest(
        twilio.account_sid,
        twilio.auth_token.get_secret_value(),
        base_url=twilio.rest_url,
        timeout_s=_TIMEOUT_S,
        attempts=1,
    )
    try:
        return await _ask_account(rest, settings)
    finally:
        await rest.aclose()


async def _ask_account(rest: TwilioRest, settings: Settings) -> list[CheckResult]:
    name = "TWILIO_ACCOUNT_SID"
    try:
        account = await rest.check_account()
    except CarrierRefused:
        text = "Twilio does not accept the account SID with this auth token"
        remedy = "copy both again from the console; API keys and test credentials do not work here"
        return [CheckResult(name, Verdict.WRONG, text, remedy)]
    except CarrierError as error:
        return [CheckResult(name, Verdict.UNCHECKED, f"Twilio could not be asked ({error.code})")]
    if account.status != "active":
        text = f"the account is {account.status}"
        return [CheckResult(name, Verdict.WRONG, text, "see the Twilio console for the reason")]
    kind = " (a trial: callers hear Twilio's own message first)" if account.kind == "Trial" else ""
    results = [CheckResult(name, Verdict.GOOD, f"the account is active{kind}")]
    if not settings.all_numbers:
        text = "no number is configured, so none was checked"
        results.append(CheckResult("number", Verdict.UNCHECKED, text, "set TWILIO_PHONE_NUMBER"))
    for number in settings.all_numbers:
        try:
            results.append(_check_number(number, await rest.find_number(number), settings))
        except CarrierError as error:
            text = f"Twilio could not be asked ({error.code})"
            results.append(CheckResult(number, Verdict.UNCHECKED, text))
    return results


def _check_number(number: str, setup: NumberSetup | None, settings: Settings) -> CheckResult:
    wanted = settings.base_url + settings.server.webhook_path
    if setup is None:
        remedy = "check the number and the account"
        return CheckResult(number, Verdict.WRONG, "is not a number of this account", remedy)
    if setup.voice_url != wanted:
        where = setup.voice_url or "nowhere"
        remedy = f"run `{command()} numbers connect {number}`, or set its voice webhook to {wanted}"
        return CheckResult(number, Verdict.WRONG, f"points to {where}, not to this server", remedy)
    here = f"points to this server by {setup.voice_method}"
    if not setup.voice_fallback_url:
        text = f"{here}, and has no fallback for when the server does not answer"
        return CheckResult(
            number, Verdict.WARNING, text, f"run `{command()} numbers connect {number}`"
        )
    return CheckResult(number, Verdict.GOOD, here)


# The public address -------------------------------------------------------------------------------


async def check_public_address(settings: Settings) -> list[CheckResult]:
    """The way from the internet to the server: reachable, ours, and closed to strangers."""
    name = "PUBLIC_URL"
    if settings.server.public_url is None:
        return []  # named by check_settings
    base = settings.base_url
    async with open_client(timeout=_TIMEOUT_S) as client:
        try:
            health = await client.get(f"{base}/healthz")
        except httpx2.HTTPError as error:
            return [_unreachable(base, error)]
        if health.status_code != HTTPStatus.OK:
            return [_not_serving(base, health.status_code)]
        found = [CheckResult(name, Verdict.GOOD, f"{base} is reached")]
        for check in (_unsigned_webhook, _signed_status):
            try:
                found.append(await check(client, settings))
            except httpx2.HTTPError as error:
                found.append(_unreachable(base, error))
    found.append(await _media_socket(settings))
    return found


def _unreachable(base: str, error: httpx2.HTTPError) -> CheckResult:
    host = urlsplit(base).hostname
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            text = f"the certificate of {host} is not valid: {cause.verify_message}"
            return CheckResult(
                "PUBLIC_URL", Verdict.WRONG, text, "renew it, or check the host name"
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.TimeoutException):
        text = f"{base} does not answer within {_TIMEOUT_S:.0f} s"
    else:
        text = f"{base} cannot be reached from here"
    remedy = "check the name, the tunnel or proxy, and this machine's own network"
    return CheckResult("PUBLIC_URL", Verdict.WRONG, text, remedy)


def _not_serving(base: str, status: int) -> CheckResult:
    if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, 504, 530):
        text = f"{base} is reached, but no Trunkline runs behind it (HTTP {status})"
        return CheckResult("PUBLIC_URL", Verdict.WRONG, text, f"start it with: {command()} serve")
    text = f"{base}/healthz answers HTTP {status}: something else runs there"
    remedy = "check the address, and that the proxy passes every path on"
    return CheckResult("PUBLIC_URL", Verdict.WRONG, text, remedy)


async def _unsigned_webhook(client: httpx2.AsyncClient, settings: Settings) -> CheckResult:
    path = settings.server.webhook_path
    answer = await client.post(settings.base_url + path, data={"CallSid": "none"})
    if answer.status_code == HTTPStatus.FORBIDDEN:
        return CheckResult("voice webhook", Verdict.GOOD, "refuses requests without a signature")
    if answer.is_success:
        text = "answers requests that nobody signed: anyone could place calls at your cost"
        remedy = "the running server has other settings: restart it with these"
        return CheckResult("voice webhook", Verdict.WRONG, text, remedy)
    text = f"{path} answers HTTP {answer.status_code} where 403 was expected"
    remedy = "check that the proxy passes this path on unchanged"
    return CheckResult("voice webhook", Verdict.WRONG, text, remedy)


async def _signed_status(client: httpx2.AsyncClient, settings: Settings) -> CheckResult:
    """Post a signed status of an unknown call: harmless, and it shows that the token fits."""
    twilio = settings.twilio
    name = "signatures"
    if twilio.account_sid is None or twilio.auth_token is None:
        return CheckResult(name, Verdict.UNCHECKED, "the credentials are incomplete")
    url = settings.base_url + settings.server.status_path
    form = {
        "AccountSid": twilio.account_sid,
        "CallSid": "CA" + "0" * 32,
        "CallStatus": "completed",
        "From": "",
        "To": "",
    }
    signature = sign_http(twilio.auth_token.get_secret_value(), url, form)
    answer = await client.post(url, data=form, headers={SIGNATURE_HEADER: signature})
    if answer.is_success:
        return CheckResult(name, Verdict.GOOD, "the running server believes this auth token")
    if answer.status_code == HTTPStatus.FORBIDDEN:
        text = "the running server does not believe requests signed with this token and address"
        remedy = "restart it with these settings; it must know the same PUBLIC_URL, to the letter"
        return CheckResult(name, Verdict.WRONG, text, remedy)
    text = f"{settings.server.status_path} answers HTTP {answer.status_code}"
    return CheckResult(
        name, Verdict.WRONG, text, "check that the proxy passes this path on unchanged"
    )


async def _media_socket(settings: Settings) -> CheckResult:
    """A websocket handshake without a signature: only a 403 shows that upgrades get through."""
    name = "media websocket"
    url = "ws" + settings.base_url.removeprefix("http") + settings.server.websocket_path
    try:
        async with connect(url, open_timeout=_TIMEOUT_S, close_timeout=2, **websocket_options(url)):
            text = "opens for anyone: a stranger could talk at your cost"
            return CheckResult(name, Verdict.WRONG, text, "restart the server with these settings")
    except InvalidStatus as refusal:
        status = refusal.response.status_code
        if status == HTTPStatus.FORBIDDEN:
            return CheckResult(name, Verdict.GOOD, "is reached, and refuses strangers")
        text = f"the handshake is answered with HTTP {status} where 403 was expected"
        remedy = "let the proxy pass websocket upgrades on (the Upgrade and Connection headers)"
        return CheckResult(name, Verdict.WRONG, text, remedy)
    except (OSError, WebSocketException, TimeoutError, EOFError):
        text = f"{url} cannot be opened"
        return CheckResult(name, Verdict.WRONG, text, "let the proxy pass websocket upgrades on")


# The clock ----------------------------------------------------------------------------------------


async def check_clock(
    url: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> CheckResult:
    """This machine's clock against the `Date` of a large service."""
    name = "clock"
    try:
        async with open_client(timeout=_TIMEOUT_S) as client:
            answer = await client.head(url)
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (httpx2.HTTPError, KeyError, ValueError):
        return CheckResult(name, Verdict.UNCHECKED, "no other clock could be asked")
    off_s = round((now() - theirs).total_seconds())
    if abs(off_s) > _CLOCK_TOLERANCE_S:
        text = f"this machine is {abs(off_s)} s {'ahead' if off_s > 0 else 'behind'}"
        return CheckResult(
            name, Verdict.WRONG, text, "let NTP set it: tokens and keys depend on time"
        )
    return CheckResult(name, Verdict.GOOD, "right")
