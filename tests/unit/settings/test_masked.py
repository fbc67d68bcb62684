"""`config show` prints a file that reads back as the same settings, and holds no secret."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.check import check_config
from app.errors import ConfigError
from app.settings import Settings, fingerprint, load, masked
from app.settings.reader.secrets import hide_secrets, is_secret_label
from tests.unit.settings.test_load import settings_of
from tests.unit.test_docs import CLINIC, CONFIG, TOKENS, with_examples

ROOT = Path(__file__).parents[3]
RANDOM = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
LIVE = {
    "OPENAI_API_KEY": "sk-proj-canary-0123456789",
    "TWILIO_ACCOUNT_SID": "AC" + "1" * 32,
    "TWILIO_AUTH_TOKEN": "f" * 32,
    "TWILIO_PHONE_NUMBER": "+15551234567",
    "PUBLIC_URL": "https://voice.example.com",
    "STATE_DIR": "/tmp/state",
}


def shown_again(path: Path, variables: dict[str, str]) -> tuple[Settings, Settings]:
    """The settings of a file, and those of what is shown of them, read in the same folder."""
    before = load(path, variables)
    shown = path.with_name("shown.yaml")
    shown.write_text(masked(before))
    return before, load(shown, variables)


@pytest.mark.parametrize("variables", [{}, LIVE], ids=["development", "live"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        CONFIG,
        with_examples("numbers.NUMBER.closed.agent"),
        with_examples("numbers.NUMBER.closed.transfer"),
        (ROOT / "examples/clinic/config.yaml").read_text(),
    ],
    ids=["empty", "shipped", "examples", "examples too", "clinic"],
)
def test_what_is_shown_is_checked_and_read_as_the_same(
    text: str, variables: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    (tmp_path / "clinic.py").write_text(CLINIC)
    shutil.copy(ROOT / "examples/clinic/receptionist.yaml", tmp_path)
    tokens = TOKENS | variables
    before, after = shown_again(path, tokens)
    assert after.model_dump() == before.model_dump()
    assert masked(after) == masked(before)
    assert fingerprint(after) == fingerprint(before)
    assert not any(secret in masked(before) for secret in before.secrets())
    first, second = check_config(path, tokens), check_config(path.with_name("shown.yaml"), tokens)
    assert [line.partition(": ")[2] for line in second.problems] == [
        line.partition(": ")[2] for line in first.problems
    ]


@pytest.mark.parametrize(
    "text",
    [
        "openai_realtime: {turn_detection: {type: semantic_vad, eagerness: low}}",
        "openai_realtime: {turn_detection: {type: none}}",
        "openai_realtime: {transcription: null, system_instruction: 'costs $${X} or 5$'}",
        "openai_realtime: {greeting: '1e5', transcription: {keywords: ['1e5', '007', 'NO', '~']}}",
        'openai_realtime: {system_instruction: "a: b\\n# c\\n\\n  - d\\u2028\\t\'e\' \\"f\\""}',
        "openai_realtime:\n  max_output_tokens: ${N}\n  truncation: {retention_ratio: 1e-05}",
        "server:\n  port: ${N}\nstate_dir: ../x\noffline: {receptionist: a/../b.yaml}",
        "mcp_servers: {m: {command: m, args: [-v], env: {A: '${N}'}}}",
        "mcp_servers: {m: {url: 'https://a.example.com/mcp', headers: {A: 'Bearer ${N}'}}}",
        "guardrails: {g: {pattern: x, action: warn}}",
        "numbers: {+15551234567: {hours: {time_zone: UTC, open: {mon: '9:00-17:00'}}}}",
        "agents: {a: {keypad: {'0': {say: Hello.}, '*': repeat}, transcription: null}}",
        "prices: {'1e5': {text_in: 1e-7}, '': {}}",
    ],
)
def test_odd_values_are_shown_as_they_are_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    before, after = shown_again(path, {"N": "81"})
    assert after.model_dump() == before.model_dump()


HIDDEN = {
    "openai_realtime: {api_key: '${K}'}": "api_key: ${K}  # ****-key",
    "openai_realtime: {api_key: '${S}'}": "api_key: ${S}  # ****",
    "openai_realtime: {api_key: '${NONE:-canary-of-the-file}'}": "api_key: '********'",
    "openai_realtime: {headers: {A: 'Bearer ${K}'}}": "A: Bearer ${K}  # ****-key",
    "openai_realtime: {headers: {A: 'canary-word ${K}'}}": "A: '********************-key'",
    "openai_realtime: {model: '${K_TOKEN}'}": "model: ${K_TOKEN}",
    f"openai_realtime: {{voice: {RANDOM}}}": "voice: '****'",
    "openai_realtime: {url: 'wss://a.example.com/v1?api-key=canary'}": "v1?api-key=****",
    "openai_realtime: {url: 'wss://a.example.com/${K_TOKEN}/x'}": "com/${K_TOKEN}/x",
    f"openai_realtime: {{url: 'wss://a.example.com/{RANDOM}/x'}}": "com/****/x",
    "mcp_servers: {m: {command: m, args: [--token, canary, --key=canary, -v]}}": "- --key=****",
    "mcp_servers: {m: {url: 'https://a.example.com/?token=canary'}}": "com/?token=****",
    "analysis: {endpoint: {base_url: 'https://a.example.com?key=canary', model: m}}": "?key=****",
    "analysis: {webhook: {url: 'https://h.example.com/T01/x${K_TOKEN}', secret: canary-word}}":
        "/T01/x${K_TOKEN}",
    "tools: {t: {description: x, http: {url: 'https://x:canary@a.example.com'}}}": "x:****@a",
    "tools: {t: {description: x, http: {url: 'https://a.example.com?token={token}'}}}":
        "?token={token}",
    "tools: {t: {description: x, http: {url: 'https://a.example.com', body: {api_key: canary, "
    "deep: [{password: '${K}'}], token: '{token}'}}}}": "password: ${K}",
    "agents: {a: {variables: {crm_token: canary}}}": "crm_token: '********'",
}  # fmt: skip


@pytest.mark.parametrize("text", HIDDEN)
def test_secrets_are_hidden_wherever_they_stand(text: str, tmp_path: Path) -> None:
    secret = "canary-and-more-of-a-key"
    found = settings_of(text, tmp_path, K=secret, K_TOKEN=secret, S="canary-short")
    shown = masked(found)
    assert HIDDEN[text] in shown
    for part in ("canary", RANDOM):
        assert part not in shown
    (tmp_path / "shown.yaml").write_text(shown)
    again = load(tmp_path / "shown.yaml", {"K": secret, "K_TOKEN": secret, "S": "canary-short"})
    assert masked(again).replace("'", "") == shown.replace("'", "")
    known = found.secrets()
    assert secret in known or "${K" not in text
    assert RANDOM in known or RANDOM not in text


SHAPES = {
    "a token of Twilio": RANDOM,
    "a key of OpenAI": "sk-proj-Ab3dEf6hIj9lMnOpQrSt_uVwX-yZ012345678",
    "a key of Google": "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",
    "a uuid": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "a token of GitHub": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
}


def filled(node: Any, secret: str) -> Any:
    """The same keys with a secret in place of each value."""
    if isinstance(node, dict):
        return {key: filled(value, secret) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(value, secret) for value in node]
    return secret


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_in_the_place_of_any_value_is_not_repeated(shape: str, tmp_path: Path) -> None:
    secret, path = SHAPES[shape], tmp_path / "config.yaml"
    whole = yaml.safe_load(with_examples("numbers.NUMBER.closed.agent"))
    (tmp_path / "clinic.py").write_text(CLINIC)
    wrong = [{section: filled(whole[section], secret)} for section in whole]
    for changed in (*wrong, dict.fromkeys(whole, secret), {secret: 1}):
        path.write_text(json.dumps(whole | changed))
        try:
            told = masked(load(path, TOKENS))
        except ConfigError as error:
            told = error.message
        assert secret not in told


@pytest.mark.parametrize(
    "text",
    [
        "Qwen3-30B-A3B-Instruct-2507-FP8 mlx-community/Qwen3-TTS-12Hz-1.7B",
        "gpt-4o-realtime-preview-2024-12-17",
        "AC" + "1" * 32,
        "+15551234567",
        "https://voice.example.com/path?name=value&id=17",
        "en-us+m7 package.module:find_free_slot_v2",
        "[0-9]{4}([ -]?[0-9]{4}){3}",
        "internationalization risk-assessment-tool-2",
        "sip:front-desk@pbx.example.com;transport=tls",
        "a key of the model, secret=, tokens=5",
        "?token={token}",
    ],
)
def test_ordinary_words_are_not_taken_for_secrets(text: str) -> None:
    assert hide_secrets(text) == text


def test_labels_of_secrets() -> None:
    labels = ("api_key", "X-Api-Key", "Authorization", "token", "crm.token", "--password")
    assert all(is_secret_label(name) for name in labels)
    others = ("keywords", "keypad", "Idempotency", "tokens_max", "monkey", "author", "turkey")
    assert not any(is_secret_label(name) for name in others)
