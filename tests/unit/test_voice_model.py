"""The voice model that the settings name."""

from __future__ import annotations

import pytest

from app.assembly.voice_models import voice_model
from app.settings import OpenAIRealtime, Settings


@pytest.mark.parametrize("header", ["api-key", "Api-Key", "authorization"])
def test_a_key_of_the_servers_own_kind_takes_the_place_of_openais(header: str) -> None:
    # OPENAI_API_KEY may stand in the environment for something else, which is not for them.
    realtime = OpenAIRealtime.model_validate(
        {
            "api_key": "sk-openai-key",
            "url": "wss://a.example.com/v1",
            "headers": {header: "key-of-theirs"},
        }
    )
    assert voice_model(Settings(openai_realtime=realtime))._headers == {header: "key-of-theirs"}


def test_other_headers_go_with_the_key() -> None:
    realtime = OpenAIRealtime.model_validate(
        {"api_key": "sk-openai-key", "headers": {"X-Team": "telephone"}}
    )
    assert voice_model(Settings(openai_realtime=realtime))._headers == {
        "Authorization": "Bearer sk-openai-key",
        "X-Team": "telephone",
    }
