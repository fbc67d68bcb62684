"""The stored taps: what they do at every frequency, and that the design still yields them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from audio.design import design_lowpass
from audio.taps import HALF_BAND, TAP_BITS, THIRD_BAND, Prototype

GRID = 1 << 16
ROOT = Path(__file__).parents[3]
EVERY_PROTOTYPE = pytest.mark.parametrize(
    "prototype", [THIRD_BAND, HALF_BAND], ids=["third", "half"]
)


def gains_db(prototype: Prototype) -> NDArray[np.float64]:
    response = np.fft.rfft(np.array(prototype.taps) / 2.0**TAP_BITS, GRID)
    return 20 * np.log10(np.abs(response) + 1e-12)


@EVERY_PROTOTYPE
def test_the_whole_passband_is_flat_and_the_whole_stop_band_is_down(prototype: Prototype) -> None:
    frequency = np.arange(GRID // 2 + 1) / GRID
    gains = gains_db(prototype)
    # Speech ends at 3400 Hz; the filter is designed flat to 3480, which keeps 3400 early.
    speech = gains[frequency <= prototype.pass_edge * 3_400 / 3_480]
    assert float(np.ptp(speech)) <= 0.04
    assert float(np.abs(speech).max()) <= 0.02
    assert gains[frequency >= prototype.stop_edge].max() <= -95


@EVERY_PROTOTYPE
def test_the_filter_has_the_least_delay_of_its_response(prototype: Prototype) -> None:
    taps = np.array(prototype.taps, np.float64)
    # No zero outside the unit circle, but for the rounding of taps whose zeros lie on it.
    assert np.abs(np.roots(taps)).max() < 1.01


@EVERY_PROTOTYPE
def test_the_design_yields_the_stored_taps(prototype: Prototype) -> None:
    # In a process of its own: the fit solves systems large enough for OpenBLAS to share them
    # among threads, which takes a hundred times as long on a machine that is busy.
    source = (
        "from audio.design import design_lowpass; from audio.taps import *; import sys;"
        f"p = {'THIRD_BAND' if prototype is THIRD_BAND else 'HALF_BAND'};"
        "taps = design_lowpass(len(p.taps), pass_edge=p.pass_edge, stop_edge=p.stop_edge,"
        "ripple_db=p.ripple_db, stop_db=p.stop_db); sys.stdout.write(repr(taps.tolist()))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    printed = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, check=True, cwd=ROOT
    )
    designed = np.array(ast.literal_eval(printed.stdout.decode()))
    # Linear algebra libraries differ in their last bits, the stored table does not.
    assert np.abs(designed - np.array(prototype.taps)).max() <= 2


def test_another_filter_meets_the_figures_that_it_is_asked_for() -> None:
    taps = design_lowpass(26, pass_edge=0.1, stop_edge=0.2, ripple_db=0.1, stop_db=60)
    prototype = Prototype(
        pass_edge=0.1, stop_edge=0.2, ripple_db=0.1, stop_db=60, taps=tuple(taps.tolist())
    )
    frequency = np.arange(GRID // 2 + 1) / GRID
    gains = gains_db(prototype)
    assert float(np.abs(gains[frequency <= 0.1]).max()) <= 0.1
    assert gains[frequency >= 0.2].max() <= -60
    assert np.abs(np.roots(taps)).max() < 1.01


def test_a_filter_too_short_for_its_figures_is_returned_to_be_measured() -> None:
    taps = design_lowpass(12, pass_edge=0.1, stop_edge=0.2, ripple_db=0.1, stop_db=60)
    response = np.abs(np.fft.rfft(taps / 2.0**TAP_BITS, GRID))
    assert len(taps) == 12
    assert response[np.arange(GRID // 2 + 1) / GRID >= 0.2].max() > 10 ** (-60 / 20)
