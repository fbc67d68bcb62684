"""OpenAI's agents for Python hold a turn at each url: `agents_client.py KEY URL...`.

Runs in a process of its own, beside packages that the server's environment has in other versions.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agents.realtime import RealtimeAgent, RealtimeRunner  # type: ignore[import-not-found]


async def turn(key: str, url: str) -> dict[str, Any]:
    """Say hello, and read to the end of the answer."""
    runner = RealtimeRunner(RealtimeAgent(name="a", instructions="Be brief."))
    session = await runner.run(model_config={"url": url, "api_key": key})
    heard, said, problem = 0, "", None
    async with session:
        await session.send_message("Hello?")
        async for event in session:
            if event.type == "audio":
                heard += len(event.audio.data)
            elif event.type == "error":
                problem = str(event.error)
                break
            elif event.type == "raw_model_event" and event.data.type == "transcript_delta":
                said += event.data.delta
            elif event.type == "agent_end":
                break
    return {"heard": heard, "said": said, "problem": problem}


async def main() -> None:
    """Print what was heard and said at each url."""
    key, *urls = sys.argv[1:]
    sys.stdout.write(json.dumps([await turn(key, url) for url in urls]))


if __name__ == "__main__":
    asyncio.run(main())
