"""The cost of keeping calls: with the history, with recordings, with both, and with neither.

    python -m tests.bench kept
    python -m tests.bench.kept_calls 50 --seconds 8 --rounds 5

Each server runs in a process of its own, in turns with the others, so that what else the machine
does is shared by all of them. The goal is a ratio of 1.10 for both together.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

from tests.bench.calls import CONFIG, in_loop, measure, median_run

__all__ = ["run"]

_STORE_OFF: Final = "store: off\n"
_RECORDING: Final = 'recording: {{enabled: true, notice: ""}}\n'  # of a template: doubled braces
CONFIGS: Final = {
    "neither": CONFIG + _STORE_OFF,
    "history": CONFIG,
    "recorded": CONFIG + _STORE_OFF + _RECORDING,
    "both": CONFIG + _RECORDING,
}
GOAL: Final = 1.10


def run(count: int = 50, seconds: float = 5.0, rounds: int = 5) -> dict[str, Any]:
    """Measure in turns; of each kind's rounds the one with the median CPU is reported."""
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in CONFIGS}
    for _ in range(rounds):
        for kind, config in CONFIGS.items():
            found = in_loop(measure("trunkline", count, seconds, config=config))
            sys.stderr.write(f"{kind:10}{found['cpu_ms_per_call_second']:7.3f} ms/call-s\n")
            runs[kind].append(found)
    medians = {kind: median_run(found) for kind, found in runs.items()}
    plain_ms = medians["neither"]["cpu_ms_per_call_second"]
    ratios = {
        kind: round(found["cpu_ms_per_call_second"] / plain_ms, 3)
        for kind, found in medians.items()
    }
    memory = {kind: found["memory_mb_per_call"] for kind, found in medians.items()}
    return {"calls": count, "cpu_ratio": ratios, "goal": GOAL, "memory_mb_per_call": memory} | {
        kind: found["cpu_ms_per_call_second"] for kind, found in medians.items()
    }


def main() -> None:
    """`python -m tests.bench.kept_calls [COUNT]`"""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found = run(asked.count, asked.seconds, asked.rounds)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
