"""The bridge's cost per frame, beside the standard library's converter in the same run.

`python -m tests.bench.audio_cost` prints JSON. Times are the best of many short rounds, ours and
`audioop`'s in turn, so that other work on the machine disturbs both alike or neither. `audioop`
interpolates between neighbors: its images and aliases are hardly attenuated.

A frame up may take 7 us, and one down, out of 200 ms, 2 us. Where that was decided (docs/audio.md)
`audioop` took 2.8 and 6.2 us: other machines are held to the same share of its time.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from audio.format import PCM16_24K, PCMU_8K
from audio.transcoder import Transcoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

__all__ = ["run"]

FRAMES_PER_DELTA = 10  # a model sends some 200 ms at a time
UP_SHARE = 7 / 2.8
DOWN_SHARE = 2 / 6.2


def _audioop_up() -> Callable[[bytes], bytes]:
    state: Any = None

    def convert(data: bytes) -> bytes:
        nonlocal state
        linear, state = audioop.ratecv(audioop.ulaw2lin(data, 2), 2, 1, 8_000, 24_000, state)
        return bytes(linear)

    return convert


def _audioop_down() -> Callable[[bytes], bytes]:
    state: Any = None

    def convert(data: bytes) -> bytes:
        nonlocal state
        linear, state = audioop.ratecv(data, 2, 1, 24_000, 8_000, state)
        return bytes(audioop.lin2ulaw(linear, 2))

    return convert


def _best_us(rounds: int, calls: int, data: bytes, *sides: Callable[[bytes], bytes]) -> list[float]:
    """Least time per call of each side, in microseconds."""
    best = [float("inf")] * len(sides)
    for _ in range(rounds):
        for index, convert in enumerate(sides):
            started = perf_counter()
            for _ in range(calls):
                convert(data)
            best[index] = min(best[index], (perf_counter() - started) / calls * 1e6)
    return best


def _compared(
    ours_us: float, audioop_us: float, *, allowed_ratio: float | None = None
) -> dict[str, float | bool]:
    ratio = ours_us / audioop_us
    figures: dict[str, float | bool] = {
        "us_per_frame": round(ours_us, 2),
        "audioop_us_per_frame": round(audioop_us, 2),
        "ratio": round(ratio, 2),
    }
    if allowed_ratio is not None:
        figures |= {"allowed_ratio": round(allowed_ratio, 2), "allowed": ratio <= allowed_ratio}
    return figures


def run(*, rounds: int = 200) -> dict[str, Any]:
    """Microseconds per 20 ms frame in each direction, and as a multiple of `audioop`."""
    noise = np.random.default_rng(0)
    frame_8k = noise.bytes(PCMU_8K.ms_to_bytes(20))
    delta = noise.integers(-9_000, 9_000, 24 * 20 * FRAMES_PER_DELTA).astype("<i2").tobytes()
    frame_24k = delta[: PCM16_24K.ms_to_bytes(20)]
    up = _best_us(rounds, 500, frame_8k, Transcoder(PCMU_8K, PCM16_24K).push, _audioop_up())
    delta_us = _best_us(rounds, 50, delta, Transcoder(PCM16_24K, PCMU_8K).push, _audioop_down())
    down = [us / FRAMES_PER_DELTA for us in delta_us]
    single = _best_us(rounds, 500, frame_24k, Transcoder(PCM16_24K, PCMU_8K).push, _audioop_down())
    return {
        "pcmu_8k_to_pcm16_24k": _compared(*up, allowed_ratio=UP_SHARE),
        "pcm16_24k_to_pcmu_8k_200_ms": _compared(*down, allowed_ratio=DOWN_SHARE),
        "pcm16_24k_to_pcmu_8k_20_ms": _compared(*single),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(), indent=2) + "\n")
