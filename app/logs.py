"""Log lines: one shape for ours and everybody's, with the call's id and without secrets.

Formatters for people (`console`) and machines (`json`), the context variable that carries the call
id, and the redaction that every line passes last, exceptions and third-party loggers included:
registered secrets never appear, phone numbers are masked, and so is what stands under a key that
begins with `pii.`, unless `show_personal`. Standard library only; knows nothing of settings.

Lines of which a peer can cause any number (strangers, the carrier, the model, a tool's service) are
throttled by kind: the first few at once, then one in a while, with the count of those left out.

Redaction works on the finished line, since a secret may come in any way: a message, an
argument, a traceback, another library.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any, Final
from urllib.parse import quote, quote_plus

__all__ = [
    "ConsoleFormatter",
    "JsonFormatter",
    "Redactor",
    "Throttle",
    "call_id",
    "configure",
    "mask_number",
]

logger = logging.getLogger(__name__)

call_id: ContextVar[str] = ContextVar("call_id", default="")
"""The call that the running task works for; empty outside of calls."""

SPOOLED_LINES: Final = 10_000
LAST_LINES_S: Final = 1.0

_STANDARD: Final = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message")
)
_INSTALLED_UNDER: Final = __package__.removesuffix("app")
"""`trunkline._` in a wheel: a line names the same logger wherever the code is installed."""
_RESERVED: Final = frozenset(("time", "level", "logger", "message", "call_id", "exception"))
_HIDDEN: Final = "[secret]"
_SHORTEST_SECRET: Final = 6  # anything shorter would blank out ordinary words
# E.164 numbers, also as they stand in a query string.
_NUMBER = re.compile(r"(\+|%2[Bb])([1-9][0-9]{6,14})(?![0-9])")
# C0, DEL and C1 controls, and what reorders or breaks lines (Unicode bidi controls, LS, PS).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_CONTROL_BUT_NEWLINE = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)

# A library's chatter, at most this loud. websockets traces whole messages, audio included: our own
# wire trace has their length instead. httpx names each URL. mcp traces what tools are given and
# answer, and quotes what a server says besides: `app.agents.tools.mcp` tells what goes wrong.
# sqlalchemy and aiosqlite trace statements with their values, which are numbers and speech.
_QUIET: Final = {
    "aiosqlite": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpcore2": logging.WARNING,
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "mcp": logging.CRITICAL,
    "sqlalchemy": logging.WARNING,
    "twilio": logging.WARNING,
    "urllib3": logging.WARNING,
    "websockets": logging.INFO,
}


LINES_AT_ONCE: Final = 5
LINE_EVERY_S: Final = 10.0
_OUR_LOGGERS: Final = (f"{_INSTALLED_UNDER}app.", "trunkline.")
_THROTTLED_LOGGERS: Final = (*_OUR_LOGGERS, "asyncio.", "uvicorn.", "websockets.")
# Warnings and errors of which each counts: they come once, or say what is lost.
_NEVER_LEFT_OUT: Final = frozenset(
    {
        "background job failed",
        "background job was not finished",
        "background job was refused",
        "configuration notice",
        "drain cut short",
        "guardrail tripped",
        "log lines were lost: nobody read them",
        "mcp tool left out",
        "message not kept",
        "server failed",
        "shutdown hooks took too long",
        "webhook was not delivered",
    }
)
# Of the lines at INFO, all others tell the course of a call.
_THROTTLED_INFO: Final = frozenset(
    {
        "call asked for again",
        "call turned away",
        "carrier message differs from the protocol",
        "carrier messages were lost or repeated",
        "model event differs from the protocol",
    }
)


class Throttle(logging.Filter):
    """Lets through the first lines of a kind, then one each `every_s`; counts those left out.

    A kind is a logger and a message without its facts: messages are constant. The next line of the
    kind says in `withheld` how many were left out before it; whatever is written later makes a line
    that says it of kinds that went quiet.
    """

    def __init__(
        self,
        report: Callable[[logging.LogRecord], object] = lambda record: None,
        *,
        at_once: int = LINES_AT_ONCE,
        every_s: float = LINE_EVERY_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` takes the lines that tell of kinds that went quiet."""
        super().__init__()
        self._report = report
        self._at_once = at_once
        self._every_s = every_s
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now_s = self._clock_s()
        with self._lock:
            passes = not _is_throttled(record) or self._passes(record, now_s)
            quiet = self._gone_quiet(now_s) if passes else []
        for line in quiet:
            self._report(line)
        return passes

    def last_lines(self) -> None:
        """Report what has been left out so far: the process ends."""
        with self._lock:
            quiet = self._gone_quiet(math.inf)
        for line in quiet:
            self._report(line)

    def _passes(self, record: logging.LogRecord, now_s: float) -> bool:
        # Others put facts into their messages: all lines of theirs are one kind for each logger.
        ours = record.name.startswith(_OUR_LOGGERS)
        key = (record.name, str(record.msg) if ours else "")
        kind = self._kinds.setdefault(key, _Kind(record.levelno, self._at_once, now_s))
        earned = (now_s - kind.at_s) / self._every_s
        kind.credit, kind.at_s = min(self._at_once, kind.credit + earned), now_s
        if kind.credit < 1:
            kind.withheld += 1
            return False
        kind.credit -= 1
        if kind.withheld:
            record.withheld = kind.withheld
            kind.withheld = 0
        return True

    def _gone_quiet(self, now_s: float) -> list[logging.LogRecord]:
        """Lines for kinds whose last line was left out, and is not followed by another."""
        found = []
        for (name, message), kind in self._kinds.items():
            if kind.withheld and now_s - kind.at_s >= self._every_s:
                facts = {"name": name, "levelno": kind.level, "msg": "log lines were left out"}
                level = logging.getLevelName(kind.level)
                more = {"levelname": level, "line": message, "withheld": kind.withheld}
                found.append(logging.makeLogRecord(facts | more))
                kind.withheld = 0
        return found


class _Kind:
    """A kind of line: what it may still write, and how many of it were left out."""

    __slots__ = ("at_s", "credit", "level", "withheld")

    def __init__(self, level: int, credit: float, at_s: float) -> None:
        self.level = level
        self.credit = credit
        self.at_s = at_s
        self.withheld = 0


def _is_throttled(record: logging.LogRecord) -> bool:
    if not f"{record.name}.".startswith(_THROTTLED_LOGGERS) or record.levelno < logging.INFO:
        return False
    if record.levelno < logging.WARNING:
        return record.msg in _THROTTLED_INFO
    return record.msg not in _NEVER_LEFT_OUT


def mask_number(number: str) -> str:
    """`+15551234567` as `+1555***4567`; of shorter numbers less is shown."""
    digits = number.removeprefix("+")
    if len(digits) < 7:
        return "***"
    head, tail = (4, 4) if len(digits) >= 11 else (2, 3)
    return f"+{digits[:head]}***{digits[-tail:]}"


class Redactor:
    """Removes secrets and, by default, phone numbers from finished text."""

    def __init__(self, secrets: Iterable[str] = (), *, show_personal: bool = False) -> None:
        self._show_personal = show_personal
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Never let these appear again, nor their quoted and encoded forms."""
        for secret in secrets:
            if len(secret) >= _SHORTEST_SECRET:
                self._forms |= _forms(secret)
        if self._forms:
            # Longest first: a secret that holds another one must go as a whole.
            ordered = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, ordered)))

    def clean(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(_HIDDEN, text)
        if self._show_personal:
            return text
        return _NUMBER.sub(lambda match: mask_number(match[2]), text)

    def personal(self, value: object) -> object:
        """The text for a value that stands under a `pii.` key."""
        if self._show_personal or value is None:
            return value
        text = str(value)
        if re.fullmatch(r"\+[1-9][0-9]{6,14}", text):
            return mask_number(text)
        return f"[{len(text)} characters]"


def _forms(secret: str) -> set[str]:
    """The spellings in which a secret may reach a log."""
    raw = secret.encode()
    # `Basic` credentials are base64 of "name:secret": the middle of it depends on the alignment,
    # of which there are three; the outer characters also hold bits of the neighbors.
    encoded = {base64.b64encode(b"\0" * pad + raw).decode()[pad and pad + 1 :] for pad in range(3)}
    shortened = {text.rstrip("=")[:-1] for text in encoded}
    quoted = {
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        quote(secret, safe=""),
        quote_plus(secret),
    }
    return {secret, *quoted, *(text for text in shortened if len(text) >= _SHORTEST_SECRET)}


class _Formatter(logging.Formatter):
    """The common part of both shapes: the facts of a record, cleaned."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for key, value in vars(record).items():
            if key in _STANDARD or key.startswith("_") or key == "call_id":
                continue
            name = f"extra.{key}" if key in _RESERVED else key
            facts[self._text(name)] = self._fact(key, value)
        return facts

    def _fact(self, key: str, value: Any) -> Any:
        if key.startswith("pii."):
            return self._plain(self._redactor.personal(value))
        if isinstance(value, Mapping):
            return {self._text(name): self._fact(str(name), item) for name, item in value.items()}
        return self._plain(value)

    def _plain(self, value: Any) -> Any:
        match value:
            case None | bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else str(value)
            case list() | tuple() | set() | frozenset():
                return [self._plain(item) for item in value]
            case bytes() | bytearray():
                return f"[{len(value)} bytes]"
        return self._text(value)

    def _text(self, value: object) -> str:
        # Cleaned here already, before encoding changes a secret's spelling, and again as a line.
        return self._redactor.clean(_CONTROL.sub("", str(value)))

    def _message(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            # Arguments that do not fit: logging itself would print them past the redaction.
            text = f"{record.msg} (with arguments that do not fit)"
        return self._text(text)

    @staticmethod
    def _time(record: logging.LogRecord) -> datetime:
        return datetime.fromtimestamp(record.created, tz=UTC)

    def _exception(self, record: logging.LogRecord) -> str:
        text = record.exc_text or ""
        if record.exc_info and not text:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        stack = record.stack_info or ""
        whole = "\n".join(part for part in (text, stack) if part)
        return self._redactor.clean(_CONTROL_BUT_NEWLINE.sub("", whole))


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, logger, message, call_id, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self._time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(_INSTALLED_UNDER),
            "message": self._message(record),
        }
        if call := _call_of(record):
            line["call_id"] = self._text(call)
        line |= self._facts(record)
        if exception := self._exception(record):
            line["exception"] = exception
        # ensure_ascii: whatever is left of odd characters cannot break a line or a terminal.
        return self._redactor.clean(json.dumps(line, default=str))


class ConsoleFormatter(_Formatter):
    """A line for people: time, level, message, facts as key=value; tracebacks indented below."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [
            self._time(record).astimezone().strftime("%H:%M:%S.%f")[:-3],
            f"{record.levelname:<7}",
            self._message(record),
        ]
        if call := _call_of(record):
            parts.append(f"call_id={self._text(call)}")
        parts += [f"{key}={_short(value)}" for key, value in self._facts(record).items()]
        text = self._redactor.clean(" ".join(parts))
        if exception := self._exception(record):
            # Indented line by line, so that a forged line break cannot pass for a log line.
            text += "\n" + "\n".join(f"    | {row}" for row in exception.split("\n"))
        return text


def _call_of(record: logging.LogRecord) -> str:
    """The running task's call; for work that outlives its call, the one that the line names."""
    return call_id.get() or str(vars(record).get("call_id", ""))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


# Lines that uvicorn 0.54 calls errors where nothing is wrong.
_FALSE_ALARMS: Final = (
    # A websocket that was refused by a denial response: its handshake was answered.
    "ASGI callable returned without completing handshake",
    # The calls' sockets after a second signal, which asks for just that.
    "timeout graceful shutdown exceeded",
)


def _is_true_alarm(record: logging.LogRecord) -> bool:
    return not any(alarm in str(record.msg) for alarm in _FALSE_ALARMS)


class _Spool:
    """A stream that is written to by a thread: a pipe that takes nothing holds up no call.

    Lines beyond the bound are dropped and counted, and the log says so.
    """

    def __init__(self, stream: IO[str], limit: int) -> None:
        self._write = _writer(stream)
        self._lines: queue.Queue[str] = queue.Queue(limit)
        self._lost = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def write(self, text: str) -> None:
        """Take a line; never waits."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._lost += 1

    def flush(self) -> None:
        """Called after each line; `drain` is what waits."""

    def drain(self, within_s: float) -> None:
        """Wait until all lines are written, but not for long."""
        lines = self._lines
        with lines.all_tasks_done:
            lines.all_tasks_done.wait_for(lambda: not lines.unfinished_tasks, within_s)

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._write(line)
            except (OSError, ValueError):  # the reader is gone, or the disk is full
                self._lost += 1
                lost = 0
            else:
                lost, self._lost = self._lost, 0
            if lost:
                logger.warning("log lines were lost: nobody read them", extra={"lost": lost})
            self._lines.task_done()


def _writer(stream: IO[str]) -> Callable[[str], object]:
    """The way to write lines: to the descriptor of a real stream, past its buffer.

    The interpreter wants the buffer's lock when it ends, which a thread that waits for a reader
    would hold; and what a full disk has not taken would stay there.
    """
    try:
        descriptor = os.dup(stream.fileno())
    except (AttributeError, OSError, ValueError):

        def write(text: str) -> None:
            stream.write(text)
            stream.flush()

        return write

    encoding: str = getattr(stream, "encoding", None) or "utf-8"

    def write_all(text: str) -> None:
        rest = text.encode(encoding, "backslashreplace")
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    return write_all


class _SpooledHandler(logging.StreamHandler[_Spool]):
    """A handler that finishes its lines when the process ends."""

    def close(self) -> None:
        for filter in self.filters:
            if isinstance(filter, Throttle):
                filter.last_lines()
        self.stream.drain(LAST_LINES_S)
        super().close()


def _write_outside_calls(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Write a line that belongs to no call, whichever has caused the line before it."""
    token = call_id.set("")
    handler.acquire()
    try:
        handler.emit(record)
    finally:
        handler.release()
        call_id.reset(token)


def configure(
    *,
    level: str = "INFO",
    format: str = "auto",
    secrets: Iterable[str] = (),
    show_personal: bool = False,
    stream: IO[str] | None = None,
    spooled: bool = False,
) -> Redactor:
    """Send every logger of the process through one handler; give the redactor for late secrets.

    `format`: console, json, or auto for console on a terminal. `spooled`: a thread writes, so that
    nobody waits for whoever reads. uvicorn must be run with `log_config=None`, or it would take its
    loggers away again.
    """
    stream = stream or sys.stderr
    if format == "auto":
        format = "console" if stream.isatty() else "json"
    redactor = Redactor(secrets, show_personal=show_personal)
    handler: logging.Handler = (
        _SpooledHandler(_Spool(stream, SPOOLED_LINES)) if spooled else logging.StreamHandler(stream)
    )
    handler.addFilter(Throttle(partial(_write_outside_calls, handler)))
    handler.setFormatter((ConsoleFormatter if format == "console" else JsonFormatter)(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, loudest in _QUIET.items():
        logging.getLogger(name).setLevel(max(loudest, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        # A line for each request and socket would drown the two lines of a call.
        logger.setLevel(root.level if root.level <= logging.DEBUG else logging.WARNING)
    error_logger = logging.getLogger("uvicorn.error")
    if _is_true_alarm not in error_logger.filters:
        error_logger.addFilter(_is_true_alarm)
    logging.captureWarnings(True)
    return redactor
