"""The errors that Trunkline raises.

AppError
  ConfigError                 settings wrong: the message holds file:line and what to do
  ProtocolError
    LocalProtocolError        we broke the rules: a bug; ends the call
    RemoteProtocolError       the peer broke them; the shell ends the call or ignores it
  CarrierError
    SignatureError            a request that the carrier did not sign
    CarrierRefused            the carrier said no
    CarrierUnavailable        the carrier could not be reached (retryable)
  VoiceError
    VoiceRefused              key, quota, model or session settings: no retry can heal it
    VoiceUnavailable          the model could not be reached or failed for now (retryable)
    VoiceClosed               the connection ended; `close_code` says how
  StoreError                  the call history refused a request
    StoreUnavailable          it could not be reached, is locked, full or read-only (retryable)
    CallNotFound              it has no such call
  CapacityError               full or draining: the caller hears a polite refusal
  ActionRefused               an operator's action that a call cannot do, or not now
  PlacingRefused              a call that is not placed: policy, caps, drain
  FunctionFailed              an operator's function raised what is no Exception; `__cause__` is it
  DialError                   the simulated caller of `trunkline dial` could not place its call
  ToolError                   never leaves the call; becomes the tool's output
    ToolTimeout, ToolFailed, ToolArgsInvalid

Each error has a stable `code`, a message that is safe to show to an operator (no secret, no
speech), and `retryable`, set when it is made; `retry_after_s` is the pause that a peer asked for.
"""

from __future__ import annotations

__all__ = [
    "ActionRefused",
    "AppError",
    "CallNotFound",
    "CapacityError",
    "CarrierError",
    "CarrierRefused",
    "CarrierUnavailable",
    "ConfigError",
    "DialError",
    "FunctionFailed",
    "LocalProtocolError",
    "PlacingRefused",
    "ProtocolError",
    "RemoteProtocolError",
    "SignatureError",
    "StoreError",
    "StoreUnavailable",
    "ToolArgsInvalid",
    "ToolError",
    "ToolFailed",
    "ToolTimeout",
    "VoiceClosed",
    "VoiceError",
    "VoiceRefused",
    "VoiceUnavailable",
]


class AppError(Exception):
    """Root of every error that Trunkline raises on purpose."""

    code = "internal_error"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = str(message)  # an operator's function may raise it with anything
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable


class ConfigError(AppError):
    """A setting is wrong or missing."""

    code = "config_invalid"


class ProtocolError(AppError):
    """A message breaks the rules of its protocol."""

    code = "protocol_error"


class LocalProtocolError(ProtocolError):
    """We were about to break the protocol: our bug."""

    code = "local_protocol_error"


class RemoteProtocolError(ProtocolError):
    """The peer sent what its protocol does not allow."""

    code = "remote_protocol_error"


class CarrierError(AppError):
    """The phone side failed."""

    code = "carrier_error"


class SignatureError(CarrierError):
    """The request does not carry the carrier's signature (HTTP 403)."""

    code = "signature_invalid"


class CarrierRefused(CarrierError):
    """The carrier refused a request."""

    code = "carrier_refused"


class CarrierUnavailable(CarrierError):
    """The carrier could not be reached, or is overloaded."""

    code = "carrier_unavailable"
    retryable = True


class VoiceError(AppError):
    """The voice model failed; `session_id` is its own id of the session, where it gave one."""

    code = "voice_error"
    session_id = ""


class VoiceRefused(VoiceError):
    """The model refused us for a reason that no retry can heal."""

    code = "voice_refused"


class VoiceUnavailable(VoiceError):
    """The model could not be reached, or failed for now."""

    code = "voice_unavailable"
    retryable = True


class VoiceClosed(VoiceError):
    """The connection to the model ended; `close_code` is the websocket close code."""

    code = "voice_closed"
    retryable = True

    def __init__(self, message: str, *, close_code: int = 1006) -> None:
        super().__init__(message)
        self.close_code = close_code


class StoreError(AppError):
    """The call history refused a request."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The call history could not be reached, is locked, full or read-only."""

    code = "store_unavailable"
    retryable = True


class CallNotFound(StoreError):
    """The call history has no such call (HTTP 404)."""

    code = "call_not_found"


class CapacityError(AppError):
    """No room for another call, or the server is draining (HTTP 503)."""

    code = "no_capacity"


class ActionRefused(AppError):
    """A call cannot do what an operator asks for: it is over, or busy with something else."""

    code = "action_refused"


class PlacingRefused(AppError):
    """A call is not placed: the dial policy, the server or its configuration says no.

    `not_before` is a time, in ISO 8601, where waiting helps.
    """

    code = "placing_refused"

    def __init__(
        self, message: str, *, code: str | None = None, not_before: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.not_before = not_before


class DialError(AppError):
    """The simulated caller could not place its call; the message says what to do."""

    code = "dial_failed"


class ToolError(AppError):
    """A tool did not do its work; the text becomes the tool's output."""

    code = "tool_failed"


class ToolTimeout(ToolError):
    """The tool took longer than it may."""

    code = "tool_timeout"


class FunctionFailed(AppError):
    """A function of the operator raised SystemExit, KeyboardInterrupt or the like."""

    code = "failed"


class ToolFailed(ToolError):
    """The tool raised an error."""

    code = "tool_failed"


class ToolArgsInvalid(ToolError):
    """The model called the tool with arguments that it does not take."""

    code = "tool_args_invalid"
