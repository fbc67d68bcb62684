"""A speech worker starts quickly and stays small: it imports none of the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALLOWED = {"app", "app.engine", "app.engine.speech"}
ITS_OWN = "app.engine.speech."
NEVER = {"asyncio", "pydantic", "fastapi", "sqlalchemy"}


@pytest.mark.parametrize("name", ["recognizer_worker", "synthesizer_worker"])
def test_a_speech_worker_imports_none_of_the_server(name: str) -> None:
    code = f"import sys, {ITS_OWN}{name}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    assert f"{ITS_OWN}{name}" in imported
    ours = {module for module in imported if module.partition(".")[0] == "app"}
    assert [module for module in ours - ALLOWED if not module.startswith(ITS_OWN)] == []
    assert not imported & NEVER
