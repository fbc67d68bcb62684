"""Keys of the API: scopes, the file, the first key, many processes."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.credentials.api_keys import ApiKeys, Scope, first_key, first_key_path
from app.errors import ConfigError


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("needed", Scope)
def test_a_scope_covers_itself_and_those_before_it(scope: Scope, needed: Scope) -> None:
    if Scope.REALTIME in (scope, needed):
        opens = scope is not Scope.VIEWER and needed is Scope.REALTIME
        assert scope.covers(needed) is opens
        return
    order = [Scope.VIEWER, Scope.OPERATOR, Scope.ADMIN]
    assert scope.covers(needed) is (order.index(scope) >= order.index(needed))


async def test_a_token_finds_its_key_and_is_not_kept(tmp_path: Path) -> None:
    key, token = ApiKeys(tmp_path).create("dashboard", Scope.VIEWER)
    found = await ApiKeys(tmp_path).find(token)
    assert found is not None
    assert (found.id, found.name, found.scope) == (key.id, "dashboard", Scope.VIEWER)
    path = tmp_path / "api-keys.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token.split("_", 2)[2] not in path.read_text()
    assert len(token.split("_", 2)[2]) == 43  # 256 bits


async def test_a_key_that_another_process_has_made_just_now_is_found(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path)
    assert await keys.find(keys.create("one", Scope.VIEWER)[1])
    _, token = ApiKeys(tmp_path).create("two", Scope.VIEWER)
    assert await keys.find(token)


def test_keys_that_processes_make_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    def create(number: int) -> str:
        return ApiKeys(tmp_path).create(f"key {number}", Scope.VIEWER)[0].id

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(create, range(24)))
    assert {key.id for key in ApiKeys(tmp_path).listed()} == made


def test_the_first_key_is_made_once(tmp_path: Path) -> None:
    token = first_key(tmp_path)
    assert token is not None
    path = first_key_path(tmp_path)
    assert path.read_text() == token + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first_key(tmp_path) is None
    [key] = ApiKeys(tmp_path).listed()
    assert (key.name, key.scope) == ("first", Scope.ADMIN)
    ApiKeys(tmp_path).revoke(key.id)
    path.unlink()
    assert first_key(tmp_path) is None, "an operator who revokes it does not get another one"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"id": "a"}]', "[{}]", "null"])
def test_a_file_that_holds_no_keys_is_named_and_not_written_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "api-keys.json"
    path.write_text(text)
    if text == "{}":  # an empty table reads as no keys at all
        assert ApiKeys(tmp_path).listed() == []
        return
    for change in (ApiKeys(tmp_path).listed, lambda: ApiKeys(tmp_path).create("x", Scope.ADMIN)):
        with pytest.raises(ConfigError, match="cannot be read"):
            change()
    assert path.read_text() == text


async def test_the_time_of_the_last_use_is_kept_with_the_next_change(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path)
    _, token = keys.create("x", Scope.VIEWER)
    assert [key.last_used_at for key in keys.listed()] == [""]
    assert await keys.find(token)
    assert [key.last_used_at for key in keys.listed()] != [""]
    keys._noted_s -= 60
    assert await keys.find(token)
    [kept] = json.loads((tmp_path / "api-keys.json").read_text())
    assert kept["last_used_at"]
