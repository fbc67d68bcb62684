"""The errors that Trunkline raises: `AppError` is the root of them all."""

from __future__ import annotations

from app.errors import (
    AppError,
    CapacityError,
    CarrierError,
    CarrierRefused,
    CarrierUnavailable,
    ConfigError,
    DialError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    SignatureError,
    ToolArgsInvalid,
    ToolError,
    ToolFailed,
    ToolTimeout,
    VoiceClosed,
    VoiceError,
    VoiceRefused,
    VoiceUnavailable,
)

__all__ = [
    "AppError",
    "CapacityError",
    "CarrierError",
    "CarrierRefused",
    "CarrierUnavailable",
    "ConfigError",
    "DialError",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "SignatureError",
    "ToolArgsInvalid",
    "ToolError",
    "ToolFailed",
    "ToolTimeout",
    "VoiceClosed",
    "VoiceError",
    "VoiceRefused",
    "VoiceUnavailable",
]
