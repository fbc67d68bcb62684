"""Retiring models and missing voices are named, with their date and replacement."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings import Settings, notices
from app.settings.notices import ModelFacts, Retirement, load_facts
from tests.unit.settings.test_load import settings_of

BEFORE = date(2026, 11, 21)


def settings_with(**model: object) -> Settings:
    section = {"api_key": "sk-proj-9876543210", "transcription": None, **model}
    return Settings.model_validate({"openai_realtime": section})


@pytest.mark.parametrize(
    ("name", "ends", "replacement"),
    [
        ("gpt-realtime", "2027-01-20", "gpt-realtime-2.1"),
        ("gpt-realtime-mini", "2027-01-20", "gpt-realtime-2.1-mini"),
        ("gpt-realtime-mini-2025-12-15", "2027-01-20", "gpt-realtime-2.1-mini"),
    ],
)
def test_a_retiring_model_is_named_with_date_and_replacement(
    name: str, ends: str, replacement: str
) -> None:
    expected = f"openai_realtime.model: {name} will be retired on {ends}: use {replacement}"
    assert notices(settings_with(model=name), BEFORE) == (expected,)


def test_on_its_date_a_model_was_retired() -> None:
    settings = settings_with(model="gpt-realtime")
    for day, verb in ((date(2027, 1, 19), "will be"), (date(2027, 1, 20), "was")):
        assert f"{verb} retired" in notices(settings, day)[0]


def test_the_model_of_the_earlier_system_was_retired() -> None:
    [text] = notices(settings_with(model="gpt-4o-realtime-preview-2024-12-17"), BEFORE)
    assert text.endswith("was retired on 2026-05-07: use gpt-realtime-2.1")


def test_whisper_is_named_with_its_end() -> None:
    [text] = notices(settings_with(transcription={"model": "whisper-1"}), BEFORE)
    assert text == (
        "openai_realtime.transcription.model: whisper-1 will be retired on 2027-02-26: "
        "use gpt-transcribe"
    )


@pytest.mark.parametrize("name", ["gpt-realtime-2.1", "gpt-realtime-2", "gpt-realtime-1.5"])
def test_other_models_are_not_mentioned(name: str) -> None:
    assert notices(settings_with(model=name), BEFORE) == ()


@pytest.mark.parametrize(
    ("voice", "better"),
    [("fable", "ballad"), ("onyx", "cedar"), ("nova", "marin"), ("marine", "marin")],
)
def test_a_voice_that_realtime_lacks_is_named_with_one_that_it_has(voice: str, better: str) -> None:
    [text] = notices(settings_with(voice=voice), BEFORE)
    assert text.startswith(
        f"openai_realtime.voice: Realtime has no voice {voice}: use {better} (it has marin, cedar"
    )


def test_a_voice_like_no_other_gets_the_list_alone() -> None:
    [text] = notices(settings_with(voice="q"), BEFORE)
    assert text.startswith("openai_realtime.voice: Realtime has no voice q (it has marin")


@pytest.mark.parametrize("voice", ["marin", "cedar", "alloy", "verse", "voice_abc123"])
def test_a_voice_that_exists_is_not_mentioned(voice: str) -> None:
    assert notices(settings_with(voice=voice), BEFORE) == ()


def test_names_in_agents_and_numbers_are_checked_too() -> None:
    settings = Settings.model_validate(
        {
            "openai_realtime": {"api_key": "sk-proj-9876543210", "transcription": None},
            "agents": {
                "a": {"voice": "fable", "transcription": {"model": "whisper-1"}},
                "b": {"voice": "cedar", "transcription": {"language": "en"}},
            },
            "numbers": {"+14155550123": {"model": "gpt-realtime", "voice": "onyx"}},
        }
    )
    assert [text.partition(":")[0] for text in notices(settings, BEFORE)] == [
        "agents.b",
        "agents.a.voice",
        "agents.a.transcription.model",
        "numbers.+14155550123.model",
        "numbers.+14155550123.voice",
    ]


@pytest.mark.parametrize("where", ["openai_realtime", "agents"])
def test_turn_detection_none_is_noticed(where: str) -> None:
    detection = {"turn_detection": {"type": "none"}}
    model = {"api_key": "sk-proj-9876543210", "transcription": None}
    sections: dict[str, object] = {
        "openai_realtime": {"openai_realtime": {**model, **detection}},
        "agents": {"openai_realtime": model, "agents": {"a": detection}},
    }
    [text] = notices(Settings.model_validate(sections[where]), BEFORE)
    assert ".turn_detection: with none nobody hears that a caller has finished" in text


def test_models_beside_that_of_the_calls_are_checked_where_they_are_openais() -> None:
    openai, own = "wss://api.openai.com/v1/realtime", "wss://own.example/v1/realtime"
    settings = Settings.model_validate(
        {
            "voice_model": "offline",
            "gateway": {
                "channels": {
                    "openai": {"url": openai},
                    "own": {"url": own},
                    "azure": {"azure": "https://x.openai.azure.com"},
                },
                "models": {
                    "gpt-realtime": {"channels": ["own", "openai"], "transcription": "whisper-1"},
                    "dear": {"channels": ["openai"], "upstream_model": "gpt-4o-realtime-preview"},
                    "gpt-realtime-mini": {"channels": ["own", "azure"]},
                    "gpt-realtime-2.1": {"channels": ["openai"]},
                },
            },
            "analysis": {
                "endpoint": {"base_url": "https://api.openai.com/v1", "model": "gpt-4o-mini"}
            },
        },
        strict=False,
    )
    told = notices(settings, BEFORE)
    assert sorted(text.partition(": ")[0] for text in told if " retired on " in text) == [
        "analysis.endpoint.model",
        "gateway.models.dear",
        "gateway.models.gpt-realtime",
        "gateway.models.gpt-realtime.transcription",
    ]


def test_nothing_is_said_of_other_servers_or_of_the_offline_engine() -> None:
    other = settings_with(model="gpt-realtime", voice="nova", url="wss://gateway.example/v1")
    assert notices(other, BEFORE) == ()
    offline = Settings.model_validate(
        {"voice_model": "offline", "openai_realtime": {"model": "gpt-realtime"}}
    )
    assert notices(offline, BEFORE) == ()


def test_an_operator_can_bring_facts_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "retirements:\n  - {model: x-*, ends: 2030-01-01, replacement: y}\n"
        "realtime_voices: [a]\nspeech_only_voices: {}\n"
    )
    facts = load_facts(path)
    assert facts == ModelFacts((Retirement("x-*", date(2030, 1, 1), "y"),), ("a",), {})
    [text] = notices(settings_with(model="x-1", voice="a"), BEFORE, facts)
    assert text.endswith("retired on 2030-01-01: use y")


def test_facts_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("retirements: [{model: x, ends: soon, replacement: y}]\n")
    with pytest.raises(ConfigError, match=r"models\.yaml"):
        load_facts(path)


def told(text: str, folder: Path, **variables: str) -> list[str]:
    """The notices about a file, without the models' retirement."""
    found = notices(settings_of(text, folder, **variables), BEFORE)
    return [one.replace(f"{folder}/", "") for one in found if "retired" not in one]


KEY = "sk-proj-9876543210"
LIVE = "twilio: {account_sid: AC0123456789abcdef0123456789abcdef, auth_token: '${T}'}\n"
TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.mark.parametrize("variables", [{}, {"OPENAI_API_KEY": KEY}], ids=["no key", "key"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("openai_realtime:\n  voice: nova\n", "config.yaml:2: openai_realtime.voice: Realtime has"),
        (
            "openai_realtime:\n  model: gpt-realtime-2.1-min\n",
            "config.yaml:2: openai_realtime.model: gpt-realtime-2.1-min is not a model that is "
            'known here; did you mean "gpt-realtime-2.1-mini"?',
        ),
        (
            "openai_realtime:\n  model: mine\n",
            "config.yaml:2: openai_realtime.model: mine is not a model that is known here (known",
        ),
        (
            "openai_realtime:\n  transcription: {model: whisper-2}\n",
            "config.yaml:2: openai_realtime.transcription.model: whisper-2 is not a model",
        ),
        (
            "agents:\n  a:\n    voice: onyx\n",
            "config.yaml:3: agents.a.voice: Realtime has no voice onyx: use cedar",
        ),
        (
            "openai_realtime: {transcription: {model: gpt-live-transcribe, delay: low}}\n",
            "config.yaml:1: openai_realtime.transcription.delay: is for gpt-realtime-whisper only",
        ),
        (
            "agents: {a: {transcription: {model: gpt-realtime-whisper, keywords: [x]}}}\n",
            "config.yaml:1: agents.a.transcription.keywords: is for gpt-transcribe and gpt-live-",
        ),
    ],
)
def test_unknown_models_and_voices_are_named_with_and_without_a_key(
    text: str, expected: str, variables: dict[str, str], tmp_path: Path
) -> None:
    [found] = told(text, tmp_path, **variables)
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("offline: {voice: cedar}", "offline.voice: does nothing: the engine does not run beside"),
        ("offline: {workers: 2}", "offline.workers: does nothing"),
        ("offline: {max_sessions: 2}", "offline.max_sessions: does nothing"),
        ("offline: {receptionist: r.yaml}", "offline.receptionist: does nothing"),
        ("offline: {realtime_token: 0f1e2d3c4b}", "offline.realtime_token: does nothing"),
        ("offline: {voice: alloy, realtime_token: null, workers: auto}", None),
        ("offline: {messages_dir: here}", None),
        (
            f"openai_realtime: {{api_key: {KEY}, headers: {{Authorization: Bearer 0f1e2d}}}}",
            "openai_realtime.api_key: is not sent: headers hold a key",
        ),
        (
            "openai_realtime: {speaks_first: caller, greeting: Hi.}",
            "openai_realtime.greeting: is not said: speaks_first is caller",
        ),
        ("openai_realtime: {speaks_first: caller}", None),
        (
            "agents: {a: {speaks_first: caller, greeting: Hi.}}",
            "agents.a.greeting: is not said: speaks_first is caller",
        ),
        (
            "agents: {a: {speaks_first: caller, keypad: {'1': repeat}, menu: {prompt: Press 1, "
            "otherwise: hang_up}}}",
            "agents.a.menu: is not spoken: speaks_first is caller",
        ),
        (
            "limits: {duration_warning_s: 0, duration_warning: Soon.}",
            "limits.duration_warning: is not said: duration_warning_s is 0",
        ),
        (
            "limits: {inactivity: {after_s: 0, goodbye: Bye.}}",
            "limits.inactivity.goodbye: is not said: after_s is 0",
        ),
        ("agents: {a: {}, b: {}}", "agents.b: answers no call: no number, key or handoff leads"),
        ("agents: {a: {handoffs: [b]}, b: {handoffs: [c]}, c: {}}", None),
        ("agents: {a: {keypad: {'1': {agent: b}}}, b: {}}", None),
        ("agents: {a: {}, b: {}}\nnumbers: {+15551234567: {agent: b}}", None),
        (
            "agents: {a: {}, b: {}}\nnumbers: {+15551234567: {hours: {time_zone: UTC, open: {}}, "
            "closed: {agent: b}}}",
            None,
        ),
        ("tools: {t: {python: 'm:f'}}", "tools.t: is used by no agent"),
        ("tools: {t: {python: 'm:f'}}\nagents: {a: {tools: [t]}}", None),
        ("guardrails: {g: {pattern: x}}", "guardrails.g: is used by no agent"),
        ("guardrails: {g: {pattern: x}}\nagents: {a: {guardrails: [g]}}", None),
        ("mcp_servers: {m: {command: x}}", "mcp_servers.m: is used by no agent"),
        ("mcp_servers: {m: {command: x}}\nagents: {a: {mcp_servers: [m]}}", None),
        (
            "mcp_servers: {m: {command: x}}\nanalysis: {intents: [i], tasks: [i], task_tool: look}",
            None,
        ),
        ("destinations: {d: {number: +15551234567}}", "destinations.d: is used by no agent"),
        ("destinations: {d: {queue: q}}\nagents: {a: {tools: [transfer_call]}}", None),
        ("destinations: {d: {queue: q}}\nagents: {a: {keypad: {'1': {transfer: d}}}}", None),
        ("destinations: {d: {queue: q}}\nnumbers: {+15551234567: {fallback: d}}", None),
    ],
)
def test_a_setting_without_effect_is_named(text: str, expected: str | None, tmp_path: Path) -> None:
    found = told(text, tmp_path, OPENAI_API_KEY=KEY)
    if expected is None:
        assert found == []
        return
    [one] = found
    assert one.startswith("config.yaml:1: " + expected)


def test_a_number_has_no_model_of_its_own_where_the_engine_answers(tmp_path: Path) -> None:
    text = "numbers:\n  +15551234567:\n    model: gpt-realtime-2\n"
    assert told(text, tmp_path) == [
        "config.yaml:3: numbers.+15551234567.model: does nothing: the offline engine answers"
    ]


@pytest.mark.parametrize(
    "secret",
    [
        "your-api-key-here", "sk-your-key", "YOUR_OPENAI_KEY", "changeme", "change-me!",
        "<your key>", "sk-proj-xxxxxxxxxxxx", "sk-...........", "********", "aaaaaaaaaaaa",
        "12345678",
        "sk-12345678", "placeholder", "secret-key", "password1", "insert key", "my-secret-token",
    ],
)  # fmt: skip
def test_a_placeholder_is_named_where_it_stands(secret: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"A=1\nOPENAI_API_KEY='{secret}'\nMETRICS_TOKEN='{secret}'\n")
    assert told("", tmp_path) == [
        f".env:{line}: {key} (from {name}): looks like a placeholder: put the real value there"
        for line, key, name in (
            (2, "openai_realtime.api_key", "OPENAI_API_KEY"),
            (3, "server.metrics_token", "METRICS_TOKEN"),
        )
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://voice.harbor-clinic.org", None),
        ("https://voice.harbor-clinic.org:443/x", None),
        ("https://203-0-114-9.sslip.io", None),
        ("https://8.8.8.8", None),
        ("https://voice.harbor-clinic.org:8443", "Twilio opens media streams on port 443 only"),
        ("https://192.168.1.5", "Twilio cannot reach 192.168.1.5"),
        ("https://10.0.0.1", "Twilio cannot reach 10.0.0.1"),
        ("https://100.64.1.1", "Twilio cannot reach 100.64.1.1"),
        ("https://169.254.1.1", "Twilio cannot reach 169.254.1.1"),
        ("https://[fd00::1]", "Twilio cannot reach fd00::1"),
        ("https://0.0.0.0", "Twilio cannot reach 0.0.0.0"),
        ("https://trunkline", "Twilio cannot reach trunkline"),
        ("https://nas.local", "Twilio cannot reach nas.local"),
        ("https://a.svc.cluster.local.", "Twilio cannot reach a.svc.cluster.local"),
        ("https://host.docker.internal", "Twilio cannot reach host.docker.internal"),
        ("https://voice.example.com", "is an address from an example"),
    ],
)
def test_an_address_that_twilio_cannot_reach_is_named(
    url: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"T={TOKEN}\nPUBLIC_URL={url}\n")
    found = told(LIVE, tmp_path, OPENAI_API_KEY=KEY)
    if expected is None:
        assert found == []
        return
    [one] = found
    assert one.startswith(f".env:2: server.public_url (from PUBLIC_URL): {expected}")


def test_a_token_that_is_not_one_of_twilio_is_named(tmp_path: Path) -> None:
    [one] = told(LIVE, tmp_path, T="SKzz2d3c4b5a", OPENAI_API_KEY=KEY)
    assert one.startswith("config.yaml:1: twilio.auth_token (from T): does not look like a token")
    [one] = told("", tmp_path, OPENAI_API_KEY=TOKEN)
    assert one.startswith("config.yaml:1: openai_realtime.api_key (from OPENAI_API_KEY): does not ")
