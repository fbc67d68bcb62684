"""Keypad menus in calls: spoken, repeated and acted on by rule, without the model's opinion."""

from __future__ import annotations

from typing import Any

from app.dial.leg import EndedBy
from app.events import AgentSaid, EndReason
from app.realtime.events import SAY_METADATA_KEY, ResponseCreate, Unset
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.integration.server import trunkline
from tests.integration.transfer_site import FRONT_DESK, transfer_site

PROMPT = "For our hours press 1. For Anna press 2."
MENU: dict[str, Any] = {"prompt": PROMPT, "otherwise": {"hang_up": "Goodbye."}, "timeout_s": 1}


def spoken(voice: ScriptedVoiceServer) -> list[str]:
    """The sentences that the model was asked to say word for word."""
    configs = [create.response for create in voice.latest.of(ResponseCreate)]
    metadata = [config.metadata for config in configs if config is not None]
    return [str(m[SAY_METADATA_KEY]) for m in metadata if not isinstance(m, Unset)]


def agents(**menu: Any) -> dict[str, Any]:
    reception = {
        "greeting": "Good day.",
        "keypad": {
            "1": {"say": "At nine."},
            "2": {"agent": "anna"},
            "0": {"transfer": "reception"},
        },
        "menu": {**MENU, **menu},
    }
    return {"reception": reception, "anna": {"description": "Anna", "greeting": "Anna speaking."}}


DESTINATIONS = {"reception": {"number": FRONT_DESK}}


async def test_a_menu_is_repeated_and_then_takes_its_last_resort() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    app_of = trunkline(voice, agents=agents(tries=2), destinations=DESTINATIONS)
    async with voice, app_of as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        assert (await call.ended()).by is EndedBy.AGENT
        summary = await app.ended(call)
        assert (summary.reason, summary.detail) == (EndReason.AGENT_HUNG_UP, "keypad")
        assert spoken(voice) == [f"Good day. {PROMPT}", PROMPT, "Goodbye."]
        assert summary.counters.turns == 0


async def test_keys_count_before_the_choices_were_heard_and_wrong_ones_are_told() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=3_000), Reply(audio_ms=300)])
    app_of = trunkline(voice, agents=agents(), destinations=DESTINATIONS)
    async with voice, app_of as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=200)
        call.press("7")
        await app.event(call, AgentSaid, lambda line: line.text.startswith("That key"))
        call.press("1")
        await app.event(call, AgentSaid, lambda line: line.text == "At nine.")
        call.press("2")
        await call.hear(ms=200)
        await call.hang_up()
        summary = await app.ended(call)
        assert summary.agent == "anna"
        assert spoken(voice) == [
            f"Good day. {PROMPT}",
            f"That key does nothing here. {PROMPT}",
            "At nine.",
        ]


async def test_a_caller_who_talks_to_a_menu_talks_with_the_agent() -> None:
    replies = [Reply(audio_ms=300), Reply(audio_ms=300, text="Of course.")]
    voice = ScriptedVoiceServer(replies=replies, heard=["I want to talk to somebody."])
    options: dict[str, Any] = {"agents": agents(), "destinations": DESTINATIONS}
    async with voice, trunkline(voice, **options) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=250)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        await app.event(call, AgentSaid, lambda line: line.text == "Of course.")
        await call.hear_quiet(ms=9_000)  # longer than the menu would wait; at six times the pace
        assert spoken(voice) == [f"Good day. {PROMPT}"]
        call.press("1")  # the keys go on to do what they did
        await app.event(call, AgentSaid, lambda line: line.text == "At nine.")
        await call.hang_up()
        await app.ended(call)


async def test_a_key_of_a_menu_transfers_the_caller_and_takes_them_back() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300), Reply(audio_ms=300)])
    written = agents()
    written["reception"]["keypad"]["0"] = {"transfer": "front_desk"}
    async with voice, transfer_site(voice, agents=written) as site:
        ringing = await site.twilio.ring(site.app.url)
        site.api.add_call(ringing.caller.call_id)
        call = await site.comes_back(ringing)
        await call.hear(ms=200)
        call.press("0")
        assert (await site.leaves(call)).name == "Dial"
        back = await site.comes_back(await site.dial_ends(call, "busy"))
        await back.hear(ms=200)
        await back.hang_up()
        assert (await site.app.ended(call)).reason is EndReason.CALLER_HUNG_UP
