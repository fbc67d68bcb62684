"""Settings that keep the server from starting, and webhooks that it believes."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings import (
    DEVELOPMENT_ACCOUNT_SID,
    Settings,
    carrier_credentials,
    check_deployment,
    development_token_path,
    load,
    state_dir_problem,
)

ACCOUNT = "AC" + "a1" * 16
LIVE = {
    "TWILIO_ACCOUNT_SID": ACCOUNT,
    "TWILIO_AUTH_TOKEN": "f" * 32,
    "PUBLIC_URL": "https://voice.example.com/",
    "OPENAI_API_KEY": "sk-proj-0123456789",
}
CONFIG = (Path(__file__).parents[3] / "config.yaml").read_text()


def settings_with(folder: Path, *, config: str = CONFIG, **variables: str) -> Settings:
    path = folder / "config.yaml"
    path.write_text(config)
    return load(path, variables)


def test_the_shipped_configuration_starts_with_no_variable_at_all(tmp_path: Path) -> None:
    assert check_deployment(settings_with(tmp_path)) == []


def test_four_variables_make_it_answer_real_calls(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, **LIVE, SERVER_HOST="0.0.0.0")
    assert check_deployment(settings) == []
    assert settings.base_url == "https://voice.example.com"
    assert not settings.transcript_feed_on


@pytest.mark.parametrize("missing", sorted(LIVE))
def test_each_of_the_four_is_missed_by_name(missing: str, tmp_path: Path) -> None:
    [problem] = check_deployment(settings_with(tmp_path, **{**LIVE, missing: ""}))
    assert missing in problem


def test_the_offline_engine_for_real_calls_must_be_chosen(tmp_path: Path) -> None:
    variables = {**LIVE, "OPENAI_API_KEY": ""}
    assert check_deployment(settings_with(tmp_path, **variables, VOICE_MODEL="offline")) == []
    disabled = CONFIG.replace("enabled: true", "enabled: false")
    [problem] = check_deployment(settings_with(tmp_path, config=disabled, **LIVE))
    assert "VOICE_MODEL=offline" in problem
    assert "no key" not in problem


def test_signatures_cannot_be_switched_off_for_real_calls(tmp_path: Path) -> None:
    config = CONFIG.replace("validate_signatures: true", "validate_signatures: false")
    [problem] = check_deployment(settings_with(tmp_path, config=config, **LIVE))
    assert re.match(r"config\.yaml:\d+: twilio\.validate_signatures is false", problem)
    assert check_deployment(settings_with(tmp_path, config=config)) == []


def test_a_public_address_that_twilio_cannot_reach_is_refused(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:8080", "https://localhost"):
        [problem] = check_deployment(settings_with(tmp_path, **{**LIVE, "PUBLIC_URL": url}))
        assert "Twilio cannot reach" in problem


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "voice.example.com"])
def test_without_credentials_only_this_machine_may_reach_the_server(
    host: str, tmp_path: Path
) -> None:
    [problem] = check_deployment(settings_with(tmp_path, SERVER_HOST=host))
    assert re.match(
        rf"config\.yaml:\d+: server\.host is {re.escape(host)}, but there are no", problem
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_every_loopback_address_will_do(host: str, tmp_path: Path) -> None:
    assert check_deployment(settings_with(tmp_path, SERVER_HOST=host)) == []


def test_a_public_address_without_credentials_is_refused(tmp_path: Path) -> None:
    [problem] = check_deployment(settings_with(tmp_path, PUBLIC_URL="https://voice.example.com"))
    assert re.match(r"config\.yaml:\d+: server\.public_url is set", problem)


def test_a_chosen_model_needs_its_key_and_its_encryption(tmp_path: Path) -> None:
    [problem] = check_deployment(settings_with(tmp_path, VOICE_MODEL="openai"))
    assert "OPENAI_API_KEY" in problem
    other = CONFIG.replace("wss://api.openai.com/v1/realtime", "ws://gateway:8000/v1/realtime")
    assert other != CONFIG
    assert check_deployment(settings_with(tmp_path, config=other, VOICE_MODEL="openai")) == []
    [problem] = check_deployment(settings_with(tmp_path, config=other, OPENAI_API_KEY="k" * 20))
    assert "use wss://" in problem


def test_the_development_token_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    first, second = carrier_credentials(settings), carrier_credentials(settings)
    assert first == second
    assert first.development
    assert first.account_sid == DEVELOPMENT_ACCOUNT_SID
    path = development_token_path(settings)
    assert path == tmp_path / "var" / "development_token"
    assert path.read_text().strip() == first.auth_tokens[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_development_token_that_others_could_read_is_closed_again(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    carrier_credentials(settings)
    path = development_token_path(settings)
    path.chmod(0o644)
    carrier_credentials(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_development_token_is_not_believed(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    path = development_token_path(settings)
    path.parent.mkdir()
    path.write_text("\n")
    with pytest.raises(ConfigError, match="holds no token"):
        carrier_credentials(settings)


def test_a_token_that_cannot_be_kept_is_a_configuration_problem(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"cannot be kept.*var is no folder; set STATE_DIR"):
        carrier_credentials(settings_with(tmp_path))


def test_a_state_directory_that_can_be_written_or_made_is_no_problem(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    assert state_dir_problem(settings) is None
    settings.state_dir.mkdir()
    assert state_dir_problem(settings) is None


@pytest.mark.parametrize("made", [True, False])
def test_a_state_directory_of_another_user_is_told_with_what_to_do(
    made: bool, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    settings = settings_with(tmp_path)
    place = settings.state_dir if made else tmp_path
    place.mkdir(exist_ok=True)
    place.chmod(0o500)
    problem, cure = state_dir_problem(settings) or ("", "")
    assert problem == f"{settings.state_dir} cannot be written by user {os.geteuid()}"
    assert f"chown -R {os.geteuid()} {place}" in cure


def test_with_credentials_both_tokens_of_a_rotation_are_believed(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, **LIVE, TWILIO_AUTH_TOKEN_SECONDARY="e" * 32)
    credentials = carrier_credentials(settings)
    assert credentials.account_sid == ACCOUNT
    assert credentials.auth_tokens == ("f" * 32, "e" * 32)
    assert not credentials.development
    assert "eeee" not in repr(credentials)
    assert not (tmp_path / "var").exists()


def test_the_secondary_token_alone_does_not_make_a_development_server(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, TWILIO_AUTH_TOKEN_SECONDARY="e" * 32)
    problems = " ".join(check_deployment(settings))
    assert "set TWILIO_ACCOUNT_SID" in problems
    assert "set TWILIO_AUTH_TOKEN" in problems


def test_a_public_url_with_the_webhook_in_it_is_refused(tmp_path: Path) -> None:
    url = "https://voice.example.com/base"
    assert check_deployment(settings_with(tmp_path, **{**LIVE, "PUBLIC_URL": url})) == []
    variables = {**LIVE, "PUBLIC_URL": f"{url}/twilio/voice"}
    [problem] = check_deployment(settings_with(tmp_path, **variables))
    assert problem.endswith(f"set PUBLIC_URL to {url}")


def test_half_of_the_credentials_are_none(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, **{**LIVE, "TWILIO_AUTH_TOKEN": ""})
    with pytest.raises(ConfigError, match="belong together"):
        carrier_credentials(settings)
