"""Documents agree with the code: settings, commands, make targets, generated parts."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from app.assembly import assemble
from app.cli import app as command_line
from app.events import EndReason
from app.settings import Limits, Settings, check_deployment, load
from app.web.metrics import AuthFailure, Metrics, Refusal
from app.web.server.sockets import SocketCounts

ROOT = Path(__file__).parents[2]
CONFIG = (ROOT / "config.yaml").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATOR = _load_generator()
KEYS = GENERATOR.config_keys(CONFIG)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _sections(argument)]


def _is_table(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def setting_names(model: type[BaseModel] = Settings, place: str = "") -> set[str]:
    """Every setting there is; for an entry of a table stands one word."""
    names = set()
    for key, field in model.model_fields.items():
        path = f"{place}{key}"
        names.add(path)
        entry = GENERATOR.ENTRIES.get(path.partition(".")[0], "NAME")
        inner = f"{path}.{entry}." if _is_table(field.annotation) else f"{path}."
        for section in _sections(field.annotation):
            names |= setting_names(section, inner)
    return names


def written_names() -> set[str]:
    entries = {f"{table}.{GENERATOR.ENTRIES.get(table, 'NAME')}" for table in TABLES}
    return {key.name for key in KEYS if not key.name.endswith(".NAME")} - entries


TABLES = GENERATOR.EXAMPLES
COMMENTS: dict[str, str] = {}
for key in KEYS:
    COMMENTS[key.name] = f"{COMMENTS.get(key.name, '')} {key.comment}".strip()


def explained_by_another(name: str) -> bool:
    """Written on the line of a key: its comment, or that of what it overrides, says what it is."""
    parent, _, key = name.rpartition(".")
    parent = parent.removesuffix(".NAME")
    for place in (parent, parent.replace("numbers.NUMBER.", "agents.NAME.")):
        if key in COMMENTS.get(place, ""):
            return True
        root = place.removesuffix(".inactivity").replace("agents.NAME.limits", "limits")
        if place.startswith("agents.NAME.") and f"{root}.{key}" in COMMENTS:
            return True
        of_the_model = place.replace("agents.NAME.", "openai_realtime.")
        if f"{of_the_model}.{key}" in COMMENTS or key in COMMENTS.get(of_the_model, ""):
            return True
        if f"limits.inactivity.{key}" in COMMENTS and place.endswith(".inactivity"):
            return True
    return False


def test_every_setting_is_in_the_configuration_file_and_the_other_way_round() -> None:
    assert written_names() <= setting_names()
    missing = setting_names() - written_names()
    assert {name for name in missing if not explained_by_another(name)} == set()
    # Nothing but overrides and keys of one line may be explained elsewhere.
    assert {name.partition(".")[0] for name in missing} <= {"openai_realtime", "agents", "numbers"}


def test_every_key_of_the_configuration_file_has_a_comment() -> None:
    for key in KEYS:
        assert COMMENTS[key.name], f"{key.name} has no comment"


def test_the_configuration_file_shows_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    shown = load(path, {})
    path.write_text("")
    assumed = load(path, {})
    assert shown.model_dump() == assumed.model_dump()


OFF = [key for key in KEYS if not key.on]


# Tables inside a section, which are turned on whole.
INNER_TABLES = ("gateway.channels", "gateway.models", "gateway.keys")


def test_the_example_of_the_gateway_can_be_turned_on(tmp_path: Path) -> None:
    rows = CONFIG.splitlines()
    for key in OFF:
        if key.name.startswith(INNER_TABLES) and "azure" not in key.name:
            rows[key.line - 1] = rows[key.line - 1].replace("#", "", 1)
    path = tmp_path / "config.yaml"
    path.write_text(re.sub(r"\n +entra_token_file:", "", "\n".join(rows)))
    gateway = load(path, {}).gateway
    assert gateway.models["gpt-realtime-2.1"].channels == tuple(gateway.channels) == ("openai",)


@pytest.mark.parametrize(
    "key",
    [k for k in OFF if k.path[0] not in GENERATOR.EXAMPLES and not k.name.startswith(INNER_TABLES)],
    ids=lambda k: k.name,
)
def test_a_key_that_is_turned_off_can_be_turned_on(key: Any, tmp_path: Path) -> None:
    rows = CONFIG.splitlines()
    rows[key.line - 1] = rows[key.line - 1].replace("#", "", 1)
    text = "\n".join(rows)
    if key.path[-1] == "eagerness":
        text = text.replace("type: server_vad", "type: semantic_vad")
        text = re.sub(r"\n    (threshold|prefix_padding_ms|silence_duration_ms): .*", "", text)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    load(path, {})


def with_examples(*left_out: str) -> str:
    """The configuration with its examples turned on, but for some keys of theirs."""
    rows = CONFIG.splitlines()
    for key in OFF:
        if key.path[0] in GENERATOR.EXAMPLES and key.name not in left_out:
            rows[key.line - 1] = rows[key.line - 1].replace("#", "", 1)
    return "\n".join(rows)


TOKENS = {
    "CLINIC_TOKEN": "a token of the clinic",
    "CALENDAR_TOKEN": "a token of the calendar",
    "ORDERS_TOKEN": "a token of the orders",
    "ANALYSIS_API_KEY": "a key of the analysis",
    "WEBHOOK_SECRET": "a secret of at least 24 bytes",
}
CLINIC = """
def find_slot(day: str) -> str:
    \"\"\"Find a slot.\"\"\"
    return day

def check_words(text, context):
    return None

def greeter_instructions(facts):
    return "Greet."
"""


@pytest.mark.parametrize("left_out", ["agent", "transfer"])
def test_the_examples_can_be_turned_on_and_assembled(left_out: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(with_examples(f"numbers.NUMBER.closed.{left_out}"))
    (tmp_path / "clinic.py").write_text(CLINIC)
    settings = load(path, {**TOKENS, "OPENAI_API_KEY": "a key of the model"})
    assert set(settings.agents) == {"greeter", "booking"}
    assembly = assemble(settings)
    assert [agent.name for agent in assembly.roster] == ["greeter", "booking"]
    for secret in TOKENS.values():
        assert any(secret in held for held in settings.secrets())


def test_the_example_in_the_document_on_agents_can_be_assembled(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```yaml\n(agents:.*?)```", text, re.DOTALL)
    (tmp_path / "clinic.py").write_text(CLINIC)
    path = tmp_path / "config.yaml"
    path.write_text(example)
    settings = load(path, {**TOKENS, "OPENAI_API_KEY": "a key of the model"})
    assert [agent.name for agent in assemble(settings).roster] == ["greeter", "booking"]
    assert settings.all_numbers == ("+15551234567",)


def test_every_variable_of_the_configuration_is_in_the_example_and_the_other_way_round() -> None:
    rows = [row for row in CONFIG.splitlines() if not re.match(r" *# ", row)]
    used = set(re.findall(r"\$\{([A-Z_]+)(?::-|\})", "\n".join(rows)))
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) == used


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert GENERATOR.refreshed(text) == text, "run `make docs`"


def test_every_setting_is_in_the_document_on_configuration() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    missing = {
        name
        for name in written_names()
        if f"`{name}`" not in text and not text.count(f"### `{name}`")
    }
    assert not missing


def test_every_setting_is_read_by_some_code() -> None:
    """A key that nothing reads is a promise that nobody keeps."""
    read = {
        node.attr
        for path in (ROOT / "app").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    unread = {name for name in setting_names() if name.rpartition(".")[2] not in read}
    assert not unread


def test_every_command_is_in_a_document() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in (*DOCS, ROOT / "README.md"))
    group: Any = get_command(command_line)
    for name, command in group.commands.items():
        for path in [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]:
            assert f"trunkline {path}" in texts, f"no document mentions `trunkline {path}`"


OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LOGGED_BY = {"info", "warning", "error", "exception", "_complain", "_report"}
"""Functions that write a line of the log, by their names."""


def logged_lines() -> set[str]:
    """The messages that a server writes at INFO and above."""
    return {
        node.args[0].value
        for path in (ROOT / "app").rglob("*.py")
        if path.parent.name not in ("dial", "session")  # run in programs of their own
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in LOGGED_BY
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def test_every_line_of_the_log_is_in_the_document_on_operations() -> None:
    lines = logged_lines()
    assert {"call ended", "webhook refused", "tool failed"} <= lines
    assert {line for line in lines if f"`{line}`" not in OPERATIONS} == set()


def test_every_reason_and_metric_is_in_the_document_on_operations() -> None:
    metrics = Metrics()
    metrics.watch_sockets(SocketCounts())
    names = {family.name for family in metrics.registry.collect()}
    shown = {name.removeprefix("trunkline_") for name in names if name.startswith("trunkline_")}
    for word in (*EndReason, *Refusal, *AuthFailure, *SocketCounts.__annotations__, *sorted(shown)):
        assert f"`{word}`" in OPERATIONS, f"no word on {word}"


def test_every_make_target_that_a_document_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
    wanted = {"install", "run", "demo", "test", "check", "bench", "lint", "types", "fmt", "docs"}
    assert targets >= wanted | {"help", "clean"}
    pages = [*DOCS, *ROOT.glob("*.md"), *(ROOT / "app" / "cli").glob("*.py")]
    for page in pages:
        for name in re.findall(r"`make ([a-z0-9-]+)", page.read_text(encoding="utf-8")):
            assert name in targets, f"{page.name} names `make {name}`"


def test_make_help_lists_every_target() -> None:
    text = subprocess.run(
        ["make", "--no-print-directory", "-s", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert {row.split()[0] for row in text.splitlines()} == set(phony.split())


def test_links_between_documents_lead_somewhere() -> None:
    for page in (*DOCS, *ROOT.glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MOST_FILES = {"A media frame up": 8, "A delta down": 10, "A tool call and its answer": 10}
"""The walks, and how many files each may lead through."""


@pytest.mark.parametrize("walk", MOST_FILES)
def test_a_walk_leads_through_few_files_that_do_what_it_says(walk: str) -> None:
    text = ARCHITECTURE.split(f"\n### {walk}\n")[1].split("\n##")[0]
    steps = re.findall(r"^\| `([\w/.]+)` \| `(\w+)\.(\w+)` \|", text, re.MULTILINE)
    assert 5 < len({path for path, _, _ in steps}) <= MOST_FILES[walk]
    for path, owner, name in steps:
        code = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        [found] = [n for n in code.body if isinstance(n, ast.ClassDef) and n.name == owner]
        assert name in {getattr(node, "name", "") for node in found.body}, f"{path}: no {name}"


def test_every_room_and_every_word_has_its_place() -> None:
    rooms = ARCHITECTURE.split("\n## Rooms\n")[1].split("\n##")[0]
    listed = set(re.findall(r"^\| `([\w/.]+)` \|", rooms, re.MULTILINE))
    for folder in (*(ROOT / "app").iterdir(), *(ROOT / "app").glob("*/*"), ROOT / "audio"):
        holds_code = any(folder.glob("*.py")) if folder.is_dir() else False
        name = f"{folder.relative_to(ROOT)}/"
        inside = f"{folder.parent.relative_to(ROOT)}/"
        if holds_code and name not in listed:
            [row] = [row for row in rooms.splitlines() if row.startswith(f"| `{inside}`")]
            assert f"`{folder.name}/`" in row, f"{name} is not in the table of rooms"
    words = ARCHITECTURE.split("\n## Words\n")[1].split("\n##")[0]
    for path in [*listed, *re.findall(r"`(app/[\w/]+\.py)`", words)]:
        assert (ROOT / path).exists(), f"there is no {path}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as links spell them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_to_a_heading_lead_to_one() -> None:
    for page in (*DOCS, *ROOT.glob("*.md")):
        for target in re.findall(r"\]\(([^):]*#[^)]*)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            place = page.parent / name if name else page
            assert anchor in anchors(place), f"{page.name} links to {target}"


def test_compose_and_image_agree_on_port_user_and_grace_period(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    service = compose["services"]["trunkline"]
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    settings = load(path, {})
    assert service["ports"] == [f"127.0.0.1:{settings.server.port}:{settings.server.port}"]
    assert f"EXPOSE {settings.server.port}" in dockerfile
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.limits.drain_timeout_s
    assert service["ulimits"]["nofile"] >= 4 * settings.limits.max_calls + 200
    assert "USER 65532:65532" in dockerfile
    assert service["read_only"] is True
    state, config = service["volumes"]
    assert f"STATE_DIR={state.partition(':')[2]}" in dockerfile
    assert config == "./config.yaml:/srv/trunkline/config.yaml:ro"
    assert f"COPY config.yaml {config.split(':')[1]}" in dockerfile
    fixed = service["environment"]
    assert load(path, {"SERVER_PORT": fixed["SERVER_PORT"]}).server.port == settings.server.port
    assert f"STATE_DIR={fixed['STATE_DIR']}" in dockerfile
    assert "SERVER_HOST=0.0.0.0" in dockerfile


def test_a_container_without_an_account_is_a_demo_on_loopback(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["trunkline"]
    assert service["env_file"] == [{"path": ".env", "required": False}]
    assert service["environment"]["SERVER_HOST"] == "${TWILIO_ACCOUNT_SID:+0.0.0.0}"
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    for account, problem in (("", False), ("AC" + "1" * 32, True)):
        # As docker compose fills it in: nothing without an account.
        host = "0.0.0.0" if account else ""
        settings = load(path, {"SERVER_HOST": host, "TWILIO_ACCOUNT_SID": account})
        assert bool(check_deployment(settings)) == problem  # of a live server more is asked
        assert settings.server.host == (host or "127.0.0.1")


def test_alert_rules_read_metrics_and_labels_that_exist() -> None:
    rules = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text(encoding="utf-8"))
    operations = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    metrics = Metrics()
    known = {family.name for family in metrics.registry.collect()}
    for rule in [rule for group in rules["groups"] for rule in group["rules"]]:
        for name in re.findall(r"\btrunkline_\w+", rule["expr"]):
            assert re.sub("_(bucket|total)$", "", name) in known, rule["alert"]
        for value in re.findall(r'\w+="(\w+)"', rule["expr"]):
            assert value == "trunkline" or f"`{value}`" in operations, rule["alert"]


def test_the_units_give_calls_the_time_that_they_are_promised() -> None:
    unit = (ROOT / "deploy/trunkline.service").read_text(encoding="utf-8")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > Limits().drain_timeout_s
    pods = [*yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text(encoding="utf-8"))]
    [pod] = [found["spec"]["template"]["spec"] for found in pods if found["kind"] == "StatefulSet"]
    assert pod["terminationGracePeriodSeconds"] > Limits().drain_timeout_s
    assert pod["securityContext"]["runAsUser"] == 65532


def test_what_the_image_copies_is_let_through_to_its_builder() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for row in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        for name in row.split():
            assert f"!{name}" in ignored
            assert (ROOT / name).exists()


def test_each_decision_has_a_number_of_its_own() -> None:
    pages = sorted(path.name for path in (ROOT / "docs/decisions").glob("*.md"))
    assert len({name[:4] for name in pages}) == len(pages), pages
    for name in pages:
        title = (ROOT / "docs/decisions" / name).read_text().splitlines()[0]
        assert title.startswith(f"# {int(name[:4])}. "), name
