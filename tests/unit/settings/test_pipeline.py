"""The settings of the chained pipeline: one server or a list of them for each stage."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from app.assembly.pipeline import pipeline_problems
from app.errors import ConfigError
from app.settings import Settings, VoiceChoice, load, notices

KEY = {"OPENAI_API_KEY": "sk-test-0123456789"}
LOCAL = 'base_url: "http://127.0.0.1:8000/v1"'


def read(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load(path, env or {})


def test_a_stage_is_one_server_or_a_list_in_order(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        f"""
voice_model: pipeline
pipeline:
  stt: {{{LOCAL}, model: whisper}}
  llm:
    - {{{LOCAL}, model: fast, extra_body: {{temperature: 0.2, stream_options: null}}}}
    - {{model: gpt-6-luna, api: responses}}
""",
        KEY,
    )
    assert found.voice_choice is VoiceChoice.PIPELINE
    pipeline = found.pipeline
    assert [side.model for side in pipeline.llm] == ["fast", "gpt-6-luna"]
    assert pipeline.llm[0].extra_body == {"temperature": 0.2, "stream_options": None}
    assert (pipeline.stt[0].model, pipeline.tts[0].kind) == ("whisper", "realtime")
    assert pipeline_problems(found) == []


def test_only_openais_models_are_told_not_to_think(tmp_path: Path) -> None:
    servers = f"[{{{LOCAL}}}, {{{LOCAL}, reasoning_effort: low}}, {{}}, {{reasoning_effort: low}}]"
    found = read(tmp_path, f"pipeline: {{llm: {servers}}}\n", KEY)
    assert [side.effort for side in found.pipeline.llm] == [None, "low", "none", "low"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("openai_realtime: {model: gpt-realtime-2}", "gpt-realtime-2"),
        ("voice_model: offline", "offline-receptionist"),
        ("voice_model: pipeline", "gpt-transcribe > gpt-6-luna > gpt-realtime-2.1-mini"),
        (
            "voice_model: pipeline\npipeline: {stt: {kind: offline}, tts: {kind: offline},"
            " llm: [{model: one}, {model: two}]}",
            "offline > one > offline",
        ),
    ],
)
def test_what_talks_with_callers_is_named(text: str, name: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"{text}\n", KEY).voice_name == name


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        ("stt: {kind: magic}", "config.yaml:2: pipeline.stt"),
        ("llm: []", "config.yaml:2: pipeline.llm"),
        ("tts: {base_url: here}", "config.yaml:2: pipeline.tts"),
        ("tts: {sample_rate: 12}", "config.yaml:2: pipeline.tts"),
        ("stt: {modell: x}", "config.yaml:2: pipeline.stt"),
    ],
)
def test_a_wrong_stage_is_named_with_its_line(stage: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as wrong:
        read(tmp_path, f"pipeline:\n  {stage}\n")
    assert place in wrong.value.message


def test_a_stage_of_openai_needs_a_key_and_others_do_not(tmp_path: Path) -> None:
    servers = f"stt: {{{LOCAL}}}\n  llm: {{{LOCAL}}}\n  tts: {{kind: openai, {LOCAL}}}"
    assert (
        pipeline_problems(read(tmp_path, f"voice_model: pipeline\npipeline:\n  {servers}\n")) == []
    )
    problems = pipeline_problems(read(tmp_path, "voice_model: pipeline\n"))
    assert len(problems) == 3
    assert all("set OPENAI_API_KEY or api_key" in problem for problem in problems)


def test_models_that_end_are_named_with_their_day(tmp_path: Path) -> None:
    stages = "{stt: {model: whisper-1}, tts: {kind: openai, model: gpt-4o-mini-tts}}"
    found = read(tmp_path, f"voice_model: pipeline\npipeline: {stages}\n", KEY)
    told = notices(found, date(2026, 12, 1))
    assert any("gpt-4o-mini-tts will be retired on 2027-01-06" in notice for notice in told)
    assert any("whisper-1 will be retired on 2027-02-26" in notice for notice in told)
    defaults = read(tmp_path, "voice_model: pipeline\n", KEY)
    assert not notices(defaults, date(2027, 3, 1))
    local = read(
        tmp_path, f"voice_model: pipeline\npipeline: {{stt: {{{LOCAL}, model: whisper-1}}}}\n"
    )
    assert not notices(local, date(2026, 12, 1))
