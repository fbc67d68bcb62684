"""Every setting of `openai_realtime` as the model gets it, judged by the vendor's own model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai.types.realtime as vendor
import pytest
from pydantic import TypeAdapter

from app.assembly.agents.sessions import session_config
from app.realtime.dialect import GA
from app.realtime.events import SessionUpdate
from app.settings import load

CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(vendor.RealtimeClientEvent)
PCM = {"type": "audio/pcm", "rate": 24_000}


def sent(config: str, tmp_path: Path) -> dict[str, Any]:
    """The session of the `session.update` that these settings lead to, tools left out."""
    path = tmp_path / "config.yaml"
    path.write_text(config)
    settings = load(path, {}).openai_realtime
    text = GA.encode_client(SessionUpdate(session_config(settings)), "evt_1")
    CLIENT_EVENT.validate_json(text)
    session: dict[str, Any] = json.loads(text)["session"]
    del session["tools"]
    return session


def test_what_is_not_set_is_the_models_own_but_for_our_defaults(tmp_path: Path) -> None:
    session = sent("openai_realtime: {system_instruction: Be brief.}\n", tmp_path)
    assert session == {
        "type": "realtime",
        "model": "gpt-realtime-2.1",
        "output_modalities": ["audio"],
        "instructions": "Be brief.",
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "audio": {
            "input": {
                "format": PCM,
                "transcription": {"model": "gpt-transcribe"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.6,
                    "prefix_padding_ms": 200,
                    "silence_duration_ms": 300,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": PCM, "voice": "marin"},
        },
    }


def test_every_setting_reaches_the_model(tmp_path: Path) -> None:
    config = """\
openai_realtime:
  model: gpt-realtime-2.1-mini
  voice: voice_123
  system_instruction: Be kind.
  turn_detection:
    threshold: 0.7
    prefix_padding_ms: 100
    silence_duration_ms: 400
    idle_timeout_ms: 12000
    create_response: false
    interrupt_response: false
  transcription:
    model: gpt-live-transcribe
    languages: [en, es]
    keywords: [Trunkline]
    prompt: A clinic.
    delay: low
  audio: {format: pcmu, noise_reduction: near_field, speed: 1.1}
  max_output_tokens: 2000
  tool_choice: required
  parallel_tool_calls: false
  reasoning_effort: low
  truncation: {retention_ratio: 0.8, post_instructions_tokens: 12000}
  tracing: {workflow_name: calls, group_id: front, metadata: {site: north}}
"""
    assert sent(config, tmp_path) == {
        "type": "realtime",
        "model": "gpt-realtime-2.1-mini",
        "output_modalities": ["audio"],
        "instructions": "Be kind.",
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_output_tokens": 2000,
        "reasoning": {"effort": "low"},
        "truncation": {
            "type": "retention_ratio",
            "retention_ratio": 0.8,
            "token_limits": {"post_instructions": 12_000},
        },
        "tracing": {
            "workflow_name": "calls",
            "group_id": "front",
            "metadata": {"site": "north"},
        },
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "noise_reduction": {"type": "near_field"},
                "transcription": {
                    "model": "gpt-live-transcribe",
                    "languages": ["en", "es"],
                    "keywords": ["Trunkline"],
                    "prompt": "A clinic.",
                    "delay": "low",
                },
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.7,
                    "prefix_padding_ms": 100,
                    "silence_duration_ms": 400,
                    "idle_timeout_ms": 12_000,
                    "create_response": False,
                    "interrupt_response": False,
                },
            },
            "output": {
                "format": {"type": "audio/pcmu"},
                "voice": {"id": "voice_123"},
                "speed": 1.1,
            },
        },
    }


@pytest.mark.parametrize(
    ("setting", "where", "wire"),
    [
        (
            "turn_detection: {type: semantic_vad, eagerness: high, create_response: false}",
            "turn_detection",
            {
                "type": "semantic_vad",
                "eagerness": "high",
                "create_response": False,
                "interrupt_response": True,
            },
        ),
        ("turn_detection: {type: none}", "turn_detection", None),
        ("transcription: null", "transcription", None),
        (
            "transcription: {model: gpt-4o-transcribe, language: en}",
            "transcription",
            {"model": "gpt-4o-transcribe", "language": "en"},
        ),
    ],
)
def test_listening_is_set_or_turned_off(
    setting: str, where: str, wire: object, tmp_path: Path
) -> None:
    session = sent(f"openai_realtime:\n  {setting}\n", tmp_path)
    assert session["audio"]["input"][where] == wire


@pytest.mark.parametrize(
    ("setting", "wire"), [("auto", "auto"), ("{group_id: a}", {"group_id": "a"})]
)
def test_tracing_may_be_told_little(setting: str, wire: object, tmp_path: Path) -> None:
    assert sent(f"openai_realtime:\n  tracing: {setting}\n", tmp_path)["tracing"] == wire
