"""`trunkline numbers`: points phone numbers at this server, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.shared import DEFAULT_CONFIG, EXIT_FAILED, ConfigPath, echo, fail, load_settings
from app.errors import AppError, ConfigError
from app.settings import Mode, Settings, carrier_credentials

if TYPE_CHECKING:
    from app.carrier.twilio.numbers import Archive, Change
    from app.carrier.twilio.rest import TwilioRest

__all__ = ["numbers_app"]

numbers_app = typer.Typer(help="Point phone numbers at this server.", no_args_is_help=True)

PhoneNumber = Annotated[str, typer.Argument(metavar="+NUMBER", help="With + and country code.")]
_CONNECTING: Final = "One moment please, we are connecting you."
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference, change nothing.")]


@numbers_app.command("list")
def numbers_list(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show the account's numbers and where their calls go."""
    settings = load_settings(config)

    async def show(rest: TwilioRest, _archive: Archive) -> None:
        from app.carrier.twilio.numbers import describe_setup

        setups = await rest.list_numbers()
        our_url = settings.base_url + settings.server.webhook_path
        for line in [line for setup in setups for line in describe_setup(setup, our_url)]:
            echo(line)
        if not setups:
            echo("the account has no numbers")

    _with_account(settings, show)


@numbers_app.command("connect")
def numbers_connect(
    number: PhoneNumber,
    config: ConfigPath = DEFAULT_CONFIG,
    fallback_url: Annotated[
        str | None,
        typer.Option(
            help="Where you keep what `numbers fallback` prints. Default: what the number has, "
            "else all of it in an address of Twilio's echo service."
        ),
    ] = None,
    say: Annotated[
        str | None, typer.Option(help="What callers hear first when the server is down.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Point a number's calls, fallback and reports; what it was set to before is kept."""
    settings = load_settings(config)
    server = settings.server
    if server.public_url is None:
        fail("server.public_url is not set: set PUBLIC_URL to the address that Twilio reaches")
    if fallback_url is not None and not fallback_url.startswith("https://"):
        fail("--fallback-url must be an https address outside of this server")
    if fallback_url is not None and say is not None:
        fail("--say goes with our own fallback: the document at --fallback-url says what is heard")

    async def connect(rest: TwilioRest, archive: Archive) -> None:
        from app.carrier.twilio import numbers

        document = _fallback(settings, number, say)
        setup = await numbers.find(rest, number)
        fallback = fallback_url or numbers.default_fallback(setup, archive.load(number), document)
        changes = numbers.connect_plan(
            setup,
            voice_url=settings.base_url + server.webhook_path,
            status_url=settings.base_url + server.status_path,
            fallback_url=fallback,
        )
        if fallback is None:
            echo(f"note: the number keeps its own fallback, {setup.voice_fallback_url}")
        if _shown(changes, "already points here", dry_run=dry_run):
            await numbers.apply(rest, archive, setup, changes, keep=True)
            echo(f"done; the former values are in {archive.path(number)}")

    _with_account(settings, connect)


@numbers_app.command("restore")
def numbers_restore(
    number: PhoneNumber, config: ConfigPath = DEFAULT_CONFIG, dry_run: DryRun = False
) -> None:
    """Set a number back to what it was before `numbers connect`."""

    async def restore(rest: TwilioRest, archive: Archive) -> None:
        from app.carrier.twilio import numbers

        saved = archive.load(number)
        if saved is None:
            fail(f"{archive.path(number)} does not exist: there is nothing to restore")
        setup = await numbers.find(rest, number)
        changes, since = numbers.restore_plan(setup, saved)
        for change in since:
            echo(f"note: {change.field} was changed by somebody since, to {change.before}")
        shown = _shown(changes, "is as it was", dry_run=dry_run)
        if shown or not (changes or dry_run):
            await numbers.apply(rest, archive, setup, changes, keep=False)
        if shown:
            echo("done")

    _with_account(load_settings(config), restore)


@numbers_app.command("fallback")
def numbers_fallback(
    number: Annotated[
        str | None, typer.Argument(metavar="[+NUMBER]", help="Use its fallback of config.yaml.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Put callers through to this number.")] = None,
    say: Annotated[
        str | None,
        typer.Option(
            help="What they hear first. Default: that we connect them, or twilio.busy_message."
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Print TwiML for a number's Voice Fallback URL: it works while this server does not."""
    if (number is None) == (to is None):
        fail("one of +NUMBER and --to is needed")
    settings = load_settings(config)
    if number is not None and (
        number not in settings.numbers or not settings.numbers[number].fallback
    ):
        echo(f"note: config.yaml names no fallback of {number}: nobody takes over", err=True)
    try:
        typer.echo(_fallback(settings, number, say, to))
    except ConfigError as error:
        fail(error.message)


def _fallback(
    settings: Settings, number: str | None, say: str | None, to: str | None = None
) -> str:
    """The document for callers while this server does not answer.

    Raises:
        ConfigError: the settings are wrong, or `to` is not a number that calls should go to.
    """
    from app.carrier.twilio.numbers import dialed, fallback_document
    from app.main import fallback_of

    place = dialed(to) if to else fallback_of(settings, number or "")
    if say is None:
        say = _CONNECTING if place else settings.twilio.busy_message
    return fallback_document(
        place,
        say,
        number or "",
        voice=settings.twilio.say_voice,
        language=settings.twilio.say_language,
    )


def _shown(changes: list[Change], nothing: str, *, dry_run: bool) -> bool:
    """Print the difference; return True if it is to be made."""
    from app.carrier.twilio.numbers import describe

    for line in describe(changes):
        echo(line)
    if not changes:
        echo(f"nothing to change: the number {nothing}")
    elif dry_run:
        echo("nothing was changed: --dry-run")
    return bool(changes) and not dry_run


def _with_account(
    settings: Settings, work: Callable[[TwilioRest, Archive], Awaitable[None]]
) -> None:
    """Run `work` with the account of the settings; what goes wrong is said in plain words."""
    from app.carrier.twilio.numbers import Archive
    from app.carrier.twilio.rest import TwilioRest

    if settings.mode is Mode.DEVELOPMENT:
        fail("no carrier credentials: set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
    archive = Archive(settings.state_dir / "numbers")

    async def with_rest() -> None:
        credentials = carrier_credentials(settings)
        rest = TwilioRest(
            credentials.account_sid,
            credentials.auth_tokens[0],
            base_url=settings.twilio.rest_url,
        )
        try:
            await work(rest, archive)
        finally:
            await rest.aclose()

    try:
        asyncio.run(with_rest())
    except ConfigError as error:
        fail(error.message)
    except AppError as error:
        fail(f"{error.message} ({error.code})", EXIT_FAILED)
