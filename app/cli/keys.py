"""`trunkline keys`: the keys of the HTTP API. Works on their file, with or without a server."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from app.cli.shared import DEFAULT_CONFIG, EXIT_FAILED, ConfigPath, echo, fail, load_settings
from app.credentials.api_keys import MAX_NAME_CHARS, ApiKeys, Scope
from app.errors import ConfigError
from app.installation import command

__all__ = ["keys_app"]

keys_app = typer.Typer(help="Manage the keys of the HTTP API.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys_app.command("list")
def keys_list(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show all keys: scope, state, last use. Their secrets are not kept."""
    try:
        keys = ApiKeys(load_settings(config).state_dir).listed()
    except ConfigError as error:
        fail(error.message, EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps({"keys": [key.shown for key in keys]}, indent=2))
        return
    for key in keys:
        used = f"used {key.last_used_at}" if key.last_used_at else "never used"
        state = f"revoked {key.revoked_at}" if key.revoked_at else used
        echo(f"{key.id}  {key.scope:<8}  {state:<29}  {key.name}")
    if not keys:
        echo(f"there are no keys: `{command()} keys create NAME` makes one")


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        Scope,
        typer.Option(metavar="SCOPE", help=f"What it may do: {', '.join(Scope)}."),
    ] = Scope.VIEWER,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        fail(f"a name has 1 to {MAX_NAME_CHARS} characters, on one line")
    keys = ApiKeys(load_settings(config).state_dir)
    try:
        key, token = keys.create(name, scope)
    except ConfigError as error:
        fail(error.message, EXIT_FAILED)
    except OSError as error:
        fail(f"the key was not made: {error.filename}: {error.strerror}", EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps({**key.shown, "token": token}, indent=2))
    else:
        typer.echo(token)


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")],
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """End a key within a second; one that is revoked already is removed from the list."""
    keys = ApiKeys(load_settings(config).state_dir)
    try:
        key = keys.revoke(key_id)
    except ConfigError as error:
        fail(error.message, EXIT_FAILED)
    except OSError as error:
        fail(f"the key was not revoked: {error.filename}: {error.strerror}", EXIT_FAILED)
    if key is None:
        fail(f"there is no key {key_id}: `{command()} keys list` shows them", EXIT_FAILED)
    echo(f"{key.name}: revoked {key.revoked_at}")
