"""Facts that reach a log line, and those that never do."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import logs

SECRET = 'sk-proj-"quoted"/and+slashed=zürich'


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """`configure` is for a whole process: put everything back for the other tests."""
    names = ["", "uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "twilio", "httpx"]
    names += ["httpx2", "httpcore", "httpcore2", "asyncio", "urllib3", "py.warnings", "mcp"]
    loggers = [logging.getLogger(name) for name in names]
    kept = [(lg, lg.level, lg.handlers[:], lg.filters[:], lg.propagate) for lg in loggers]
    yield
    logging.captureWarnings(False)
    for logger, level, handlers, filters, propagate in kept:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.filters[:] = filters
        logger.propagate = propagate


def output(format: str = "json", **options: Any) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(format=format, stream=stream, **options)
    return stream


def line(stream: io.StringIO) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stream.getvalue())
    return found


def test_a_json_line_holds_time_level_logger_message_and_facts() -> None:
    stream = output()
    logging.getLogger("app.calls").info("call ended", extra={"reason": "silence", "turns": 3})
    found = line(stream)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "logger": "app.calls",
        "message": "call ended",
        "reason": "silence",
        "turns": 3,
    }


@pytest.mark.parametrize("format", ["json", "console"])
def test_the_call_id_stands_in_every_line_of_its_call(format: str) -> None:
    stream = output(format)
    token = logs.call_id.set("c-1")
    try:
        logging.getLogger("websockets.client").warning("lost")
    finally:
        logs.call_id.reset(token)
    logging.getLogger("app").info("elsewhere")
    logging.getLogger("app").info("afterwards", extra={"call_id": "c-2"})
    inside, outside, after = stream.getvalue().splitlines()
    assert "c-1" in inside
    assert "call_id" not in outside
    assert after.count("call_id") == 1
    assert "c-2" in after


def test_a_console_line_reads_as_words_with_facts_behind() -> None:
    stream = output("console")
    logging.getLogger("app").info("call ended", extra={"reason": "silence", "detail": "two words"})
    assert stream.getvalue().endswith('INFO    call ended reason=silence detail="two words"\n')


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_secret_never_appears_whichever_way_it_comes_in(format: str) -> None:
    stream = output(format, level="DEBUG", secrets=[SECRET], show_personal=True)
    for name in ("app", "uvicorn.error", "websockets.client", "twilio.http_client"):
        logger = logging.getLogger(name)
        logger.error("key %s refused", SECRET)
        logger.error("refused", extra={"header": f"Bearer {SECRET}", "deep": {"key": [SECRET]}})
        logger.error("refused", extra={SECRET: "as a key"})
        logger.error("url /x?key=%s", quote(SECRET, safe=""))
        logger.error("bad arguments %d", SECRET)
        try:
            raise ValueError(SECRET)
        except ValueError:
            logger.exception("failed")
    text = stream.getvalue()
    assert text.count("[secret]") >= 20
    assert "zürich" not in text
    assert json.dumps("zürich")[1:-1] not in text
    assert "quoted" not in text


@given(
    before=st.text(st.characters(codec="ascii"), max_size=8),
    secret=st.text(st.characters(codec="ascii"), min_size=12, max_size=40),
)
def test_a_secret_inside_basic_credentials_is_found(before: str, secret: str) -> None:
    encoded = base64.b64encode(f"{before}:{secret}:after".encode()).decode()
    head, hidden, _ = (
        logs.Redactor([secret], show_personal=True).clean(encoded).partition("[secret]")
    )
    assert hidden
    # Two characters hold bits of the secret's first byte at most.
    assert len(head) <= len(base64.b64encode(f"{before}:".encode()).rstrip(b"=")) + 1


def test_of_two_secrets_the_one_that_holds_the_other_goes_whole() -> None:
    redactor = logs.Redactor(["abcdef", "abcdef-and-more"])
    assert redactor.clean("x abcdef-and-more y") == "x [secret] y"


def test_a_secret_learned_late_is_hidden_too() -> None:
    stream = io.StringIO()
    redactor = logs.configure(format="json", stream=stream)
    redactor.add("late-secret")
    logging.getLogger("app").info("late-secret")
    assert "late-secret" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("from +15551234567", "from +1555***4567"),
        ("/twilio/voice?From=%2B15551234567&x=1", "/twilio/voice?From=+1555***4567&x=1"),
        ("+4930123456", "+49***456"),
        ("+4912", "+4912"),
        ("15551234567", "15551234567"),
    ],
)
def test_phone_numbers_are_masked_wherever_they_stand(text: str, shown: str) -> None:
    assert logs.Redactor().clean(text) == shown


def test_personal_values_are_masked_under_their_keys() -> None:
    stream = output()
    said = {"pii.text": "my card is 4111", "nested": {"pii.caller": "+15551234567"}}
    logging.getLogger("app").info("turn", extra=said)
    found = line(stream)
    assert found["pii.text"] == "[15 characters]"
    assert found["nested"]["pii.caller"] == "+1555***4567"


def test_show_personal_shows_them() -> None:
    stream = output(show_personal=True)
    logging.getLogger("app").info("turn %s", "+15551234567", extra={"pii.text": "hello"})
    assert line(stream)["pii.text"] == "hello"
    assert line(stream)["message"] == "turn +15551234567"


FORGED = 'x\r\n{"level":"error"}\x1b[31m\x85\u2028\u202e'


def test_a_forged_line_break_does_not_make_a_second_line() -> None:
    for format in ("json", "console"):
        stream = output(format)
        logging.getLogger("app").info("from %s", FORGED, extra={"name_given": FORGED})
        assert len(stream.getvalue().splitlines()) == 1
        assert "\x1b" not in stream.getvalue()


def test_a_traceback_cannot_pass_for_a_line_of_ours() -> None:
    stream = output("console")
    try:
        raise ValueError("x\n12:00:00.000 INFO call ended")
    except ValueError:
        logging.getLogger("app").exception("failed")
    _, *rows = stream.getvalue().splitlines()
    assert rows
    assert all(row.startswith("    | ") for row in rows)


def test_facts_of_any_kind_make_valid_json() -> None:
    stream = output()
    facts = {"nan": float("nan"), "set": {1}, "audio": b"123", "object": object(), "level": "x"}
    logging.getLogger("app").info("odd", extra=facts)
    found = json.loads(stream.getvalue(), parse_constant=pytest.fail)
    assert found["level"] == "info"
    assert found["extra.level"] == "x"
    assert found["audio"] == "[3 bytes]"
    assert found["nan"] == "nan"


def test_uvicorn_logs_in_our_shape_and_without_its_false_alarm() -> None:
    stream = output()
    logger = logging.getLogger("uvicorn.error")
    logger.error("ASGI callable returned without completing handshake.")
    logger.error("Cancel %s running task(s), timeout graceful shutdown exceeded", 0)
    logger.error("another error")
    assert line(stream)["message"] == "another error"


def test_configuring_twice_writes_each_line_once() -> None:
    output()
    stream = output()
    logging.getLogger("uvicorn.error").error("once")
    logging.getLogger("app").error("once")
    assert len(stream.getvalue().splitlines()) == 2


def test_requests_are_logged_at_debug_only() -> None:
    stream = output()
    logging.getLogger("uvicorn.access").info("GET /healthz")
    assert stream.getvalue() == ""
    stream = output(level="DEBUG")
    logging.getLogger("uvicorn.access").info("GET /healthz")
    assert "GET /healthz" in stream.getvalue()


def test_what_tools_of_mcp_servers_are_given_and_say_is_not_logged() -> None:
    stream = output(level="DEBUG")
    for name in ("mcp.client.stdio", "mcp.client.streamable_http"):
        logging.getLogger(name).debug("arguments: Ada Byron")
        logging.getLogger(name).error("no message: Ada Byron")
    assert stream.getvalue() == ""


def test_auto_means_json_where_there_is_no_terminal() -> None:
    stream = output("auto")
    logging.getLogger("app").info("x")
    assert line(stream)["message"] == "x"


# Whoever reads ------------------------------------------------------------------------------------


class StuckPipe(io.StringIO):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def write(self, text: str) -> int:
        assert self.opened.wait(10)
        return super().write(text)


def test_a_pipe_that_takes_nothing_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SPOOLED_LINES", 3)
    pipe = StuckPipe()
    logs.configure(format="json", stream=pipe, spooled=True)
    (handler,) = logging.getLogger().handlers
    for number in range(20):
        logging.getLogger("app").info("line", extra={"number": number})
    assert pipe.getvalue() == ""
    pipe.opened.set()
    handler.close()
    lines = [json.loads(text) for text in pipe.getvalue().splitlines()]
    told = [line["number"] for line in lines if "number" in line]
    assert told == list(range(len(told)))
    assert len(told) + sum(line.get("lost", 0) for line in lines) == 20


def test_the_last_lines_are_written_when_the_process_ends() -> None:
    stream = io.StringIO()
    logs.configure(format="json", stream=stream, spooled=True)
    (handler,) = logging.getLogger().handlers
    for _ in range(100):
        logging.getLogger("app").info("line")
    handler.close()
    assert stream.getvalue().count("\n") == 100


def test_a_stream_that_is_closed_stops_nobody() -> None:
    stream = io.StringIO()
    logs.configure(format="json", stream=stream, spooled=True)
    (handler,) = logging.getLogger().handlers
    stream.close()
    logging.getLogger("app").info("line")
    handler.close()


# Throttling ---------------------------------------------------------------------------------------

APP = Path(logs.__file__).parent
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LEVELS |= {"exception": logging.ERROR, "critical": logging.CRITICAL}


_CALL = re.compile(rf'\blogger\.({"|".join(_LEVELS)})\(\s*("[^"]*"(?=\s*[,)])|)')


def log_lines() -> Iterator[tuple[str, int, str]]:
    """Logger, level and message of each line above DEBUG that the source can write."""
    for path in sorted(APP.rglob("*.py")):
        name = ".".join(path.relative_to(APP.parent).with_suffix("").parts)
        text = path.read_text(encoding="utf-8")
        if named := re.search(r'^logger = logging.getLogger\("([a-z.]+)"\)', text, re.MULTILINE):
            name = named[1]
        for method, message in _CALL.findall(text):
            yield name, _LEVELS[method], message.strip('"')


LINES = sorted(set(log_lines()))


def record(name: str, level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, level, "f.py", 1, message, None, None)


def test_each_message_is_constant_but_for_helpers_that_are_given_one() -> None:
    helpers = {"app.agents.per_call", "app.agents.tools.invocation"}
    assert {name for name, _, message in LINES if not message} <= helpers


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line[0]}: {line[2]}")
def test_a_flood_of_one_line_is_throttled_unless_it_is_one_of_a_call_or_names_a_loss(
    line: tuple[str, int, str],
) -> None:
    throttle = logs.Throttle(clock_s=lambda: 0.0)
    written = sum(throttle.filter(record(*line)) for _ in range(1_000))
    _name, level, message = line
    if level >= logging.WARNING:
        kept = message in logs._NEVER_LEFT_OUT
    else:
        kept = message not in logs._THROTTLED_INFO
    assert written == (1_000 if kept else logs.LINES_AT_ONCE)


def test_the_exceptions_are_lines_that_exist() -> None:
    known = {(level >= logging.WARNING, message) for _, level, message in LINES}
    assert {(True, message) for message in logs._NEVER_LEFT_OUT} <= known
    assert {(False, message) for message in logs._THROTTLED_INFO} <= known


@pytest.mark.parametrize(
    ("name", "level", "written"),
    [
        ("uvicorn.error", logging.WARNING, 5),
        ("websockets.server", logging.ERROR, 5),
        ("asyncio", logging.ERROR, 5),
        ("clinic", logging.WARNING, 100),  # the operator's own
        ("app.web.phone", logging.DEBUG, 100),
        ("application", logging.ERROR, 100),
    ],
)
def test_lines_of_others_are_one_kind_for_each_logger_and_an_operators_are_left_alone(
    name: str, level: int, written: int
) -> None:
    throttle = logs.Throttle(clock_s=lambda: 0.0)
    found = [throttle.filter(record(name, level, f"trouble {number}")) for number in range(100)]
    assert sum(found) == written


def test_a_line_comes_through_every_ten_seconds_with_the_count_of_those_before() -> None:
    now_s = 0.0
    throttle = logs.Throttle(clock_s=lambda: now_s)
    withheld = []
    for tick in range(300):  # ten lines a second for half a minute
        now_s = tick / 10
        line = record("app.web.phone", logging.WARNING, "webhook refused")
        if throttle.filter(line):
            withheld.append((round(now_s, 1), getattr(line, "withheld", 0)))
    assert withheld[:5] == [(0.0, 0), (0.1, 0), (0.2, 0), (0.3, 0), (0.4, 0)]
    assert [at_s for at_s, _ in withheld[5:]] == pytest.approx([10, 20], abs=0.2)
    assert [count for _, count in withheld[5:]] == pytest.approx([95, 100], abs=2)


def test_kinds_do_not_hold_each_other_back() -> None:
    throttle = logs.Throttle(clock_s=lambda: 0.0)
    for message in ("webhook refused", "media socket refused"):
        line = ("app.web.phone", logging.WARNING, message)
        assert sum(throttle.filter(record(*line)) for _ in range(10)) == 5


def test_of_a_kind_that_went_quiet_the_count_is_told_with_the_next_line_of_any() -> None:
    now_s, told = 0.0, list[logging.LogRecord]()
    throttle = logs.Throttle(told.append, clock_s=lambda: now_s)
    for _ in range(12):
        throttle.filter(record("app.web.phone", logging.WARNING, "webhook refused"))
    throttle.filter(record("app.calls.call", logging.INFO, "call ended"))
    assert not told  # it may still go on
    now_s = 10.0
    throttle.filter(record("app.calls.call", logging.INFO, "call ended"))
    throttle.filter(record("app.calls.call", logging.INFO, "call ended"))
    [line] = told
    facts = vars(line)
    assert (line.msg, facts["line"]) == ("log lines were left out", "webhook refused")
    assert (facts["withheld"], line.levelname, line.name) == (7, "WARNING", "app.web.phone")


def test_what_was_left_out_is_told_when_the_process_ends() -> None:
    stream = output(spooled=True)
    for _ in range(30):
        logging.getLogger("app.web.phone").warning("webhook refused")
    logging.getLogger().handlers[0].close()
    lines = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert [one["message"] for one in lines] == ["webhook refused"] * 5 + [
        "log lines were left out"
    ]
    assert lines[-1]["withheld"] == 25


def test_a_count_of_lines_left_out_belongs_to_no_call() -> None:
    stream = output()
    [throttle] = logging.getLogger().handlers[0].filters
    assert isinstance(throttle, logs.Throttle)
    token = logs.call_id.set("call_1")
    try:
        for _ in range(6):
            logging.getLogger("app.calls.call").warning("call failed")
        throttle.last_lines()
    finally:
        logs.call_id.reset(token)
    lines = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert [one.get("call_id") for one in lines] == ["call_1"] * 5 + [None]
