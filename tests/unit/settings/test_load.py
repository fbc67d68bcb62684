"""`config.yaml` becomes settings, or a list of everything that is wrong with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError
from app.settings import Mode, Settings, VoiceChoice, load, masked
from app.settings.reader.strict_yaml import Mapping, Node, Scalar, parse_yaml
from app.settings.reader.variables import FROM_VARIABLES

CONFIG = Path(__file__).parents[3] / "config.yaml"
SECRET = "sk-proj-canary-0123456789"
ACCOUNT = "AC" + "1" * 32


def settings_of(text: str, folder: Path, **variables: str) -> Settings:
    path = folder / "config.yaml"
    path.write_text(text)
    return load(path, variables)


def refusal(text: str, folder: Path, **variables: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings_of(text, folder, **variables)
    return caught.value.message.splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "openai_realtime:\n  voce: marin\n",
            'config.yaml:2: openai_realtime.voce: unknown key; did you mean "voice"?',
        ),
        (
            "opnai_realtime:\n  voice: marin\n",
            'config.yaml:1: opnai_realtime: unknown key; did you mean "openai_realtime"?',
        ),
        (
            "openai_realtime: {speed: 1.5}\n",
            "config.yaml:1: openai_realtime.speed: unknown key here; it belongs in "
            "openai_realtime.audio",
        ),
        (
            "logging: {colors: true}\n",
            "config.yaml:1: logging.colors: unknown key; known here: format, level, show_personal",
        ),
        ("gemini: {}\n", "config.yaml:1: gemini: Trunkline has no such section: remove it"),
        (
            "openai_realtime:\n  dialect: gaa\n",
            "config.yaml:2: openai_realtime.dialect: expected 'ga' or 'beta'; found 'gaa'; "
            'did you mean "ga"?',
        ),
        (
            "openai_realtime:\n  max_output_tokens: lots\n",
            "config.yaml:2: openai_realtime.max_output_tokens: expected a whole number or 'inf'; "
            "found 'lots'",
        ),
        (
            "openai_realtime:\n  truncation: {retention_ratio: x}\n",
            "config.yaml:2: openai_realtime.truncation.retention_ratio: expected a number; "
            "found text",
        ),
        (
            "openai_realtime:\n  truncation: {}\n",
            "config.yaml:2: openai_realtime.truncation.retention_ratio: this key is missing",
        ),
        (
            "openai_realtime:\n  turn_detection:\n    threshold: 2\n",
            "config.yaml:3: openai_realtime.turn_detection.threshold: must be less than or equal "
            "to 1",
        ),
        (
            "openai_realtime:\n  turn_detection: {type: semantic_vad, threshold: 0.5}\n",
            "config.yaml:2: openai_realtime.turn_detection: threshold does nothing with type "
            "semantic_vad: remove it",
        ),
        (
            "openai_realtime:\n  transcription: {language: en, languages: [de]}\n",
            "config.yaml:2: openai_realtime.transcription: language and languages exclude each "
            "other: keep one",
        ),
        (
            "server:\n  port: '8080'\n",
            "config.yaml:2: server.port: expected a whole number; found text: take the quotes away",
        ),
        ("server: {port: -1}", "config.yaml:1: server.port: must be greater than or equal to 0"),
        ("server: 5\n", "config.yaml:1: server: expected keys and values; found a number"),
        (
            "twilio:\n  validate_signatures: NO\n",
            "config.yaml:2: twilio.validate_signatures: expected true or false; found text: write "
            "false",
        ),
        (
            "twilio:\n  from_number: 15551234567\n",
            "config.yaml:2: twilio.from_number: 15551234567 is not a phone number: write the whole "
            "number with + and country code, such as +15551234567",
        ),
        (
            "twilio:\n  numbers:\n    - +15551234567\n    - '5551234'\n",
            "config.yaml:4: twilio.numbers[1]: '5551234' is not a phone number: write the whole "
            "number with + and country code, such as +15551234567",
        ),
        (
            "twilio:\n  from_number: +1555123\n",
            "config.yaml:2: twilio.from_number: +1555123 is too short or too long for its country",
        ),
        (
            "twilio:\n  from_number: +9991234567\n",
            "config.yaml:2: twilio.from_number: +9991234567 has no known country code",
        ),
        (
            "twilio:\n  numbers: +15551234567\n",
            "config.yaml:2: twilio.numbers: expected a list; found text: write "
            "each entry on a line of its own, after `- `",
        ),
        (
            "twilio:\n  account_sid: AC12\n",
            "config.yaml:2: twilio.account_sid: expected a Twilio account SID: AC and 32 "
            "hexadecimal digits",
        ),
        (
            "server:\n  public_url: voice.example.com\n",
            "config.yaml:2: server.public_url: expected https://host, such as "
            "https://voice.example.com",
        ),
        (
            "server:\n  public_url: http://voice.example.com\n",
            "config.yaml:2: server.public_url: must be https: carriers and callers reach it over "
            "the internet: http://voice.example.com",
        ),
        (
            "server:\n  public_url: https://voice.example.com/?a=b\n",
            "config.yaml:2: server.public_url: must not hold a query",
        ),
        (
            "server:\n  public_url: https://me:secret@voice.example.com\n",
            "config.yaml:2: server.public_url: must not hold a user name or password",
        ),
        (
            "server:\n  webhook_path: twilio/voice\n",
            "config.yaml:2: server.webhook_path: expected a path such as /twilio/voice; "
            "found 'twilio/voice'",
        ),
        (
            "server:\n  status_path: /twilio/voice\n",
            "config.yaml:1: server: webhook_path, websocket_path and status_path must differ",
        ),
        (
            "openai_realtime:\n  url: https://api.openai.com/v1/realtime\n",
            "config.yaml:2: openai_realtime.url: expected wss://host, such as "
            "wss://voice.example.com",
        ),
        (
            "twilio:\n  rest_url: http://api.twilio.com\n",
            "config.yaml:2: twilio.rest_url: must be https: it carries the auth token",
        ),
        ("state_dir: 5\n", "config.yaml:1: state_dir: expected a path"),
        (
            "prices:\n  some-model: {text_inn: 1}\n",
            'config.yaml:2: prices.some-model.text_inn: unknown key; did you mean "text_in"?',
        ),
        (
            "voice_model: openai\nopenai_realtime: {enabled: false}\n",
            "config.yaml:1: voice_model is openai, but openai_realtime.enabled is false",
        ),
        (
            "openai_realtime:\n  api_key: ${NO_KEY}\n",
            "config.yaml:2: NO_KEY is not set: put it into the environment or .env",
        ),
        (
            "server:\n  port: 80.5\n",
            "config.yaml:2: server.port: expected a whole number; found a number with a decimal "
            "point",
        ),
        (
            "server:\n  '\u202ehost': 1\n",
            "config.yaml:2: server.'\\u202ehost': unknown key; did you mean \"host\"?",
        ),
        ("openai_realtime:\n  greeting: ''\n  api_key: short\n",
         "config.yaml:3: openai_realtime.api_key: too short for a secret: at least 8 characters"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_line_and_remedy(
    text: str, expected: str, tmp_path: Path
) -> None:
    assert refusal(text, tmp_path) == [expected]


WRONG_KINDS = {
    "server: {port: many}\n": "server.port: expected a whole number; found text",
    "server: {port: 8080#main}\n": "found text: put a space before the #",
    "server:\n  port: 08080\n": "found text: write it like 1500 or 0.5: no separators, no lead",
    "limits: {max_duration_s: 1,800}\n": "max_duration_s",
    "limits:\n  max_duration_s: 1_800\n": "found text: write it like 1500 or 0.5: no separators",
    "limits:\n  max_duration_s: 30 min\n": "text: write the number alone, in the unit of the key",
    "limits:\n  max_duration_s: 10m\n": "text: write the number alone, in the unit of the key",
    "openai_realtime:\n  truncation: {retention_ratio: 80%}\n": "text: write the number alone",
    "agents: {a: {instructions: {name}}}\n": "found keys and values: put text with a colon or br",
    "agents: {a: {instructions: true}}\n": "expected text; found true: put it into quotes",
    "agents: [{a: 1}]\n": "found a list: write `key: value` lines without dashes",
    "agents: {a: {instructions: x, tools: end_call}}\n": "text: write each entry on a line of its",
    "server:\n  port:8080\n": "expected keys and values; found text: put a space after the colon",
    "server:\n  port:\u00a08080\n": "found text: put a space after the colon",
}


@pytest.mark.parametrize(("text", "remedy"), WRONG_KINDS.items())
def test_a_value_of_the_wrong_kind_is_told_how_to_write_it(
    text: str, remedy: str, tmp_path: Path
) -> None:
    assert remedy in refusal(text, tmp_path)[0]


UNKNOWN_KEYS = {
    "openai: {voice: alloy}\n": 'openai: unknown key; did you mean "openai_realtime"?',
    "numbers:\n  '+15551234567': {time_zone: UTC}\n": (
        "numbers.+15551234567.time_zone: unknown key here; it belongs in numbers.+15551234567.hours"
    ),
    "agents: {a: {instructions: x, threshold: 0.5}}\n": (
        "agents.a.threshold: unknown key here; it belongs in agents.a.turn_detection"
    ),
    "server: {time_zone: UTC}\n": "server.time_zone: unknown key here; it belongs in budget",
}


@pytest.mark.parametrize(("text", "remedy"), UNKNOWN_KEYS.items())
def test_a_key_in_the_wrong_place_is_sent_to_the_nearest_right_one(
    text: str, remedy: str, tmp_path: Path
) -> None:
    assert remedy in refusal(text, tmp_path)[0]


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("America/New York", "America/New_York"),
        ("america/new_york", "America/New_York"),
        ("New York", "America/New_York"),
        ("zurich", "Europe/Zurich"),
        ("Europe/Zürich", "Europe/Zurich"),
        ("Amerca/Chicago", "America/Chicago"),
        ("PST", "America/Los_Angeles"),
        ("CEST", "Europe/Berlin"),
        ("Mars/Olympus", None),
    ],
)
def test_a_time_zone_gets_its_nearest_name(written: str, near: str | None, tmp_path: Path) -> None:
    [problem] = refusal(f"agents: {{a: {{time_zone: {written}}}}}\n", tmp_path)
    assert f"{written!r} is not a time zone" in problem
    assert problem.partition("; did you mean ")[2] == (f'"{near}"?' if near else "")


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("anna@pbx.example.com", "sip:anna@pbx.example.com"),
        ("anna@pbx.example.com:5061;transport=tls", "sip:anna@pbx.example.com:5061;transport=tls"),
        ("sip://anna@pbx.example.com", "sip:anna@pbx.example.com"),
        ("SIPS://anna@pbx.example.com", "SIPS:anna@pbx.example.com"),
        ("<sip:anna@pbx.example.com>", "sip:anna@pbx.example.com"),
        ("sip:anna@pbx.example.com?X-A=1", "sip:anna@pbx.example.com"),
        ("//anna@pbx.example.com", "sip:anna@pbx.example.com"),
        ("pbx.example.com", None),
        ("anna at pbx", None),
    ],
)
def test_a_sip_address_gets_its_nearest_form(
    written: str, near: str | None, tmp_path: Path
) -> None:
    [problem] = refusal(f"destinations: {{d: {{sip: '{written}'}}}}\n", tmp_path)
    assert problem.startswith("config.yaml:1: destinations.d.sip: expected a SIP address such as")
    assert problem.partition("; did you mean ")[2] == (f'"{near}"?' if near else "")
    for right in ("sip:anna@pbx.example.com", "sips:a@b.example.com;transport=tls"):
        assert settings_of(f"destinations: {{d: {{sip: '{right}'}}}}\n", tmp_path)


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("+1 (212) 555-0100", "+12125550100"),
        ("+1.212.555.0100", "+12125550100"),
        ("1-212-555-0100", "+12125550100"),
        ("001 212 555 0100", "+12125550100"),
        ("011 41 44 668 18 00", "+41446681800"),
        ("+41 (0)44 668 18 00", "+41446681800"),
        ("tel:+41446681800", "+41446681800"),
        ("212 555 0100", None),
        ("555-0100", None),
    ],
)
def test_a_phone_number_gets_its_nearest_form(
    written: str, near: str | None, tmp_path: Path
) -> None:
    for key in ("twilio: {from_number: '%s'}", "destinations: {d: {number: '%s'}}"):
        [problem] = refusal(key % written + "\n", tmp_path)
        assert problem.partition("; did you mean ")[2] == (f'"{near}"?' if near else "")


def test_an_address_under_the_key_of_another_kind_is_told_its_place(tmp_path: Path) -> None:
    text = "destinations:\n  a: {number: 'sip:a@b.example.com'}\n  b: {sip: +12125550100}\n"
    assert [line.rpartition(": ")[2] for line in refusal(text, tmp_path)] == [
        "a SIP address stands under sip",
        "a phone number stands under number",
    ]


OPENAI = "openai_realtime"


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        (f"{OPENAI}.temperature", "the Realtime API has none any more: remove it, and say in the "
         "instructions how the agent is to speak"),
        (f"{OPENAI}.modalities", "remove it: a call is always spoken, with a transcript"),
        (f"{OPENAI}.input_audio_format", "write openai_realtime.audio.format, pcm16_24k or pcmu, "
         "which is g711_ulaw"),
        (f"{OPENAI}.output_audio_format", "write openai_realtime.audio.format"),
        (f"{OPENAI}.audio.output", "write openai_realtime.voice and openai_realtime.audio"),
        (f"{OPENAI}.input_audio_transcription", "write openai_realtime.transcription"),
        (f"{OPENAI}.input_audio_noise_reduction", "write openai_realtime.audio.noise_reduction"),
        (f"{OPENAI}.max_response_output_tokens", "write openai_realtime.max_output_tokens"),
        (f"{OPENAI}.instructions", "write openai_realtime.system_instruction"),
        (f"{OPENAI}.initial_prompt", "write openai_realtime.greeting"),
        (f"{OPENAI}.model_name", "write openai_realtime.model, or that of a number"),
        (f"{OPENAI}.tools", "write agents.NAME.tools, described under tools"),
        ("agents.clara.Temperature", "the Realtime API has none any more"),
        ("agents.clara.system_prompt", "write agents.clara.instructions"),
        ("agents.clara.input_audio_transcription", "write agents.clara.transcription"),
        ("agents.clara.model_name", "write openai_realtime.model, or that of a number"),
        ("numbers.+15551234567.instructions", "write agents.NAME.instructions"),
        ("twilio.phone_number", "write twilio.from_number"),
        ("server.ngrok_url", "write server.public_url"),
        ("logging.file", "remove it: the log goes to standard error"),
    ],
)  # fmt: skip
def test_a_key_of_another_system_is_answered_with_what_replaced_it(
    key: str, answer: str, tmp_path: Path
) -> None:
    rows = [f"{'  ' * depth}{step}:" for depth, step in enumerate(key.split("."))]
    [problem] = refusal("\n".join(rows) + " 1\n", tmp_path)
    assert problem.startswith(f"config.yaml:{len(rows)}: {key}: unknown key; {answer}")


def test_everything_wrong_is_listed_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
openai_realtime:
  voce: marin
  api_key: ${NO_KEY}
server:
  port: many
limits:
  max_calls: 0
"""
    assert [line.split(" ")[0] for line in refusal(text, tmp_path)] == [
        "config.yaml:2:",
        "config.yaml:3:",
        "config.yaml:5:",
        "config.yaml:7:",
    ]


def test_the_names_of_the_earlier_system_work(tmp_path: Path) -> None:
    text = f"""\
openai_realtime:
  enabled: true
  api_key: ${{OPENAI_API_KEY}}
  model: "gpt-4o-realtime-preview-2024-12-17"
  voice: "alloy"  # Options: alloy, echo
  system_instruction: |
    You are a professional AI assistant.
twilio:
  account_sid: {ACCOUNT}
  auth_token: ${{TWILIO_AUTH_TOKEN}}
  from_number: "+15551234567"
server:
  host: 0.0.0.0
  port: 8080
  webhook_path: /twilio/voice
  websocket_path: /twilio/media-stream
logging:
  level: info
  format: json
"""
    found = settings_of(text, tmp_path, OPENAI_API_KEY=SECRET, TWILIO_AUTH_TOKEN="0" * 32)
    assert found.openai_realtime.voice == "alloy"
    assert found.openai_realtime.system_instruction == "You are a professional AI assistant.\n"
    assert found.twilio.all_numbers == ("+15551234567",)
    assert found.logging.level == "INFO"
    assert found.mode is Mode.LIVE
    assert found.voice_choice is VoiceChoice.OPENAI


def test_a_token_of_digits_from_a_variable_stays_text(tmp_path: Path) -> None:
    token = "0123456789" * 3
    for digits in (token, token.lstrip("0")):
        found = settings_of("twilio:\n  auth_token: ${T}\n", tmp_path, T=digits)
        assert found.twilio.auth_token is not None
        assert found.twilio.auth_token.get_secret_value() == digits


def test_a_number_or_truth_from_a_variable_is_one_where_it_is_wanted(tmp_path: Path) -> None:
    text = """\
server:
  port: ${PORT}
openai_realtime:
  enabled: ${ON}
  max_output_tokens: ${TOKENS}
  turn_detection:
    threshold: ${LEVEL}
"""
    found = settings_of(text, tmp_path, PORT="81", ON="false", TOKENS="5", LEVEL="1")
    assert found.server.port == 81
    assert found.openai_realtime.enabled is False
    assert found.openai_realtime.max_output_tokens == 5
    assert found.openai_realtime.turn_detection.threshold == 1


def test_dotenv_beside_the_file_is_read_and_the_environment_beats_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=81\nHOST_NAME=localhost\n")
    text = "server:\n  port: ${PORT}\n  host: ${HOST_NAME}\n"
    assert settings_of(text, tmp_path).server.port == 81
    found = settings_of(text, tmp_path, PORT="82")
    assert (found.server.port, found.server.host) == (82, "localhost")


@pytest.mark.parametrize(
    ("text", "dotenv", "expected"),
    [
        ("server: {port: '${P}'}", "\nP=x", ".env:2: server.port (from P): expected a whole"),
        ("", "A=1\nSERVER_PORT=x", ".env:2: server.port (from SERVER_PORT): expected a"),
        ("", "TWILIO_ACCOUNT_SID_FILE=sid", ".env:1: twilio.account_sid (from TWILIO_ACC"),
        ("state_dir: [1]\nx: ${A}", "A=1", "config.yaml:1: state_dir: expected a path"),
        ("x: ${OPENAI_API_KEY}", "B=\nOPENAI_APIKEY=1", "config.yaml:1: OPENAI_API_KEY is not set: "
         "put it into the environment or .env; {folder}/.env:2 sets OPENAI_APIKEY"),
        ("x: ${KEY}", "B=1\nKEY=", "config.yaml:1: KEY is not set: put it into the environment or "
         ".env; {folder}/.env:2 leaves it empty"),
    ],
)  # fmt: skip
def test_a_value_from_dotenv_is_blamed_on_its_line_there(
    text: str, dotenv: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    (tmp_path / "sid").write_text("AC12")
    first = refusal(text, tmp_path)[0].removeprefix(f"{tmp_path}/")
    assert first.startswith(expected.replace("{folder}", str(tmp_path)))


def test_a_value_of_the_environment_is_not_blamed_on_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SERVER_PORT=80\n")
    [problem] = refusal("", tmp_path, SERVER_PORT="x")
    assert problem.startswith("config.yaml:1: server.port (from SERVER_PORT): ")
    (tmp_path / ".env").write_text("PUBLIC_URL=https://a.example.com\nA=b c\nno line\n")
    origin = settings_of("state_dir: ${A}\n", tmp_path).origin
    assert origin.place("server", "public_url") == (
        f"{tmp_path}/.env:1: server.public_url (from PUBLIC_URL)"
    )
    assert origin.notices == (f"{tmp_path}/.env:3: the line is ignored: expected NAME=value",)


@pytest.mark.parametrize(
    ("dotenv", "process", "meant"),
    [
        ("OPENAI_APIKEY=x", {}, "OPENAI_API_KEY"),
        ("OPEN_AI_API_KEY=x", {}, "OPENAI_API_KEY"),
        ("openai_api_key=x", {}, "OPENAI_API_KEY"),
        ("TWILLIO_AUTH_TOKEN=x", {}, "TWILIO_AUTH_TOKEN"),
        ("TWILIO_AUTHTOKEN_FILE=x", {}, "TWILIO_AUTH_TOKEN_FILE"),
        ("MY_VARIABEL=x", {}, "MY_VARIABLE"),
        ("TWILIO_SID=x", {}, "TWILIO_ACCOUNT_SID"),
        ("PORT=80", {}, "SERVER_PORT"),
        ("", {"OPENAI_APIKEY": "x"}, "OPENAI_API_KEY"),
        ("", {"PORT": "80", "HOST": "h", "PATH": "p", "API_KEY": "x"}, None),
        ("OPENAI_API_KEY=12345678\nOPENAI_APIKEY=x", {}, None),
        ("CLINIC_TOKEN=x", {}, None),
    ],
)
def test_a_variable_whose_name_is_nearly_right_is_named(
    dotenv: str, process: dict[str, str], meant: str | None, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    found = settings_of("state_dir: ${MY_VARIABLE:-var}\n", tmp_path, **process).origin.notices
    name = (dotenv or next(iter(process))).partition("=")[0]
    where = f"{tmp_path}/.env:1" if dotenv else "environment"
    text = f'{where}: {name}: nothing reads this variable; did you mean "{meant}"?'
    assert found == ((text,) if meant else ())
    with pytest.raises(ConfigError) as refused:
        settings_of("state_dir: ${MY_VARIABLE:-var}\nlimits: 5\n", tmp_path, **process)
    assert refused.value.message.splitlines()[1:] == ([f"note: {text}"] if meant else [])


TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.mark.parametrize(
    "text",
    [
        f"twilio: {{from_number: {TOKEN}}}",
        f"twilio: {{account_sid: {TOKEN}}}",
        f"twilio: {{numbers: [{TOKEN}]}}",
        f"numbers: {{{TOKEN}: {{}}}}",
        "twilio: {from_number: '${T_TOKEN}'}",
        "twilio: {from_number: '${SHORT_TOKEN}'}",
        "numbers: {+15551234567: {languages: ['${SHORT_TOKEN}']}}",
        "tools: {a: {python: '${SHORT_TOKEN}'}}",
        f"openai_realtime: {{api_key: '${{OPENAI_API_KEY:{TOKEN}}}'}}",
        f"openai_realtime: {{api_key: '${{OPENAI_API_KEY:?{TOKEN}}}'}}",
        f"openai_realtime: {{api_key: '${{OPENAI_API_KEY-{TOKEN}}}'}}",
        f"openai_realtime: {{api_key: '${{{TOKEN}}}'}}",
        f"openai_realtime: {{api_key: '${{a{TOKEN}}}'}}",
        f"openai_realtime: {{api_key: '${{{TOKEN}'}}",
        "openai_realtime: {api_key: '${sk-proj-canary1}'}",
        f"server: {{public_url: 'http://a.example.com/{TOKEN}'}}",
        f"server: {{webhook_path: {TOKEN}}}",
        f"voice_model: {TOKEN}",
        f"agents: {{a: {{tools: [{TOKEN}]}}}}",
        f"{TOKEN}: 1",
        f"openai_realtime: {{{TOKEN}: 1}}",
        f"numbers: {{+15551234567: {{hours: {{time_zone: {TOKEN}, open: {{}}}}}}}}",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(text: str, tmp_path: Path) -> None:
    problems = "\n".join(refusal(text, tmp_path, T_TOKEN=TOKEN, SHORT_TOKEN="canary-word"))
    assert problems
    for secret in (TOKEN, TOKEN[4:], "canary"):
        assert secret not in problems


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    found = settings_of("offline: {receptionist: my.yaml}\n", tmp_path)
    assert found.offline.receptionist == tmp_path / "my.yaml"
    assert found.state_dir == tmp_path / "var"
    assert found.offline.messages_dir == tmp_path / "var" / "messages"
    assert settings_of("state_dir: /data\n", tmp_path).state_dir == Path("/data")


def test_a_section_without_keys_is_as_good_as_none(tmp_path: Path) -> None:
    found = settings_of("offline:\n  # nothing yet\ntwilio:\n", tmp_path)
    assert found.offline.messages_dir == tmp_path / "var" / "messages"
    assert settings_of("", tmp_path).offline == found.offline


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    found = settings_of("", tmp_path)
    assert found.mode is Mode.DEVELOPMENT
    assert found.voice_choice is VoiceChoice.OFFLINE
    assert found.base_url == "http://127.0.0.1:8080"
    assert found.transcript_feed_on


def test_a_wrong_variable_is_named_with_the_setting_that_it_fills(tmp_path: Path) -> None:
    text = "server:\n  port: ${SERVER_PORT:-8080}\n  host: ${A:-}${B:-x}\n"
    assert refusal(text, tmp_path, SERVER_PORT="eighty", A=" ", B=" ") == [
        "config.yaml:2: server.port (from SERVER_PORT): expected a whole number; found text",
        "config.yaml:3: server.host (from A, B): must not be empty or hold spaces",
    ]
    assert refusal(text.replace("8080", "x"), tmp_path) == [
        "config.yaml:2: server.port: expected a whole number; found text"
    ]


def test_a_file_that_says_less_takes_the_same_variables(tmp_path: Path) -> None:
    variables = {"OPENAI_API_KEY": SECRET, "SERVER_PORT": "9000", "STATE_DIR": "/state"}
    for text in ("", "server:\n", "server: {host: '::1'}\nopenai_realtime: {voice: cedar}\n"):
        found = settings_of(text, tmp_path, **variables, TWILIO_AUTH_TOKEN="f" * 32)
        assert found.voice_choice is VoiceChoice.OPENAI
        assert found.server.port == 9000
        assert found.offline.messages_dir == Path("/state/messages")
        assert found.mode is Mode.LIVE
    named = "server: {port: 80}\nopenai_realtime: {api_key: null}\ntwilio: {auth_token: ''}\n"
    found = settings_of(named, tmp_path, **variables, TWILIO_AUTH_TOKEN="f" * 32)
    assert found.server.port == 80
    assert found.voice_choice is VoiceChoice.OFFLINE
    assert found.mode is Mode.DEVELOPMENT
    assert refusal("server: [1]\n", tmp_path, **variables) == [
        "config.yaml:1: server: expected keys and values; found a list: write `key: value` "
        "lines without dashes"
    ]
    assert refusal("", tmp_path, SERVER_PORT="x") == [
        "config.yaml:1: server.port (from SERVER_PORT): expected a whole number; found text"
    ]


def test_the_table_of_variables_is_that_of_the_shipped_file() -> None:
    shipped = parse_yaml(CONFIG.read_text(encoding="utf-8"), name="config.yaml")
    found = dict(_with_references(shipped, ()))
    assert found == FROM_VARIABLES


def _with_references(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(node, Mapping):
        for key, child in node.entries.items():
            yield from _with_references(child, (*path, key))
    elif isinstance(node, Scalar) and "${" in node.text:
        yield path, node.text


def test_a_missing_file_is_a_problem_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml", {})


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    found = settings_of("", tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        found.server.port = 1


@pytest.mark.parametrize(
    ("text", "variables", "choice"),
    [
        ("", {}, VoiceChoice.OFFLINE),
        ("openai_realtime: {api_key: 12345678a}", {}, VoiceChoice.OPENAI),
        ("openai_realtime: {headers: {api-key: 12345678a}}", {}, VoiceChoice.OPENAI),
        ("openai_realtime: {api_key: 12345678a, enabled: false}", {}, VoiceChoice.OFFLINE),
        ("{voice_model: offline, openai_realtime: {api_key: 12345678a}}", {}, VoiceChoice.OFFLINE),
        ("voice_model: openai", {}, VoiceChoice.OPENAI),
    ],
)
def test_the_voice_follows_from_choice_and_key(
    text: str, variables: dict[str, str], choice: VoiceChoice, tmp_path: Path
) -> None:
    assert settings_of(text, tmp_path, **variables).voice_choice is choice


SECRETS_EVERYWHERE = f"""\
openai_realtime:
  api_key: {SECRET}
  headers:
    api-key: {SECRET}-header
twilio:
  account_sid: {ACCOUNT}
  auth_token: {SECRET}-auth
  auth_token_secondary: {SECRET}-second
offline:
  realtime_token: {SECRET}-realtime
server:
  metrics_token: {SECRET}-metrics
"""


def test_no_way_of_showing_settings_shows_a_secret(tmp_path: Path) -> None:
    found = settings_of(SECRETS_EVERYWHERE, tmp_path)
    for text in (repr(found), str(found), masked(found), found.model_dump_json()):
        assert "canary" not in text
    assert "****6789" in masked(found)


def test_every_secret_is_named_for_the_log_filter(tmp_path: Path) -> None:
    found = settings_of(SECRETS_EVERYWHERE, tmp_path)
    assert len(found.secrets()) == SECRETS_EVERYWHERE.count(SECRET)


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    wrong = SECRETS_EVERYWHERE.replace(f"{SECRET}", f'" {SECRET}')
    text = "\n".join(
        row + '"' if SECRET in row else row for row in wrong.splitlines() if "account" not in row
    )
    problems = refusal(text + "\nlimits: {max_calls: ${KEY}}\n".replace("${KEY}", SECRET), tmp_path)
    assert len(problems) == 7
    assert "canary" not in "".join(problems)


@given(st.data())
def test_a_mutated_configuration_is_read_or_refused_by_line(data: st.DataObject) -> None:
    text = (Path(__file__).parents[3] / "config.yaml").read_text()
    rows = text.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        row = data.draw(st.integers(0, len(rows) - 1))
        column = data.draw(st.integers(0, len(rows[row])))
        noise = data.draw(st.text(st.sampled_from("ab:- []{}#&*!|>'\"%@$~0\t"), max_size=4))
        rows[row] = rows[row][:column] + noise + rows[row][column + len(noise) :]
    with tempfile.TemporaryDirectory() as folder:
        try:
            settings_of("\n".join(rows), Path(folder))
        except ConfigError as error:
            assert all(line.startswith("config.yaml:") for line in error.message.splitlines())
