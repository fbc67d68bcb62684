"""Settings become agents, tools, guardrails, destinations and routes."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.agents.guardrails.rules import GuardrailContext, Stop, Warn
from app.agents.instructions import CallFacts
from app.agents.tools.call_control import CALL_TOOLS
from app.agents.tools.read_back import READ_BACK
from app.agents.tools.tool import Approval, ToolContext
from app.assembly import Assembly, assemble, call_policy, session_config
from app.calls.keypad.menu import HangUp, MenuPlan, Repeat, Say, ToAgent, Transfer
from app.calls.policy import CallPolicy
from app.calls.route import Diversion, Route
from app.calls.transfer.phone_tools import phone_tools
from app.calls.turns.presets import PRESETS
from app.carrier.base import CallerIdPolicy, CarrierCallId, IncomingCall
from app.carrier.destinations import Destinations, destination
from app.credentials.api_keys import ApiKeys, Scope
from app.errors import ConfigError
from app.events import CallId, Party
from app.realtime.events import DEFAULT_TURN_DETECTION, UNSET, SemanticVad, ServerVad, Transcription
from app.settings import Settings, load
from app.settings.sections.agents import BUILT_IN_TOOLS

HEAD = "openai_realtime: {api_key: a key of the model}\n"
OURS = "+15551234567"
MODULES = itertools.count()


def settings_of(text: str, folder: Path) -> Settings:
    path = folder / "config.yaml"
    path.write_text(HEAD + text)
    return load(path, {})


def assembly_of(text: str, folder: Path) -> Assembly:
    return assemble(settings_of(text, folder))


def refusal(text: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        assembly_of(text, folder)
    return caught.value.message.splitlines()


def module(folder: Path, code: str) -> str:
    """A new module beside the configuration; each has a name of its own."""
    name = f"operators_module_{next(MODULES)}"
    (folder / f"{name}.py").write_text(code)
    return name


def call_to(number: str, call_id: str = "CA1") -> IncomingCall:
    return IncomingCall(
        carrier_call_id=CarrierCallId(call_id),
        account_id="AC1",
        caller_number="+15550001111",
        called_number=number,
    )


def route(assembly: Assembly, number: str = OURS, now: datetime | None = None) -> Route:
    found = assembly.route(call_to(number), now)
    assert isinstance(found, Route)
    return found


# Agents -------------------------------------------------------------------------------------------


def test_without_agents_the_voice_models_settings_are_the_only_one(tmp_path: Path) -> None:
    assembly = assembly_of("", tmp_path)
    [agent] = assembly.roster
    assert agent.name == "agent"
    assert agent.greeting == "Hello! How can I help you today?"
    assert agent.session.voice == "marin"
    assert agent.session.model == "gpt-realtime-2.1"
    assert [tool["name"] for tool in agent.session_tools] == ["end_call"]
    assert route(assembly).policy == CallPolicy()


def test_turns_are_detected_by_the_one_default() -> None:
    session = session_config(Settings().openai_realtime)
    assert session.turn_detection == DEFAULT_TURN_DETECTION


def test_without_agents_and_key_the_receptionist_opens_the_conversation_itself() -> None:
    [agent] = assemble(Settings()).roster
    assert (agent.name, agent.greeting) == ("receptionist", None)
    assert agent.session.voice == "alloy"


def test_absent_settings_of_an_agent_are_those_of_the_voice_model(tmp_path: Path) -> None:
    text = """\
agents:
  first: {}
  second:
    instructions: "Be {mood}."
    greeting: ""
    voice: cedar
    speaks_first: caller
    variables: {mood: kind}
    turn_detection: {silence_duration_ms: 900}
    transcription: null
    audio: {speed: 1.25}
"""
    first, second = assembly_of(text, tmp_path).roster
    assert first.greeting == "Hello! How can I help you today?"
    assert first.instructions.startswith("You answer the telephone.")
    assert (second.greeting, second.instructions, second.voice) == (None, "Be {mood}.", "cedar")
    assert second.speaks_first is Party.CALLER
    vad = second.session.turn_detection
    assert isinstance(vad, ServerVad)
    assert (vad.silence_duration_ms, vad.threshold) == (900, 0.6)
    assert second.session.transcription is None
    assert second.session.speed == 1.25


def test_a_greeting_is_protected_for_an_agent_or_on_a_number(tmp_path: Path) -> None:
    text = f"""\
agents:
  first: {{interruptible_greeting: false}}
  second: {{}}
numbers:
  {OURS}: {{agent: second, interruptible_greeting: false}}
  "{OURS[:-1]}9": {{agent: second}}
"""
    assembly = assembly_of(text, tmp_path)
    first, second = assembly.roster
    assert (first.interruptible_greeting, second.interruptible_greeting) == (False, True)
    assert not route(assembly).agent.interruptible_greeting
    assert route(assembly, f"{OURS[:-1]}9").agent.interruptible_greeting


def test_a_turn_detection_of_another_type_begins_anew(tmp_path: Path) -> None:
    text = "agents: {a: {turn_detection: {type: semantic_vad, eagerness: low}}}\n"
    [agent] = assembly_of(text, tmp_path).roster
    vad = agent.session.turn_detection
    assert isinstance(vad, SemanticVad)
    assert vad.eagerness == "low"


def test_single_settings_override_a_preset(tmp_path: Path) -> None:
    text = "agents: {a: {preset: street, turn_detection: {silence_duration_ms: 250}}}\n"
    assembly = assembly_of(text, tmp_path)
    vad = assembly.roster.first.session.turn_detection
    street = PRESETS["street"]
    assert isinstance(vad, ServerVad)
    assert (vad.threshold, vad.silence_duration_ms) == (street.vad.threshold, 250)
    assert assembly.roster.first.session.noise_reduction == street.noise_reduction
    assert route(assembly).policy == CallPolicy()  # in all else it is as usual


def test_keys_beside_an_agent_are_read(tmp_path: Path) -> None:
    text = """\
agents:
  a:
    keypad:
      "0": {transfer: reception}
      "1": {say: At nine.}
      "2": {agent: b}
      "*": repeat
      "9": {hang_up: Bye.}
      "#": hang_up
  b: {}
destinations: {reception: {number: +15551230000}}
"""
    keypads = route(assembly_of(text, tmp_path)).keypads
    assert dict(keypads["a"].actions) == {
        "0": Transfer("reception"),
        "1": Say("At nine."),
        "2": ToAgent("b"),
        "*": Repeat(),
        "9": HangUp("Bye."),
        "#": HangUp(),
    }
    assert "b" not in keypads


def test_a_menu_is_read_and_spoken_in_place_of_an_inherited_greeting(tmp_path: Path) -> None:
    text = """\
agents:
  a: {keypad: {"1": {say: At nine.}}, menu: {prompt: Press 1., otherwise: hang_up, timeout_s: 9}}
  b:
    greeting: Good day.
    keypad: {"2": repeat}
    menu: {prompt: Press 2., otherwise: {agent: a}, tries: 1}
"""
    assembly = assembly_of(text, tmp_path)
    keypads = route(assembly).keypads
    assert keypads["a"].menu == MenuPlan(prompt="Press 1.", otherwise=HangUp(), timeout_ms=9_000)
    assert keypads["b"].menu == MenuPlan(prompt="Press 2.", otherwise=ToAgent("a"), tries=1)
    assert [agent.greeting for agent in assembly.roster] == [None, "Good day."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "agents:\n  a:\n    instructions: Hello {calller}.\n",
            "config.yaml:4: agents.a.instructions: there is no {calller}; known are {caller}, "
            "{number}, {time} (write {{ for a brace)",
        ),
        (
            "agents: {a-b: {description: x}, a_b: {description: y}, c: {handoffs: [a-b, a_b]}}\n",
            "config.yaml:2: agents: agent 'c': the model cannot tell 'a_b' from 'a-b': both are "
            "called transfer_to_a_b",
        ),
        (
            "agents:\n  a: {}\nnumbers:\n  +15551234567:\n    variables: {company: X}\n",
            "config.yaml:6: numbers.+15551234567.variables.company: no agent declares a variable "
            "of this name",
        ),
        (
            "tools:\n  t:\n    description: Look\n    http:\n      url: http://127.0.0.1/x\n",
            "config.yaml:3: tools.t: The URL is refused: it must be https; allow_private: true "
            "opens a server of your own.",
        ),
        (
            "tools:\n  t:\n    description: Look\n    http:\n      url: https://a.example.com/{id}\n",
            "config.yaml:3: tools.t: {id} is neither a parameter nor a fact",
        ),
        (
            "guardrails:\n  g:\n    pattern: '(a'\n",
            "config.yaml:4: guardrails.g.pattern: ",
        ),
        (
            "destinations:\n  d:\n    number: +19005551234\n",
            "config.yaml:3: destinations.d: +19005551234 is a premium-rate number, which is "
            "not called from here",
        ),
        (
            "twilio: {allowed_countries: [CA]}\ndestinations:\n  d: {number: +12125550100}\n",
            "config.yaml:4: destinations.d: +12125550100 is in a country (US) that may not be "
            "called: see twilio.allowed_countries",
        ),
        (
            "numbers:\n  +15551234567:\n    hours: {time_zone: UTC, open: {monday: 9:00-17:00}}\n",
            "config.yaml:4: numbers.+15551234567.hours.open.monday: 'monday' is not a day such as "
            'mon, or mon-fri; did you mean "mon"?',
        ),
        (
            "numbers:\n  +15551234567:\n    hours:\n      time_zone: UTC\n"
            "      open: {mon: 9:00-17:00, mon-fri: 9:00-12:00}\n",
            "config.yaml:4: numbers.+15551234567.hours: Monday is given twice",
        ),
        (
            "analysis:\n  webhook:\n    url: https://a.example.com\n    secret: too short!\n",
            "config.yaml:3: analysis.webhook: a secret has 24 to 64 bytes (openssl rand "
            "-base64 32)",
        ),
        (
            "analysis:\n  endpoint:\n    base_url: http://10.0.0.1/v1\n    model: m\n",
            "config.yaml:4: analysis.endpoint.base_url: ",
        ),
        (
            "mcp_servers:\n  m:\n    url: http://example.com\n",
            "config.yaml:3: mcp_servers.m: url: ",
        ),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_named_with_file_and_line(
    text: str, expected: str, tmp_path: Path
) -> None:
    [line] = refusal(text, tmp_path)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("twilio", "address", "allowed"),
    [
        ("", "number: +442079460000", True),  # no number of ours says where we are
        ("from_number: +14155550123", "number: +12125550100", True),
        ("from_number: +14155550123", "number: +442079460000", False),
        ("numbers: [+14155550123, +442079460001]", "number: +442079460000", True),
        ("from_number: +14155550123", "number: +18765550123", False),
        ("from_number: +14155550123", "sip: 'sip:+442079460000@pbx.example.com'", False),
        ("from_number: +14155550123", "sip: 'sip:9005550100@pbx.example.com'", False),
        ("from_number: +14155550123", "sip: 'sip:1001@pbx.example.com'", True),
        ("from_number: +14155550123", "queue: support", True),
        ("from_number: +14155550123, allowed_countries: [GB]", "number: +442079460000", True),
        ("from_number: +14155550123, allowed_countries: any", "number: +442079460000", True),
        ("from_number: +14155550123, allowed_countries: any",
         "sip: 'sip:9005550100@pbx.example.com'", False),
    ],
)  # fmt: skip
def test_destinations_are_in_the_countries_of_our_numbers_unless_others_are_allowed(
    twilio: str, address: str, allowed: bool, tmp_path: Path
) -> None:
    text = f"twilio: {{{twilio}}}\ndestinations:\n  d: {{{address}}}\n"
    if allowed:
        assert assembly_of(text, tmp_path).destinations.names == ("d",)
        return
    [line] = refusal(text, tmp_path)
    assert line.startswith("config.yaml:4: destinations.d: ")


def test_all_settings_that_do_not_fit_are_reported_at_once(tmp_path: Path) -> None:
    text = """\
agents:
  a: {instructions: "{nobody}"}
tools:
  t: {python: "no_such_module_here:f"}
destinations:
  d: {number: +19005551234}
numbers:
  +15551234567:
    hours: {time_zone: UTC, open: {someday: closed}}
"""
    destinations = [line.split(":")[1] for line in refusal(text, tmp_path)]
    assert destinations == ["3", "5", "7", "10"]


# Tools --------------------------------------------------------------------------------------------


async def test_a_function_beside_the_configuration_is_a_tool(tmp_path: Path) -> None:
    name = module(tmp_path, 'def find(day: str) -> str:\n    """Find a slot."""\n    return day\n')
    text = f"""\
agents: {{a: {{tools: [find_slot]}}}}
tools:
  find_slot: {{python: "{name}:find", timeout_ms: 500, filler: A moment., approval: keypad}}
"""
    [tool] = assembly_of(text, tmp_path).roster.first.tools
    assert (tool.name, tool.description, tool.timeout_ms) == ("find_slot", "Find a slot.", 500)
    assert (tool.filler, tool.approval) == ("A moment.", Approval.KEYPAD)
    assert tool.parameters["required"] == ["day"]


async def test_a_function_runs_in_a_process_where_the_settings_say_so(tmp_path: Path) -> None:
    code = """\
import os
from app.agents.tools.tool import tool

def plain() -> int:
    "Say who."
    return os.getpid()

@tool
def made() -> int:
    "Say who."
    return os.getpid()
"""
    name = module(tmp_path, code)
    text = f"""\
agents: {{a: {{tools: [one, two]}}}}
tools:
  one: {{python: "{name}:plain", run_in: process}}
  two: {{python: "{name}:made", run_in: process}}
"""
    context = ToolContext(call_id=CallId("c"), tool_call_id="t")
    for tool in assembly_of(text, tmp_path).roster.first.tools:
        assert await tool.run(context, {}) != os.getpid()


def test_settings_override_the_options_of_a_function(tmp_path: Path) -> None:
    code = """\
from app.agents.tools.tool import tool

@tool(timeout_ms=7_000, filler="Hm.", reply=False)
def find() -> str:
    "Find."
    return ""
"""
    name = module(tmp_path, code)
    text = f"""\
agents: {{a: {{tools: [look]}}}}
tools: {{look: {{python: "{name}:find", description: Look it up, filler: ""}}}}
"""
    [tool] = assembly_of(text, tmp_path).roster.first.tools
    assert (tool.name, tool.description) == ("look", "Look it up")
    assert (tool.timeout_ms, tool.filler, tool.reply) == (7_000, None, False)


@pytest.mark.parametrize(
    ("code", "function", "expected"),
    [
        ("raise RuntimeError('no database')\n", "f", "cannot be imported: "),
        ("import sys\nsys.exit(3)\n", "f", "cannot be imported: "),
        ("def fine(): ...\n", "fin", "there is no function 'fin'; did you mean \"fine\"?"),
        ("import not_installed_anywhere\n", "f", "needs 'not_installed_anywhere', which is not"),
        ("f = 5\n", "f", "is not a function"),
        ("def f(x): ...\n", "f", "parameter x: has no type"),
    ],
)
def test_a_missing_function_is_named_with_the_line_of_its_setting(
    code: str, function: str, expected: str, tmp_path: Path
) -> None:
    name = module(tmp_path, code)
    [line] = refusal(f"tools:\n  t:\n    python: {name}:{function}\n", tmp_path)
    assert line.startswith("config.yaml:4: tools.t.python: ")
    assert expected in line


@pytest.mark.parametrize(
    ("code", "line", "expected"),
    [
        ("raise RuntimeError('no database')\n", 1, "RuntimeError: no database"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: "),
        ("\n\nf = [\n", 3, "SyntaxError: '[' was never closed"),
        ("from trunkline import tool\n\n@tool\ndef f(x): ...\n", 3, "tool f, parameter x: has no"),
        ("from trunkline import Roster\nRoster(\n    [])\n", 2, "there is no agent"),
    ],
)
def test_a_module_that_fails_is_told_the_line_of_its_own(
    code: str, line: int, expected: str, tmp_path: Path
) -> None:
    name = module(tmp_path, code)
    [said] = refusal(f"tools:\n  t:\n    python: {name}:f\n", tmp_path)
    assert f"{name} cannot be imported: {tmp_path / name}.py:{line}: {expected}" in said


def test_every_mistake_in_the_opening_hours_is_reported_with_its_line(tmp_path: Path) -> None:
    text = f"""\
numbers:
  {OURS}:
    hours:
      time_zone: UTC
      open:
        mon: 9-17
        tue: 9:00-17:00
      closed:
        - 2026-02-30
      special:
        2026-12-31: 8:00-25:00
"""
    there = f"numbers.{OURS}.hours"
    assert refusal(text, tmp_path) == [
        f"config.yaml:7: {there}.open.mon: '9-17' is not a span such as 9:00-17:30; did you mean "
        '"9:00-17:00"?',
        f"config.yaml:10: {there}.closed[0]: '2026-02-30' is not a date such as 2026-12-24",
        f"config.yaml:12: {there}.special.2026-12-31: '8:00-25:00' is not a span such as "
        "9:00-17:30",
    ]


@pytest.mark.parametrize("signature", ["text", "text, context, more"])
def test_a_guardrail_that_could_never_be_asked_is_named_with_its_line(
    signature: str, tmp_path: Path
) -> None:
    name = module(tmp_path, f"def words({signature}): ...\n")
    assert refusal(f"guardrails:\n  g:\n    python: {name}:words\n", tmp_path) == [
        "config.yaml:4: guardrails.g.python: the function is called with two arguments, text and "
        "context"
    ]


def test_instructions_may_be_written_by_a_function(tmp_path: Path) -> None:
    code = "def written(facts):\n    return f'You serve {facts.caller_number}.'\n"
    name = module(tmp_path, code)
    assembly = assembly_of(
        f"agents: {{reception: {{instructions: Serve., instructions_python: '{name}:written'}}}}\n"
        f"numbers: {{{OURS}: {{languages: [es]}}}}\n",
        tmp_path,
    )
    facts = CallFacts(call_id=CallId("c1"), caller_number="+15550001111")
    roster = assembly.roster
    assert roster.session(roster.first, facts).instructions == "You serve +15550001111."
    ours = route(assembly)
    text = ours.roster.session(ours.agent, facts).instructions
    assert isinstance(text, str)
    assert text.startswith("You serve +15550001111.\n\nSpeak es")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("async def f(facts): ...\n", "cannot be async"),
        ("def f(): ...\n", "is called with one argument"),
        ("x = 1\n", "there is no function 'f'"),
    ],
)
def test_a_function_that_cannot_write_instructions_is_named_with_its_line(
    code: str, expected: str, tmp_path: Path
) -> None:
    name = module(tmp_path, code)
    [line] = refusal(f"agents:\n  a:\n    instructions_python: {name}:f\n", tmp_path)
    assert line.startswith("config.yaml:4: agents.a.instructions_python: ")
    assert expected in line


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    [line] = refusal("tools:\n  t: {python: 'no_such_module_here:f'}\n", tmp_path)
    assert line == (
        "config.yaml:3: tools.t.python: there is no module 'no_such_module_here', neither "
        "installed nor beside the configuration file"
    )


def test_an_http_tool_is_made_of_its_request_and_its_options(tmp_path: Path) -> None:
    text = """\
agents: {a: {tools: [book]}}
tools:
  book:
    description: Book it
    timeout_ms: 3000
    interruptible: true
    verified_caller: true
    http:
      method: POST
      url: https://a.example.com/{context.caller_number}
      parameters: {type: object, properties: {at: {type: string}}, required: [at]}
"""
    [tool] = assembly_of(text, tmp_path).roster.first.tools
    assert (tool.description, tool.timeout_ms) == ("Book it", 3_000)
    assert tool.interruptible
    assert tool.verified_caller
    assert tool.parameters["required"] == ["at"]


def test_the_telephones_tools_are_there_for_agents_that_name_them(tmp_path: Path) -> None:
    named = ", ".join(BUILT_IN_TOOLS)
    text = (
        f"agents: {{a: {{tools: [{named}]}}, b: {{}}}}\ndestinations: {{d: {{queue: support}}}}\n"
    )
    assembly = assembly_of(text, tmp_path)
    first, second = assembly.roster
    by_the_call = [str(tool["name"]) for tool in first.session_tools]
    by_the_phone = [tool.name for tool in first.tools]
    assert sorted(by_the_call + by_the_phone) == sorted(BUILT_IN_TOOLS)
    assert [tool["name"] for tool in second.session_tools] == ["end_call"]
    assert second.tools == ()


def test_agents_of_a_server_that_places_calls_can_end_them_for_good(tmp_path: Path) -> None:
    text = "agents: {a: {}}\noutbound: {enabled: true}\n"
    names = [tool["name"] for tool in assembly_of(text, tmp_path).roster.first.session_tools]
    assert names == ["end_call", "do_not_call"]


def test_every_tool_that_is_built_in_can_be_named() -> None:
    destinations = Destinations.of([destination("d", "queue:support")])
    built_in = {*CALL_TOOLS, *phone_tools(destinations, lambda _: None), READ_BACK}
    built_in.remove("do_not_call")  # given to every agent of a server that places calls
    assert built_in == set(BUILT_IN_TOOLS)


# Guardrails ---------------------------------------------------------------------------------------

CONTEXT = GuardrailContext(call_id=CallId("call_1"), item_id="item_1")


async def test_guardrails_say_and_stop_or_only_warn(tmp_path: Path) -> None:
    name = module(
        tmp_path,
        "from app.agents.guardrails.rules import Stop\n"
        "def check(text, context):\n    return Stop('Mine.', 'rude')\n",
    )
    text = f"""\
agents: {{a: {{guardrails: [cards, trial, own, closed]}}}}
guardrails:
  cards: {{pattern: '[0-9]{{4}}', side: caller, say: No numbers.}}
  trial: {{python: "{name}:check", action: warn, timeout_ms: 900}}
  own: {{python: "{name}:check"}}
  closed: {{question: "Nothing rude.", fail: closed, say: Let us stay polite.}}
"""
    cards, trial, own, closed = assembly_of(text, tmp_path).roster.first.guardrails
    assert (cards.side, own.side) == (Party.CALLER, Party.AGENT)
    assert await cards.check("1234", CONTEXT) == Stop("No numbers.", "cards")
    assert (await trial.check("x", CONTEXT), trial.timeout_ms) == (Warn("rude"), 900)
    assert await own.check("x", CONTEXT) == Stop("Mine.", "rude")
    assert (closed.fail_open, closed.timeout_ms) == (False, 3_000)
    assert closed.failed("timeout") == Stop("Let us stay polite.", "could not be checked: timeout")


# Destinations -------------------------------------------------------------------------------------


def test_destinations_keep_their_settings(tmp_path: Path) -> None:
    text = """\
destinations:
  reception: {number: +15551230000, spoken: our reception, description: For all else,
         ring_s: 9, caller_id: caller, extension: w1, screened: true, detect_voicemail: true}
  pbx: {sip: "sip:anna@pbx.example.com", mode: warm}
"""
    destinations = assembly_of(text, tmp_path).destinations
    reception = destinations.resolve("reception")
    assert (reception.address, reception.spoken, reception.ring_s) == (
        "+15551230000",
        "our reception",
        9,
    )
    assert (reception.caller_id, reception.extension) == (CallerIdPolicy.CALLER, "w1")
    assert reception.screened
    assert reception.detect_voicemail
    assert not reception.warm
    assert destinations.resolve("pbx").warm
    assert (reception.description, destinations.resolve("pbx").description) == ("For all else", "")
    assert destinations.resolve("pbx").spoken == "pbx"


# Numbers ------------------------------------------------------------------------------------------

TWO = """\
agents:
  clara: {greeting: I am Clara., voice: cedar, variables: {company: Example}}
  night: {greeting: I am the night.}
destinations:
  reception: {number: +15551230000}
"""


def test_a_call_to_a_number_without_settings_goes_to_the_first_agent(tmp_path: Path) -> None:
    text = f"{TWO}numbers: {{{OURS}: {{agent: night}}}}\n"
    assembly = assembly_of(text, tmp_path)
    assert route(assembly, "+15559999999").agent.name == "clara"
    assert route(assembly).agent.name == "night"
    assert [agent.name for agent in route(assembly).roster] == ["night", "clara"]


def test_a_number_goes_before_its_agent_in_every_session_setting(tmp_path: Path) -> None:
    text = f"""\
{TWO}
numbers:
  {OURS}:
    agent: clara
    model: gpt-realtime-2.1-mini
    greeting: North office.
    voice: ash
    variables: {{company: North}}
    audio: {{noise_reduction: far_field}}
    max_output_tokens: 300
    tool_choice: none
    parallel_tool_calls: false
    reasoning_effort: low
    truncation: disabled
    tracing: {{group_id: north}}
    limits: {{silence_s: 20, inactivity: {{after_s: 7}}, unproductive_turns: 2}}
"""
    assembly = assembly_of(text, tmp_path)
    found = route(assembly)
    session = found.agent.session
    assert (found.agent.greeting, session.voice, found.model.name) == (
        "North office.",
        "ash",
        "gpt-realtime-2.1-mini",
    )
    assert session.model == "gpt-realtime-2.1-mini"
    assert session.noise_reduction == "far_field"
    assert (session.max_output_tokens, session.tool_choice) == (300, "none")
    assert (session.reasoning_effort, session.truncation) == ("low", "disabled")
    assert (session.parallel_tool_calls, session.tracing) == (False, {"group_id": "north"})
    assert found.agent.variables == {"company": "North"}
    assert found.policy.silence_ms == 20_000
    assert found.policy.inactivity_after_ms == 7_000
    assert found.policy.inactivity_texts.prompts[0] == "Are you still there?"
    assert found.policy.productivity.max_turns == 2
    # Colleagues have the number's settings too, and others none of them.
    assert found.roster["night"].session.voice == "ash"
    assert assembly.roster.first.session.voice == "cedar"


def test_tracing_and_tools_at_a_time_are_set_for_all_for_an_agent_and_for_a_number(
    tmp_path: Path,
) -> None:
    text = f"""\
openai_realtime: {{api_key: a key of the model, tracing: auto, parallel_tool_calls: true}}
agents:
  a: {{parallel_tool_calls: false}}
  b: {{tracing: null}}
numbers:
  {OURS}: {{agent: b, tracing: {{workflow_name: north}}, parallel_tool_calls: false}}
"""
    (tmp_path / "config.yaml").write_text(text)
    assembly = assemble(load(tmp_path / "config.yaml", {}))
    a, b = route(assembly, "+15559999999").agent.session, assembly.roster["b"].session
    assert (a.tracing, a.parallel_tool_calls) == ("auto", False)
    assert (b.tracing, b.parallel_tool_calls) == (UNSET, True)
    there = route(assembly).agent.session
    assert (there.tracing, there.parallel_tool_calls) == ({"workflow_name": "north"}, False)


def test_limits_go_from_all_calls_to_the_agent_to_the_number(tmp_path: Path) -> None:
    text = f"""\
limits: {{silence_s: 50, max_duration_s: 900, false_interruption_ms: 1500}}
agents: {{a: {{limits: {{silence_s: 40, unproductive_turns: 3}}, preset: office}}}}
numbers: {{{OURS}: {{limits: {{silence_s: 30, false_interruption_ms: 0}}}}}}
"""
    assembly = assembly_of(text, tmp_path)
    on_any, on_ours = route(assembly, "+15559999999").policy, route(assembly).policy
    assert (on_any.silence_ms, on_ours.silence_ms) == (40_000, 30_000)
    assert on_ours.max_duration_ms == 900_000
    assert on_ours.productivity.max_turns == 3
    assert (on_any.false_interruption_ms, on_ours.false_interruption_ms) == (2_000, 0)


def test_the_limits_in_the_file_are_those_that_calls_have_without_it() -> None:
    assert call_policy(Settings().limits) == CallPolicy()


def test_without_a_limit_of_unproductive_turns_their_time_is_not_limited() -> None:
    limits = Settings().limits.model_copy(update={"unproductive_turns": 0})
    rules = call_policy(limits).productivity
    assert (rules.max_turns, rules.max_wordless_ms) == (0, 0)


@pytest.mark.parametrize(
    ("languages", "model", "language", "several", "words"),
    [
        ("[en]", "whisper-1", "en", (), "Speak en"),
        ("[en, es]", "whisper-1", None, (), "speak en or es"),
        ("[en, es]", "gpt-transcribe", None, ("en", "es"), "Begin in en"),
    ],
)
def test_languages_reach_the_agent_and_the_transcription(
    languages: str,
    model: str,
    language: str | None,
    several: tuple[str, ...],
    words: str,
    tmp_path: Path,
) -> None:
    text = f"""\
agents: {{a: {{instructions: Be kind., transcription: {{model: {model}}}}}}}
numbers: {{{OURS}: {{languages: {languages}}}}}
"""
    session = route(assembly_of(text, tmp_path)).agent.session
    assert isinstance(session.transcription, Transcription)
    assert (session.transcription.language, session.transcription.languages) == (language, several)
    assert isinstance(session.instructions, str)
    assert session.instructions.startswith("Be kind.\n\n")
    assert words in session.instructions


HOURS = "hours: {time_zone: America/New_York, open: {mon-fri: [9:00-12:00, 13:00-17:00]}}"
MONDAY_10 = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)  # 10:00 in New York
MONDAY_20 = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("agent", "number", "zone"),
    [
        ("{}", f"{{{HOURS}}}", "America/New_York"),
        ("{time_zone: Asia/Tokyo}", f"{{{HOURS}}}", "Asia/Tokyo"),
        ("{}", "{}", "UTC"),
    ],
)
def test_an_agent_tells_the_time_of_the_office_that_it_answers_for(
    agent: str, number: str, zone: str, tmp_path: Path
) -> None:
    text = f"agents: {{a: {agent}}}\nnumbers: {{{OURS}: {number}}}\n"
    assert route(assembly_of(text, tmp_path), now=MONDAY_10).agent.time_zone == zone


def test_outside_of_the_hours_the_number_says_when_it_opens(tmp_path: Path) -> None:
    text = f"numbers: {{{OURS}: {{{HOURS}}}}}\n"
    assembly = assembly_of(text, tmp_path)
    assert isinstance(assembly.route(call_to(OURS), MONDAY_10), Route)
    closed = assembly.route(call_to(OURS), MONDAY_20)
    assert closed == Diversion(
        "closed", "We are closed at the moment. We open tomorrow at 9 AM. Goodbye."
    )


def test_outside_of_the_hours_callers_may_be_put_through(tmp_path: Path) -> None:
    text = f"{TWO}numbers: {{{OURS}: {{{HOURS}, closed: {{transfer: reception}}}}}}\n"
    closed = assembly_of(text, tmp_path).route(call_to(OURS), MONDAY_20)
    assert isinstance(closed, Diversion)
    assert closed.say is None
    assert closed.to is not None
    assert closed.to.name == "reception"


def test_outside_of_the_hours_another_agent_may_answer(tmp_path: Path) -> None:
    closed = "closed: {agent: night, say: 'We open {next_opening}. I take messages.'}"
    text = f"{TWO}numbers: {{{OURS}: {{{HOURS}, {closed}}}}}\n"
    assembly = assembly_of(text, tmp_path)
    assert route(assembly, now=MONDAY_10).agent.name == "clara"
    at_night = route(assembly, now=MONDAY_20).agent
    assert at_night.name == "night"
    assert at_night.greeting == "We open tomorrow at 9 AM. I take messages."


def test_a_share_of_the_calls_goes_to_the_fallback_and_always_the_same_ones(tmp_path: Path) -> None:
    text = f"{TWO}numbers: {{{OURS}: {{percent: 25, fallback: reception}}}}\n"
    assembly = assembly_of(text, tmp_path)
    calls = [call_to(OURS, f"CA{number:032x}") for number in range(1_000)]
    answered = [call for call in calls if isinstance(assembly.route(call), Route)]
    # 25 % of 1000 calls, within five standard deviations of a fair draw (13.7 calls each).
    assert 181 <= len(answered) <= 319
    assert answered == [call for call in calls if isinstance(assembly.route(call), Route)]
    other = assembly.route(next(call for call in calls if call not in answered))
    assert isinstance(other, Diversion)
    assert other.to is not None


def test_a_number_names_its_fallback(tmp_path: Path) -> None:
    fallback = route(
        assembly_of(f"{TWO}numbers: {{{OURS}: {{fallback: reception}}}}\n", tmp_path)
    ).fallback
    assert fallback is not None
    assert fallback.address == "+15551230000"


@pytest.mark.parametrize(
    ("own", "place"),
    [
        ("{fallback: self}", "fallback"),
        (
            "{hours: {time_zone: UTC, open: {mon: '9:00-17:00'}}, closed: {transfer: self}}",
            "closed.transfer",
        ),
    ],
)
def test_a_number_that_sends_callers_to_itself_is_refused(
    own: str, place: str, tmp_path: Path
) -> None:
    text = f"destinations: {{self: {{number: {OURS}}}}}\nnumbers: {{{OURS}: {own}}}\n"
    [problem] = refusal(text, tmp_path)
    assert f"numbers.{OURS}.{place}: self is this number itself" in problem


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("{language: de}", Transcription(model="gpt-transcribe", language="de", languages=())),
        ("{languages: [de]}", Transcription(model="gpt-transcribe", languages=("de",))),
        ("{prompt: X}", Transcription(model="gpt-transcribe", languages=("en", "es"), prompt="X")),
        ("{model: whisper-1}", Transcription(model="whisper-1")),
    ],
)
def test_only_the_given_keys_of_the_transcription_change(
    own: str, expected: Transcription, tmp_path: Path
) -> None:
    text = f"""\
agents: {{a: {{transcription: {{model: gpt-transcribe, languages: [en, es]}}}}}}
numbers: {{{OURS}: {{transcription: {own}}}}}
"""
    assert route(assembly_of(text, tmp_path)).agent.session.transcription == expected


def test_a_preset_turns_detection_by_meaning_into_detection_by_loudness(tmp_path: Path) -> None:
    text = f"""\
agents: {{a: {{turn_detection: {{type: semantic_vad}}}}}}
numbers: {{{OURS}: {{preset: quiet}}}}
"""
    vad = route(assembly_of(text, tmp_path)).agent.session.turn_detection
    assert isinstance(vad, ServerVad)
    assert vad.threshold == PRESETS["quiet"].vad.threshold


def test_all_transcription_may_be_off_where_languages_are_known(tmp_path: Path) -> None:
    text = f"""\
agents: {{a: {{transcription: null}}}}
numbers: {{{OURS}: {{languages: [en]}}}}
"""
    session = route(assembly_of(text, tmp_path)).agent.session
    assert session.transcription is None
    assert isinstance(session.instructions, str)
    assert "Speak en" in session.instructions


def test_a_closed_number_without_words_has_its_agent_greet_as_ever(tmp_path: Path) -> None:
    text = f"{TWO}numbers: {{{OURS}: {{{HOURS}, closed: {{agent: night}}}}}}\n"
    assert route(assembly_of(text, tmp_path), now=MONDAY_20).agent.greeting == "I am the night."


# Offline ------------------------------------------------------------------------------------------


def test_offline_agents_have_the_engines_voice_and_only_a_greeting_of_their_own(
    tmp_path: Path,
) -> None:
    text = "voice_model: offline\nagents: {a: {voice: cedar}, b: {greeting: Hello from b.}}\n"
    path = tmp_path / "config.yaml"
    path.write_text(text)
    first, second = assemble(load(path, {})).roster
    assert (first.session.voice, first.session.model) == ("alloy", None)
    assert (first.greeting, second.greeting) == (None, "Hello from b.")


# Analysis -----------------------------------------------------------------------------------------


def test_the_parts_of_the_analysis_are_made(tmp_path: Path) -> None:
    text = """\
analysis:
  endpoint: {base_url: "https://a.example.com/v1", model: m}
  intents: [book, other]
  tasks: [book]
  max_tasks: 2
  review: {instructions: Short.}
  webhook: {url: "https://a.example.com/hook", secret: a secret of at least 24 bytes}
"""
    plan = assembly_of(text, tmp_path).analysis
    assert plan is not None
    assert plan.ask is not None
    assert plan.webhook is not None
    assert plan.review is not None
    assert plan.analysis.tasks == {"book"}
    assert plan.limits.max_tasks == 2
    assert assembly_of("", tmp_path).analysis is None


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("time", "analysis.task_argument: book needs 'name' as well, which a task does not give"),
        (
            "tim",
            "analysis.task_argument: of book, there is no argument 'tim'; did you mean \"time\"?",
        ),
    ],
)
def test_a_tool_that_cannot_take_a_task_is_reported_at_the_start(
    argument: str, problem: str, tmp_path: Path
) -> None:
    text = f"""\
analysis: {{intents: [book], tasks: [book], task_tool: book, task_argument: {argument}}}
tools:
  book:
    description: Book it
    http:
      url: https://a.example.com/{{time}}/{{name}}
      parameters:
        type: object
        properties: {{time: {{type: string}}, name: {{type: string}}}}
        required: [time, name]
"""
    assert refusal(text, tmp_path) == [f"config.yaml:2: {problem}"]


def test_an_analysis_that_hears_nothing_or_has_no_model_is_noticed(tmp_path: Path) -> None:
    deaf = "analysis: {}\nagents: {clara: {transcription: null}}\n"
    assert assembly_of(deaf, tmp_path).notices() == [
        "config.yaml:2: analysis: hears nothing of the callers of clara: no transcription"
    ]
    offline = "voice_model: offline\nanalysis: {}\n"
    assert assembly_of(offline, tmp_path).notices() == [
        "config.yaml:3: analysis: the offline engine cannot do it: describe an endpoint"
    ]


def test_a_voice_that_will_not_be_heard_is_noticed(tmp_path: Path) -> None:
    text = "agents: {a: {voice: ash, handoffs: [b]}, b: {voice: cedar, description: x}}\n"
    [notice] = assembly_of(text, tmp_path).notices()
    assert notice.startswith("config.yaml:2: agents.a: hands over to 'b', whose voice 'cedar'")


LIVE = f"""\
twilio: {{account_sid: AC{"0" * 32}, auth_token: {"0123456789abcdef" * 2}}}
server: {{public_url: "https://voice.example.org"TOKEN}}
"""
HTTP_TOOL = "{description: Pay, http: {url: 'https://a.example.org/'}, approval: operator}"


@pytest.mark.parametrize(
    ("keys", "token", "noticed"),
    [
        ([], "", False),  # the start makes the first key
        ([(Scope.VIEWER, False)], "", True),
        ([(Scope.OPERATOR, True)], "", True),
        ([(Scope.OPERATOR, True), (Scope.ADMIN, False)], "", False),
        ([(Scope.OPERATOR, False)], "", False),
        ([(Scope.VIEWER, False)], ", operator_token: token-of-operators", False),
    ],
)
def test_a_tool_that_nobody_may_approve_is_noticed(
    keys: list[tuple[Scope, bool]], token: str, noticed: bool, tmp_path: Path
) -> None:
    kept = ApiKeys(tmp_path / "var")
    for scope, revoked in keys:
        key, _ = kept.create("one", scope)
        if revoked:
            kept.revoke(key.id)
    text = (
        LIVE.replace("TOKEN", token)
        + f"""\
state_dir: {tmp_path / "var"}
tools:
  pay: {HTTP_TOOL}
mcp_servers:
  books: {{command: books-mcp, approval: operator}}
agents: {{a: {{tools: [pay], mcp_servers: [books]}}}}
"""
    )
    notices = [one for one in assembly_of(text, tmp_path).notices() if "operator" in one]
    places = [
        one.partition(": waits for an operator, and nobody may be one: ")[0] for one in notices
    ]
    expected = ["config.yaml:6: tools.pay.approval", "config.yaml:8: mcp_servers.books.approval"]
    assert places == (expected if noticed else [])


@pytest.mark.parametrize(
    ("prices", "outbound", "missing"),
    [
        ("{}", "false", "no inbound_per_minute: "),
        ("{}", "true", "no inbound_per_minute or outbound_per_minute: "),
        ("{inbound_per_minute: 0.01}", "true", "no outbound_per_minute: "),
        ("{inbound_per_minute: 0.01}", "false", ""),
        ("{inbound_per_minute: 0, outbound_per_minute: 0}", "true", ""),
    ],
)
def test_a_price_of_the_phone_that_is_missing_is_noticed(
    prices: str, outbound: str, missing: str, tmp_path: Path
) -> None:
    text = LIVE.replace("TOKEN", "").replace("auth_token:", f"prices: {prices}, auth_token:")
    text += f"outbound: {{enabled: {outbound}}}\ncompliance: {{identity: Acme}}\n"
    notices = [one for one in assembly_of(text, tmp_path).notices() if "twilio.prices" in one]
    assert [missing in notice for notice in notices] == [True] * bool(missing)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("limits: {silence_s: 10}\n", "limits.silence_s"),
        ("limits: {inactivity: {after_s: 60}}\n", "limits.silence_s"),
        ("agents: {a: {limits: {silence_s: 8}}}\n", "agents.a.limits.silence_s"),
        (
            'numbers: {"+13025550123": {limits: {silence_s: 8}}}\n',
            "numbers.+13025550123.limits.silence_s",
        ),
    ],
)
def test_a_silence_too_short_for_the_first_prompt_is_noticed(
    text: str, key: str, tmp_path: Path
) -> None:
    [notice] = assembly_of(text, tmp_path).notices()
    assert notice.startswith(f"config.yaml:2: {key}: ")
    assert "inactivity.after_s" in notice


@pytest.mark.parametrize("there", ["after_s: 0", "prompts: []", "after_s: 5"])
def test_a_silence_without_prompts_or_with_time_for_them_is_not_noticed(
    there: str, tmp_path: Path
) -> None:
    text = f"limits: {{silence_s: 10, inactivity: {{{there}}}}}\n"
    assert assembly_of(text, tmp_path).notices() == []
