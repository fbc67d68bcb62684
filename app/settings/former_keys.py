"""Keys of other systems and of the protocol's earlier versions, with what stands in their place."""

from __future__ import annotations

from typing import Final

from app.settings.reader.names import dotted
from app.settings.reader.origin import Place

__all__ = ["FORMER_SECTIONS", "former_key"]

FORMER_SECTIONS: Final = {"gemini", "whisper", "telegram", "tunnel", "scheduler"}
"""Sections of the system that Trunkline follows which have no counterpart here."""

_FORMAT: Final = "{section}.audio.format, pcm16_24k or pcmu, which is g711_ulaw"
_GREETING: Final = "{section}.greeting"
_INSTRUCTIONS: Final = "{instructions}"
_MODEL: Final[dict[str, str | None]] = {
    # OpenAI's session before September 2025, and the clients that follow it.
    "temperature": None,
    "top_p": None,
    "modalities": None,
    "output_modalities": None,
    "input_audio_format": _FORMAT,
    "output_audio_format": _FORMAT,
    "audio_format": _FORMAT,
    "input_audio_transcription": "{section}.transcription",
    "input_audio_noise_reduction": "{section}.audio.noise_reduction",
    "max_response_output_tokens": "{section}.max_output_tokens",
    "max_tokens": "{section}.max_output_tokens",
    "instructions": _INSTRUCTIONS,
    "system_instruction": _INSTRUCTIONS,
    "system_instructions": _INSTRUCTIONS,
    "system_prompt": _INSTRUCTIONS,
    "system_message": _INSTRUCTIONS,
    "prompt": _INSTRUCTIONS,
    "initial_prompt": _GREETING,
    "first_message": _GREETING,
    "welcome_message": _GREETING,
    "welcome_greeting": _GREETING,
    "model_name": "openai_realtime.model, or that of a number",
    "base_url": "openai_realtime.url",
    "endpoint": "openai_realtime.url",
    "azure_endpoint": "openai_realtime.url",
    "organization": "openai_realtime.headers: {OpenAI-Organization: ...}",
    "project": "openai_realtime.headers: {OpenAI-Project: ...}",
    "functions": "agents.NAME.tools, described under tools",
    "tools": "agents.NAME.tools, described under tools",
    "vad": "{section}.turn_detection",
    "vad_threshold": "{section}.turn_detection.threshold",
    "reasoning": "{section}.reasoning_effort",
    "input": "{section}.transcription and {section}.audio",
    "output": "{section}.voice and {section}.audio",
}
"""Of `openai_realtime`, agents and numbers; None for what calls cannot set."""

_KEYS: Final[dict[str, dict[str, str | None]]] = {
    "openai_realtime": _MODEL,
    "agents": _MODEL,
    "numbers": _MODEL,
    "twilio": {
        "phone_number": "twilio.from_number",
        "number": "twilio.from_number",
        "webhook_url": "server.public_url",
        "base_url": "server.public_url",
        "sid": "twilio.account_sid",
        "token": "twilio.auth_token",
    },
    "server": {
        "url": "server.public_url",
        "base_url": "server.public_url",
        "domain": "server.public_url",
        "hostname": "server.public_url",
        "ngrok_url": "server.public_url",
        "webhook_url": "server.public_url",
    },
    "logging": {"file": None, "path": None},
}
_GONE: Final = {
    "temperature": "the Realtime API has none any more: remove it, and say in the instructions how "
    "the agent is to speak",
    "top_p": "the Realtime API has none: remove it",
    "modalities": "remove it: a call is always spoken, with a transcript",
    "output_modalities": "remove it: a call is always spoken, with a transcript",
    "file": "remove it: the log goes to standard error, which a service manager keeps",
    "path": "remove it: the log goes to standard error, which a service manager keeps",
}


def former_key(path: Place) -> str | None:
    """The advice on an unknown key that other systems know; None for any other."""
    name, first = str(path[-1]).lower(), str(path[0])
    keys = _KEYS.get(first, {})
    depth = 2 if first in ("agents", "numbers") else 1
    # The session of OpenAI has some of them under `audio`.
    if name not in keys or len(path) - 1 != depth + (path[-2] == "audio"):
        return None
    new = keys[name]
    if new is None:
        return _GONE[name]
    section = dotted(path[:depth])
    instructions = {
        "openai_realtime": "openai_realtime.system_instruction",
        "agents": f"{section}.instructions",
    }.get(first, "agents.NAME.instructions")
    return f"write {new.format(section=section, instructions=instructions)}"
