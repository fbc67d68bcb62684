"""Codes of things that go wrong, in plain words with what to do. Pure.

Codes of models are those of `app.realtime.faults`, of this server's own watches, and of HTTP; ends
are `EndReason`. A code that is not listed is named as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = [
    "AS_CONFIGURED",
    "CONNECTION_LOST",
    "end_fault",
    "ending",
    "tool_fault",
    "transfer_fault",
    "turned_away",
    "voice_fault",
]

_KEY: Final = (
    "The voice model refuses the API key.",
    "Check OPENAI_API_KEY; `trunkline doctor` tries it. A key that was revoked, or is of another "
    "organization, looks the same.",
)
_QUOTA: Final = (
    "The account of the voice model has no credit left.",
    "Add credit, or raise the limit, at the provider of the model; no retry helps before that.",
)
_MODEL: Final = (
    "The voice model does not exist there, or the account may not use it.",
    "Check openai_realtime.model and url for a spelling mistake; `trunkline doctor` tries them.",
)
_ALLOWED: Final = (
    "The account may not do this.",
    "Give the key or the project the right to use the Realtime API and this model.",
)
_RATE: Final = (
    "The voice model has answered too many requests for this account.",
    "Ask the provider for a higher limit, or lower limits.max_calls.",
)
_DOWN: Final = (
    "The voice model could not be reached, or failed.",
    "If it lasts, see the provider's status page; give numbers a fallback so that callers reach "
    "somebody meanwhile.",
)
_SILENT: Final = (
    "The voice model stayed silent while the caller waited.",
    "If it happens often, try another model, or raise limits.answer_wait_s for one that thinks "
    "longer before it speaks.",
)
_SETTINGS: Final = (
    "The voice model does not take the session as it is configured.",
    "Run `trunkline doctor`: it opens a session with these settings and names the one that is "
    "refused.",
)

_VOICE: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(("invalid_api_key", "authentication_error", "http_401"), _KEY),
    **dict.fromkeys(
        ("insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted"), _QUOTA
    ),
    **dict.fromkeys(
        (
            "model_not_found",
            "invalid_model",
            "unsupported_model",
            "deployment_not_found",
            "http_404",
        ),
        _MODEL,
    ),
    **dict.fromkeys(
        (
            "permission_denied",
            "permission_error",
            "account_deactivated",
            "invalid_organization",
            "unsupported_country_region_territory",
            "http_403",
        ),
        _ALLOWED,
    ),
    **dict.fromkeys(
        ("rate_limit_exceeded", "rate_limit_error", "inference_rate_limit_exceeded", "http_429"),
        _RATE,
    ),
    **dict.fromkeys(
        (
            "connect_timeout",
            "connection_failed",
            "handshake_failed",
            "server_error",
            "internal_error",
            "service_unavailable",
            "overloaded",
            "voice_unavailable",
            "voice_closed",
            "closed_in_setup",
            "session_timeout",
        ),
        _DOWN,
    ),
    **dict.fromkeys(
        ("no_answer", "no_reply", "response_stalled", "response_timeout", "empty_response"), _SILENT
    ),
    **dict.fromkeys(("format_mismatch", "protocol_mismatch", "session_refused"), _SETTINGS),
    "beta_api_shape_disabled": (
        "The voice model no longer speaks the dialect that is configured.",
        "Remove openai_realtime.dialect, or set it to ga.",
    ),
    "inaudible_response": (
        "The voice model answered without any sound that one can hear.",
        "Nothing, if it stays rare: the answer was asked for again.",
    ),
    "session_expired": (
        "The model's session has reached its longest time; a fresh one was opened.",
        "Nothing: the conversation went on.",
    ),
    "tool_loop": (
        "The voice model called tools again and again without speaking.",
        "Say in the instructions when the tool is to be used, and what to do when it fails.",
    ),
    "connection_refused": (
        "Nothing listens where the voice model should be.",
        "Check openai_realtime.url; if it is right, the model's server is down.",
    ),
    "dns_failed": (
        "The host name of the voice model was not found.",
        "Check openai_realtime.url and this machine's network.",
    ),
    "tls_failed": (
        "There is no secure connection to the voice model.",
        "Check this machine's clock and certificates (TRUNKLINE_CA_FILE), and openai_realtime.url.",
    ),
    "stage_key_refused": (
        "A server of the pipeline refuses its key.",
        "Check its api_key, or OPENAI_API_KEY; the log has its model in `reply not made`.",
    ),
    "stage_not_found": (
        "A server of the pipeline does not have the model, or is at another address.",
        "Check its model and base_url, which ends in /v1 with most servers.",
    ),
    "stage_refused": (
        "A server of the pipeline refuses the request.",
        "The log names the field in `reply not made`; extra_body changes it, or takes it out.",
    ),
    "stage_rate_limited": (
        "A server of the pipeline has answered too many requests for this account.",
        "Ask its provider for a higher limit, or name a second server for that stage.",
    ),
    "stage_unreachable": (
        "Nothing listens where a server of the pipeline should be.",
        "Check its base_url; if it is right, the server is down. Name a second one for that stage.",
    ),
    "stage_invalid": (
        "A server of the pipeline answered with something that cannot be used.",
        "docs/pipeline.md says what is understood; the log has the reason in `reply not made`.",
    ),
    "stage_empty": (
        "The text model of the pipeline answered without a word.",
        "Raise max_output_tokens if it thinks first, or name a second server in pipeline.llm.",
    ),
    **dict.fromkeys(
        ("stage_busy", "stage_cut", "stage_failed", "stage_timeout"),
        (
            "A server of the pipeline failed, or was late.",
            "Name a second server for that stage: it takes over within pipeline.switch_after_ms.",
        ),
    ),
    "invalid_proxy": ("The proxy cannot be used.", "Check HTTPS_PROXY and its password."),
}

CONNECTION_LOST: Final = ("The connection to the voice model was lost.", _DOWN[1])

_ASK_SERVER: Final = "The server of the tool knows why: look into its log at this time."
_ANSWER: Final = "Compare what the tool answers with docs/tools.md; the log has the reason."
_DESCRIBE: Final = (
    "If it happens often, say in the tool's description, or in the instructions, when and with "
    "what to call it."
)
_APPROVAL: Final = "See the tool's approval setting, and who approves: docs/tools.md."
_TOOLS: Final[Mapping[str, tuple[str, str]]] = {
    "tool_timeout": (
        "it took longer than its time limit",
        "Make the tool faster, or raise its timeout_ms.",
    ),
    "tool_failed": (
        "it failed",
        "The log has the type and the place of the error in `tool failed`, with this call's id.",
    ),
    "tool_args_invalid": ("its arguments do not fit its schema", _DESCRIBE),
    "unknown_tool": (
        "there is no such tool; the model made up its name",
        "Remove the name from the instructions, or give the agent a tool of this name.",
    ),
    "tool_budget_spent": (
        "the model has used up the tool calls that a turn may have",
        "Say in the instructions when the tool is to be used, and what to do when it fails.",
    ),
    "tool_call_id_reused": ("the model used one id for two calls", ""),
    "tool_output_invalid": (
        "its result cannot be written as JSON",
        "Return what json.dumps takes, a dataclass or a Pydantic model; the log has the type and "
        "the place in `tool result failed`.",
    ),
    "tool_output_too_large": ("its result is too large", "Return what the model needs to know."),
    "process_died": (
        "its process has died",
        "Look for a crash or a kill (out of memory) in the machine's log.",
    ),
    "cancelled": ("it was given up", ""),
    "interrupted": ("it was given up: the caller went on", ""),
    "input_refused": ("a guardrail stopped it", ""),
    "guardrail_failed": (
        "a guardrail could not check it",
        "The log has the reason in `input guardrail failed`.",
    ),
    "not_approved": ("an operator, or the caller, did not agree to it", ""),
    "approval_unavailable": ("nobody could be asked to agree to it", _APPROVAL),
    "approval_timeout": ("nobody agreed to it in time", _APPROVAL),
    "caller_not_verified": ("the network does not vouch for the caller's number", ""),
    "unreachable": (
        "its server could not be reached",
        "Check the tool's url, and that its server runs and answers to this machine: the log has "
        "the host in `http tool got no answer`.",
    ),
    "connection_lost": ("the connection to its server broke", _ASK_SERVER),
    "http_error": ("its server answered with an error; the log has the status", _ASK_SERVER),
    "response_invalid": ("its server answered with something that cannot be used", _ANSWER),
    "response_too_large": ("its server's answer is too large", _ANSWER),
    "redirect_refused": (
        "its server sent it to another address",
        "Write the address that it was sent to into the tool's url.",
    ),
    "url_refused": (
        "its address may not be asked",
        "For a server in your own network, set allow_private of the tool.",
    ),
    "transfer_failed": ("the transfer came to nothing", ""),
    "too_early": ("the caller had not spoken yet", ""),
}
AS_CONFIGURED: Final = frozenset(
    # The last two: the caller loses nothing, and the transfer was told of before.
    {"input_refused", "not_approved", "caller_not_verified", "too_early", "transfer_failed"}
)
"""Codes of tools that were stopped as they should be."""

_TRANSFERS: Final[Mapping[str, tuple[str, str]]] = {
    "busy": ("the line was busy", "Name another destination, or a queue, for such times."),
    "no_answer": (
        "nobody answered",
        "Check who should answer there, raise the destination's ring_s, or name another one.",
    ),
    "declined": ("they declined the call", ""),
    "voicemail": ("an answering machine picked up", ""),
    "failed": (
        "the carrier could not put the call through",
        "The evidence names the carrier's error: docs/telephony.md has its numbers in plain words.",
    ),
    "canceled": ("it was stopped before anybody answered", ""),
}

_ENDS: Final[Mapping[str, tuple[str, str]]] = {
    "voice_lost": ("The call ended because the voice model was lost.", ""),
    "carrier_lost": (
        "The carrier's media stream did not come, or broke off.",
        "Check the public address with `trunkline doctor`: websockets must pass, and a quiet "
        "socket must stay open.",
    ),
    "internal_error": (
        "Trunkline failed: a bug.",
        "Please report it with the traceback that the log has under this call's id.",
    ),
    "silence": (
        "The call ended because the caller said nothing for a long time.",
        "See limits.silence_s and limits.inactivity. If the caller did speak, the recording or "
        "turn_detection.threshold tells why they were not heard.",
    ),
    "max_duration": (
        "The call reached limits.max_duration_s.",
        "Raise the limit if such calls are wanted.",
    ),
    "max_cost": (
        "The call has cost limits.max_cost_usd.",
        "Raise the limit if such calls are wanted; docs/recording-and-cost.md says what costs.",
    ),
    "drained": ("The server was stopped during the call.", ""),
}

_ENDINGS: Final[Mapping[str, str]] = {
    "caller_hung_up": "the {party} hung up",
    "agent_hung_up": "the agent hung up",
    "operator_hung_up": "an operator hung up",
    "transferred": "the {party} was transferred",
    "silence": "nobody spoke any more",
    "max_duration": "it had lasted as long as it may",
    "max_cost": "it had cost as much as it may",
    "carrier_lost": "the media stream was lost",
    "voice_lost": "the voice model was lost",
    "drained": "the server was stopped",
    "internal_error": "Trunkline failed",
}

_TURNED_AWAY: Final[Mapping[str, tuple[str, str]]] = {
    "at_capacity": (
        "All lines were busy.",
        "Raise limits.max_calls if the machine bears it, or start another server.",
    ),
    "over_budget": (
        "The budget of the day was spent.",
        "Raise budget.per_day_usd, or wait for tomorrow.",
    ),
    "overloaded": (
        "The server was late with the sound of the calls that it had (limits.max_lag_ms).",
        "Lower limits.max_calls, start another server, or see what else runs on the machine.",
    ),
    "draining": ("The server was being stopped.", ""),
    "closed": ("The number was outside of its hours.", ""),
    "not_in_percent": ("The call was among those that go to the fallback by percent.", ""),
}


def voice_fault(code: str) -> tuple[str, str]:
    """The trouble that a model's code stands for, and its remedy."""
    found = _VOICE.get(code)
    if found is None and code.startswith("http_5"):
        found = _DOWN
    return found or (f"The voice model reported {code}.", "docs/voice-models.md may know the code.")


def tool_fault(code: str) -> tuple[str, str]:
    """The reason why a tool did not do its work, and its remedy."""
    return _TOOLS.get(code, (f"it failed with {code}", "docs/tools.md may know the code."))


def transfer_fault(outcome: str, evidence: str = "") -> tuple[str, str]:
    """The reason why a transfer came to nothing, and its remedy."""
    if evidence == "no_carrier_account":
        return (
            "there is no account at a carrier",
            "Run `trunkline init`, or set TWILIO_ACCOUNT_SID.",
        )
    return _TRANSFERS.get(outcome, (f"its outcome was {outcome}", ""))


def end_fault(reason: str) -> tuple[str, str] | None:
    """The trouble that an end stands for; None for an end as it should be."""
    return _ENDS.get(reason)


def ending(reason: str, party: str) -> str:
    """The end of a call in words."""
    return _ENDINGS.get(reason, reason).format(party=party)


def turned_away(reason: str) -> tuple[str, str]:
    """The reason why no agent took the call, and its remedy."""
    return _TURNED_AWAY.get(reason, (f"No agent took the call: {reason}.", ""))
