"""Listening presets."""

from __future__ import annotations

from itertools import pairwise

import pytest

from app.calls.turns.presets import PRESETS, preset
from app.errors import ConfigError


def test_noisier_places_want_louder_and_longer_speech() -> None:
    order = [preset(name) for name in ("quiet", "office", "street")]
    for quieter, louder in pairwise(order):
        assert quieter.vad.threshold < louder.vad.threshold
        assert quieter.vad.silence_duration_ms <= louder.vad.silence_duration_ms


def test_presets_are_what_a_session_takes() -> None:
    for chosen in PRESETS.values():
        assert 0 <= chosen.vad.threshold <= 1
        assert chosen.noise_reduction in {"near_field", "far_field", None}
        assert chosen.false_interruption_ms == 2_000
    assert preset("speakerphone").noise_reduction == "far_field"


def test_a_preset_must_exist() -> None:
    with pytest.raises(ConfigError, match="quiet, office, street, speakerphone"):
        preset("stadium")
