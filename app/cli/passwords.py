"""`trunkline passwords`: the people who log in to the console with one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.shared import DEFAULT_CONFIG, EXIT_FAILED, ConfigPath, echo, fail, load_settings
from app.credentials.api_keys import Scope
from app.credentials.passwords import Passwords
from app.errors import ConfigError
from app.installation import command

__all__ = ["passwords_app"]

passwords_app = typer.Typer(help="Manage passwords for the console.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name to log in with.")]


@passwords_app.command("list")
def passwords_list(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show everybody with a password: name, scope, when it was set."""
    try:
        people = Passwords(load_settings(config).state_dir).listed()
    except (ConfigError, OSError) as error:
        fail(str(error), EXIT_FAILED)
    for person in people:
        echo(f"{person.name}  {person.scope:<8}  set {person.set_at}")
    if not people:
        echo(f"nobody has a password: `{command()} passwords set NAME` gives one")


@passwords_app.command("set")
def passwords_set(
    name: Name,
    scope: Annotated[
        Scope,
        typer.Option(metavar="SCOPE", help=f"What they may do: {', '.join(Scope)}."),
    ] = Scope.VIEWER,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Give somebody a password, asked for here or read from standard input. Ends their logins."""
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        Passwords(load_settings(config).state_dir).set(name, scope, password)
    except (ConfigError, OSError) as error:
        fail(str(error), EXIT_FAILED)
    echo(f"{name} may log in as {scope}")


@passwords_app.command("remove")
def passwords_remove(name: Name, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Take somebody's password away. Their logins end within a second."""
    try:
        removed = Passwords(load_settings(config).state_dir).remove(name)
    except (ConfigError, OSError) as error:
        fail(str(error), EXIT_FAILED)
    if not removed:
        fail(f"{name} has no password: `{command()} passwords list` shows who has", EXIT_FAILED)
    echo(f"{name}: removed")
