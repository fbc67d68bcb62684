"""`make bench`: measure, print, and write `bench-results.json`.

Figures are this machine's; what travels between machines are the ratios, each against a baseline
that ran beside it. Names after the command choose: `answered_by audio browser calls consoles
gateway intents kept offline pipeline store tools workers`, and `calls:50,200` the numbers of calls.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUTPUT = Path("bench-results.json")


def _audio() -> dict[str, Any]:
    from tests.bench.audio_cost import run  # each part loads what it needs, and no more

    return run()


def _browser() -> dict[str, Any]:
    from tests.bench.browser import run

    return run()


def _consoles() -> dict[str, Any]:
    from tests.bench.consoles import run

    return run()


def _calls(counts: str = "") -> dict[str, Any]:
    from tests.bench.calls import COUNTS, run

    return run([int(count) for count in counts.split(",")] if counts else COUNTS, limit=not counts)


def _gateway() -> dict[str, Any]:
    from tests.bench.gateway import run

    return run()


def _intents() -> dict[str, Any]:
    from tests.bench.intents import run

    return run()


def _offline() -> dict[str, Any]:
    from tests.bench.offline_calls import run

    return run()


def _kept() -> dict[str, Any]:
    from tests.bench.kept_calls import run

    return run()


def _pipeline() -> dict[str, Any]:
    from tests.bench.pipeline import run

    return run()


def _store() -> dict[str, Any]:
    from tests.bench.store import run

    return run()


def _tools() -> dict[str, Any]:
    from tests.bench.tool_calls import run

    return run()


def _workers() -> dict[str, Any]:
    from tests.bench.workers import run

    return run()


def _answered_by() -> dict[str, Any]:
    from tests.bench.answered_by import run

    return run()


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "answered_by": _answered_by,
    "audio": _audio,
    "browser": _browser,
    "calls": _calls,
    "consoles": _consoles,
    "gateway": _gateway,
    "intents": _intents,
    "kept": _kept,
    "offline": _offline,
    "pipeline": _pipeline,
    "store": _store,
    "tools": _tools,
    "workers": _workers,
}


def main() -> None:
    """Run the parts that were named, or all."""
    names = sys.argv[1:] or list(PARTS)
    unknown = [name for name in names if name.partition(":")[0] not in PARTS]
    if unknown:
        raise SystemExit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    results: dict[str, Any] = {
        "machine": {"python": platform.python_version(), "system": platform.platform()}
    }
    for name in names:
        part, _, chosen = name.partition(":")
        results[part] = PARTS[part](*([chosen] if chosen else []))
    text = json.dumps(results, indent=2)
    OUTPUT.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
