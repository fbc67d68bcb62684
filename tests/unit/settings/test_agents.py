"""Agents, tools, rules, destinations and numbers in `config.yaml`: read, or refused by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from app.calls.turns.presets import PRESETS
from app.settings import SessionOverrides, Settings, masked
from app.settings.sections.agents import BUILT_IN_TOOLS
from tests.unit.settings.test_load import refusal, settings_of

CANARY = "canary-0123456789-0123456789"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "agents:\n  a: {voce: marin}\n",
            'config.yaml:2: agents.a.voce: unknown key; did you mean "voice"?',
        ),
        (
            "agents:\n  two words: {}\n",
            "config.yaml:2: agents.two words: 'two words': an agent's name is letters, digits, _ "
            "and -, up to 52",
        ),
        (
            "agents:\n  a:\n    tools: [end_cal]\n",
            "config.yaml:3: agents.a.tools[0]: there is no tool 'end_cal'; did you mean "
            '"end_call"?',
        ),
        (
            "agents:\n  a:\n    tools: [end_call, end_call]\n",
            "config.yaml:3: agents.a.tools[1]: 'end_call' is given twice",
        ),
        (
            "agents:\n  a:\n    tools: [transfer_call]\n",
            "config.yaml:3: agents.a.tools[0]: transfer_call needs destinations: describe at "
            "least one",
        ),
        (
            "agents:\n  a:\n    keypad: {'1': repeat}\n"
            "    menu: {prompt: Press 1., otherwise: {agent: b}}\n",
            "config.yaml:4: agents.a.menu.otherwise.agent: there is no agent 'b'; there is a",
        ),
        (
            "agents:\n  a:\n    handoffs:\n      - a\n",
            "config.yaml:4: agents.a.handoffs[0]: there is no other agent 'a'; there is none yet",
        ),
        (
            "agents:\n  a: {guardrails: [x]}\nguardrails:\n  polite: {question: Is it rude}\n",
            "config.yaml:2: agents.a.guardrails[0]: there is no guardrail 'x'; there is polite",
        ),
        (
            "agents:\n  a: {mcp_servers: [x]}\n",
            "config.yaml:2: agents.a.mcp_servers[0]: there is no MCP server 'x'; there is none yet",
        ),
        (
            'agents:\n  a:\n    keypad:\n      "1": {transfer: sales}\n',
            "config.yaml:4: agents.a.keypad.1.transfer: there is no destination 'sales'; there is "
            "none yet",
        ),
        (
            'agents:\n  a:\n    keypad:\n      "A": repeat\n',
            "config.yaml:4: agents.a.keypad.A: 'A': a keypad has the keys 0 to 9, * and #",
        ),
        (
            'agents:\n  a:\n    keypad:\n      "12": repeat\n',
            "config.yaml:4: agents.a.keypad.12: '12': a keypad has the keys 0 to 9, * and #",
        ),
        (
            'agents:\n  a:\n    keypad:\n      "1": {agent: boss}\n',
            "config.yaml:4: agents.a.keypad.1.agent: there is no agent 'boss'; there is a",
        ),
        (
            'agents:\n  a:\n    keypad:\n      "1": {say: " "}\n',
            "config.yaml:4: agents.a.keypad.1: say and hang_up need words",
        ),
        (
            'agents:\n  a:\n    keypad:\n      "1": {dance: now}\n',
            "config.yaml:4: agents.a.keypad.1.dance: unknown key; known here: agent, hang_up, say, "
            "transfer",
        ),
        (
            'agents:\n  a:\n    keypad:\n      "1": {say: Hi, agent: a}\n',
            "config.yaml:4: agents.a.keypad.1: exactly one of say, transfer, agent and hang_up is "
            "needed; found say and agent",
        ),
        (
            "agents:\n  a:\n    variables: {time: now}\n",
            "config.yaml:3: agents.a.variables: a variable cannot be named 'time'",
        ),
        (
            "agents:\n  a:\n    menu: {prompt: Press one., otherwise: hang_up}\n",
            "config.yaml:2: agents.a: menu offers keys, and there are none: add them under keypad",
        ),
        (
            "agents:\n  a:\n    time_zone: Mars/Olympus\n",
            "config.yaml:3: agents.a.time_zone: 'Mars/Olympus' is not a time zone such as "
            "America/New_York, or this system has no time zone data (install tzdata)",
        ),
        (
            "tools:\n  t: {}\n",
            "config.yaml:2: tools.t: exactly one of python and http is needed; found none",
        ),
        (
            "tools:\n  t: {python: clinic.find}\n",
            "config.yaml:2: tools.t.python: expected package.module:function; found 'clinic.find'",
        ),
        (
            "tools:\n  t: {http: {url: 'https://a.example.com'}}\n",
            "config.yaml:2: tools.t: an HTTP tool needs a description: the model chooses by it",
        ),
        (
            "tools:\n  transfer_to_x: {python: 'a:b'}\n",
            "config.yaml:2: tools.transfer_to_x: transfer_to_ begins the names of handoffs: take "
            "another name",
        ),
        (
            "tools:\n  end_call: {python: 'a:b'}\n",
            "config.yaml:2: tools.end_call: end_call is built in: take another name",
        ),
        (
            "tools:\n  t:\n    description: Look\n    http:\n      url: https://a.example.com\n"
            "      metod: GET\n",
            'config.yaml:6: tools.t.http.metod: unknown key; did you mean "method"?',
        ),
        (
            "mcp_servers:\n  m: {url: 'https://a.example.com', args: [x]}\n",
            "config.yaml:2: mcp_servers.m: args does nothing with url: remove it",
        ),
        (
            "guardrails:\n  g: {pattern: x, question: y}\n",
            "config.yaml:2: guardrails.g: exactly one of pattern, python and question is needed; "
            "found pattern and question",
        ),
        (
            "guardrails:\n  g: {pattern: x, action: warn, say: Stop!}\n",
            "config.yaml:2: guardrails.g: say does nothing with action warn: remove it",
        ),
        (
            "destinations:\n  Sales: {number: +15551234567}\n",
            "config.yaml:2: destinations.Sales: 'Sales': a destination's name is small letters, "
            "digits, - and _, up to 64, and not caller",
        ),
        (
            "destinations:\n  sales: {number: +15551234567, sip: 'sip:a@b.example.com'}\n",
            "config.yaml:2: destinations.sales: exactly one of number, sip and queue is needed; "
            "found number and sip",
        ),
        (
            "destinations:\n  q: {queue: support, mode: warm}\n",
            "config.yaml:2: destinations.q: nobody is called for a queue: mode must be cold",
        ),
        (
            "numbers:\n  '5551234': {}\n",
            "config.yaml:2: numbers.5551234: '5551234' is not a phone number: write the whole "
            "number with + and country code, such as +15551234567",
        ),
        (
            "agents:\n  clara: {}\nnumbers:\n  +15551234567: {agent: klara}\n",
            "config.yaml:4: numbers.+15551234567.agent: there is no agent 'klara'; did you mean "
            '"clara"?',
        ),
        (
            "numbers:\n  +15551234567:\n    closed: {say: Bye}\n",
            "config.yaml:2: numbers.+15551234567: closed does nothing without hours: add them, or "
            "remove it",
        ),
        (
            "numbers:\n  +15551234567:\n    percent: 50\n",
            "config.yaml:2: numbers.+15551234567: percent needs a fallback, where the other calls "
            "go",
        ),
        (
            "numbers:\n  +15551234567:\n    hours: {time_zone: UTC, open: {}}\n"
            "    closed: {say: 'Until {tomorrow}.'}\n",
            "config.yaml:4: numbers.+15551234567.closed.say: there is no {tomorrow}; known is "
            "{next_opening}",
        ),
        (
            "numbers:\n  +15551234567: {preset: loud}\n",
            "config.yaml:2: numbers.+15551234567.preset: expected 'quiet', 'office', 'street' or "
            "'speakerphone'; found 'loud'",
        ),
        (
            "analysis: {tasks: [book], intents: [cancel]}\n",
            "config.yaml:1: analysis: tasks names 'book', which is none of the intents",
        ),
        (
            "guardrails:\n  g: {question: x, reason: y}\n",
            "config.yaml:2: guardrails.g: reason is for a pattern: functions and models give "
            "their own",
        ),
        (
            "analysis: {tasks: [book], intents: [book]}\n",
            "config.yaml:1: analysis: tasks need a task_tool or a webhook that does them",
        ),
        (
            "agents:\n  clara: {}\nnumbers:\n  +15551234567:\n    hours: {time_zone: UTC, "
            "open: {}}\n    closed: {agent: clara, transfer: x}\ndestinations: {x: {queue: q}}\n",
            "config.yaml:6: numbers.+15551234567.closed: agent and transfer exclude each other: "
            "keep one",
        ),
        (
            "agents:\n  a: nobody\n",
            "config.yaml:2: agents.a: expected keys and values; found text",
        ),
        (
            "agents:\n  a: {tools: [5]}\n",
            "config.yaml:2: agents.a.tools[0]: expected text; found a number: put it into quotes",
        ),
        (
            "tools:\n  'a tool': {python: 'a:b'}\n",
            "config.yaml:2: tools.a tool: 'a tool': a tool's name is letters, digits, _ and -, up "
            "to 64",
        ),
        (
            "mcp_servers:\n  m: {command: m, env: {KEY: ' x'}}\n",
            "config.yaml:2: mcp_servers.m.env.KEY: expected plain text without line breaks, and "
            "without spaces around it",
        ),
        (
            "analysis:\n  review: {}\n  endpoint: {base_url: https://a.example.com, model: m}\n",
            "config.yaml:1: analysis: review needs a webhook, which gets it",
        ),
        (
            "analysis:\n  review: {}\n",
            "config.yaml:1: analysis: review needs an endpoint: the voice model is gone after the "
            "call",
        ),
        (
            "numbers:\n  +15551234567: {languages: [en, Spanish]}\n",
            "config.yaml:2: numbers.+15551234567.languages[1]: 'Spanish' is not a language code "
            "such as en",
        ),
        (
            "openai_realtime:\n  transcription: {language: EN}\n",
            "config.yaml:2: openai_realtime.transcription.language: 'EN' is not a language code "
            "such as en",
        ),
        (
            "limits:\n  inactivity: {after: 5}\n",
            'config.yaml:2: limits.inactivity.after: unknown key; did you mean "after_s"?',
        ),
        (
            "tools:\n  t: {http: {url: 'https://a.example'}, description: d, run_in: process}\n",
            "config.yaml:2: tools.t: run_in is for python: remove it",
        ),
        (
            "limits:\n  per_caller: {calls_per_hour: 5}\n",
            'config.yaml:2: limits.per_caller.calls_per_hour: unknown key; did you mean '
            '"calls_per_day"?',
        ),
        (
            "twilio:\n  allowed_countries: [us]\n",
            "config.yaml:2: twilio.allowed_countries[0]: 'us' is not a country such as US "
            "(ISO 3166)",
        ),
    ],
)  # fmt: skip
def test_a_wrong_agent_setting_is_named_with_line_and_remedy(
    text: str, expected: str, tmp_path: Path
) -> None:
    assert refusal(text, tmp_path) == [expected]


def test_names_that_lead_nowhere_are_reported_together_with_wrong_values(tmp_path: Path) -> None:
    text = """\
agents:
  a:
    tools: [one]
    voice: 5
numbers:
  +15551234567:
    agent: b
"""
    assert [line.split(" ")[0] for line in refusal(text, tmp_path)] == [
        "config.yaml:3:",
        "config.yaml:4:",
        "config.yaml:7:",
    ]


def test_tables_may_be_there_with_all_of_their_entries_turned_off(tmp_path: Path) -> None:
    text = "agents:\ntools:\nmcp_servers:\nguardrails:\ndestinations:\nnumbers:\nanalysis:\n"
    found = settings_of(text, tmp_path)
    assert (found.agents, found.tools, found.numbers, found.analysis) == ({}, {}, {}, None)


def test_agents_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    assert list(settings_of("agents: {zoe: {}, adam: {}}\n", tmp_path).agents) == ["zoe", "adam"]


def test_numbers_with_settings_are_numbers_of_ours(tmp_path: Path) -> None:
    text = "twilio: {from_number: +15551234567}\nnumbers: {+15551234567: {}, +15551230000: {}}\n"
    assert settings_of(text, tmp_path).all_numbers == ("+15551234567", "+15551230000")


SECRETS = f"""\
tools:
  t:
    description: Look
    http:
      url: https://a.example.com
      headers: {{Authorization: "Bearer tool-{CANARY}", V: "2"}}
mcp_servers:
  m: {{command: m, env: {{KEY: env-{CANARY}}}}}
  n: {{url: 'https://a.example.com', headers: {{Authorization: n-{CANARY}}}}}
analysis:
  endpoint: {{base_url: 'https://a.example.com', model: m, api_key: chat-{CANARY}}}
  webhook: {{url: 'https://a.example.com', secret: hook-{CANARY}}}
"""


def test_secrets_of_tools_and_servers_are_named_for_the_log_filter(tmp_path: Path) -> None:
    found = settings_of(SECRETS, tmp_path)
    held = set(found.secrets())
    assert {f"{kind}-{CANARY}" for kind in ("tool", "env", "n", "chat", "hook")} <= held
    assert "2" not in held
    for text in (repr(found), str(found), masked(found), found.model_dump_json()):
        assert "canary" not in text


def test_the_shown_configuration_of_agents_and_numbers_reads_back_the_same(
    tmp_path: Path,
) -> None:
    text = """\
agents:
  clara:
    turn_detection: {silence_duration_ms: 900}
    transcription: null
    limits: {inactivity: {after_s: 3}}
    keypad: {"0": {say: Hello.}, "9": hang_up}
  nora: {}
tools:
  look:
    description: Look
    http: {url: "https://a.example.com", parameters: {type: object, required: []}}
numbers:
  +15551234567: {audio: {speed: 1.2}, closed: {say: Bye.}, hours: {time_zone: UTC, open: {}}}
"""
    found = settings_of(text, tmp_path)
    tables = ("agents", "tools", "numbers")
    shown = yaml.safe_load(masked(found))
    again = settings_of(json.dumps({table: shown[table] for table in tables}), tmp_path)
    for table in tables:
        before, after = getattr(found, table), getattr(again, table)
        assert before == after
        for name in before:
            assert before[name].model_fields_set == after[name].model_fields_set
    assert again.agents["clara"].turn_detection is not None
    assert again.agents["clara"].turn_detection.model_fields_set == {"silence_duration_ms"}


def test_later_mistakes_still_know_their_line(tmp_path: Path) -> None:
    origin = settings_of("agents:\n  a:\n    voice: marin\n", tmp_path).origin
    assert origin.place("agents", "a", "voice") == "config.yaml:3: agents.a.voice"
    assert origin.place("agents", "a", "greeting") == "config.yaml:2: agents.a.greeting"
    assert Settings().origin.place("agents", "a") == "agents.a"


def test_presets_are_those_that_calls_know() -> None:
    for name in PRESETS:
        assert SessionOverrides.model_validate({"preset": name}).preset == name
    schema = str(SessionOverrides.model_fields["preset"].annotation)
    assert all(f"'{name}'" in schema for name in PRESETS)
    assert schema.count("'") == 2 * len(PRESETS)


def test_end_call_is_built_in() -> None:
    assert "end_call" in BUILT_IN_TOOLS
