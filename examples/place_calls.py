"""Have a running server remind people of their appointments, by calling them.

    python examples/place_calls.py "+14155550123=Ms. Jones" "+14155550124=Mr. Lee"

The server needs `outbound.enabled: true` and an agent `reminder` with the variable `name`:

    agents:
      reminder:
        variables: {name: ""}
        greeting: Am I speaking with {name}? You have an appointment tomorrow.

`TRUNKLINE_URL` and `TRUNKLINE_API_KEY` say where it is, and who asks.
"""

# ruff: noqa: T201 - an example prints

import asyncio
import os
import sys

from trunkline import AppError, PlacingRefused, place_call


async def remind(number: str, name: str, *, server: str, key: str | None) -> None:
    """Have one person called, and print what comes of the request."""
    try:
        call_id = await place_call(
            number,
            agent="reminder",
            variables={"name": name},
            server=server,
            key=key,
            # The same request on the same day calls nobody twice, whatever runs this again.
            idempotency_key=f"reminder-{number}",
        )
    except PlacingRefused as refused:
        later = f" Ask again at {refused.not_before}." if refused.not_before else ""
        print(f"{number}: not called: {refused.message}.{later}")
    except AppError as error:
        print(f"{number}: {error.message}")
    else:
        print(f"{number}: on its way, see: trunkline calls explain {call_id}")


async def main(people: list[str]) -> None:
    server = os.environ.get("TRUNKLINE_URL", "http://127.0.0.1:8080")
    key = os.environ.get("TRUNKLINE_API_KEY")
    for person in people:
        number, _, name = person.partition("=")
        await remind(number, name, server=server, key=key)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
