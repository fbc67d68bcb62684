"""Retries within a budget, and the breaker that calls share."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from app.errors import VoiceRefused, VoiceUnavailable
from app.realtime.connecting import (
    CONNECT_EVERY_S,
    RECONNECTS_PER_MINUTE,
    Breaker,
    GuardedModel,
    ReconnectBudget,
    connect_with_retry,
)
from app.realtime.connection import RealtimeConnection, VoiceConnection, pipe
from app.realtime.events import SessionConfig
from tests.fakes.clock import in_virtual_time

REFUSED = VoiceRefused("no quota", code="insufficient_quota")


class Model:
    """A model with a list of outcomes: an error, a connection (`None`), or never an answer."""

    name = "scripted"

    def __init__(self, *outcomes: Exception | None, hangs: bool = False) -> None:
        self.outcomes = list(outcomes)
        self.hangs = hangs
        self.attempts = 0

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        self.attempts += 1
        if self.hangs:
            await asyncio.Event().wait()
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return RealtimeConnection(pipe()[0])


class Outage:
    """A model that cannot be reached for a while, in one way or by turns in several.

    What begins meanwhile fails at once, or hangs for as long as a connection's time to open lasts.
    """

    name = "outage"

    def __init__(self, seconds: float, ways: str) -> None:
        self._seconds = seconds
        self._ways = itertools.cycle(ways.split(", "))
        self.open: list[Connection] = []
        self.opened = asyncio.Event()
        self.connecting = self.most = 0

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        clock = asyncio.get_running_loop().time
        began_s = clock()
        self.connecting += 1
        self.most = max(self.most, self.connecting)
        try:
            if began_s < self._seconds:
                if next(self._ways) == "hangs":
                    await asyncio.sleep(5.0)
                raise VoiceUnavailable("x")
            await asyncio.sleep(0.2)
        finally:
            self.connecting -= 1
        self.open.append(Connection(self.open))
        self.opened.set()
        return self.open[-1]


class Connection(RealtimeConnection):
    """A connection that is missed while it is open."""

    def __init__(self, among: list[Connection]) -> None:
        super().__init__(pipe()[0])
        self._among = among

    async def close(self) -> None:
        self._among.remove(self)


class Pauses:
    """A `sleep` that only writes down how long."""

    def __init__(self) -> None:
        self.taken_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken_s.append(seconds)


async def test_the_first_success_is_the_last_try() -> None:
    model = Model(None)
    pauses = Pauses()
    await connect_with_retry(model, SessionConfig(), sleep=pauses)
    assert (model.attempts, pauses.taken_s) == (1, [])


async def test_pauses_double() -> None:
    model = Model(VoiceUnavailable("x"), VoiceUnavailable("x"), None)
    pauses = Pauses()
    await connect_with_retry(model, SessionConfig(), sleep=pauses, rng=lambda: 0.5)
    assert pauses.taken_s == [0.25, 0.5]


async def test_pauses_vary_by_half() -> None:
    for chances, expected_s in (([0.0], 0.125), ([1.0], 0.375)):
        pauses = Pauses()
        model = Model(VoiceUnavailable("x"), None)
        await connect_with_retry(model, SessionConfig(), sleep=pauses, rng=chances.pop)
        assert pauses.taken_s == [expected_s]


WAYS = ["fails", "hangs", "fails, hangs", "hangs, fails", "fails, fails, hangs"]


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("outage_s", [0.1, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_an_outage_shorter_than_the_budget_is_outlived(
    outage_s: float, chance: float, ways: str
) -> None:
    async def main() -> None:
        model = Outage(outage_s, ways)
        connection = await connect_with_retry(model, SessionConfig(), rng=lambda: chance)
        assert outage_s <= asyncio.get_running_loop().time() <= outage_s + 1.8
        assert model.open == [connection]
        assert model.connecting == 0
        assert model.most <= 3

    in_virtual_time(main())


@pytest.mark.parametrize("ways", WAYS)
def test_an_outage_longer_than_the_budget_ends_within_it(ways: str) -> None:
    async def main() -> None:
        model = Outage(60.0, ways)
        with pytest.raises(VoiceUnavailable):
            await connect_with_retry(model, SessionConfig(), rng=lambda: 0.5)
        assert 4.5 <= asyncio.get_running_loop().time() <= 6.0
        assert model.connecting == 0

    in_virtual_time(main())


@pytest.mark.parametrize("second_s", [1.5, 2.0, 2.5])
def test_the_first_try_that_is_ready_is_used_and_the_others_are_closed(second_s: float) -> None:
    """The first takes 3.5 s; the second begins after 1.5 s, and both may be ready together."""

    class Slow(Outage):
        async def connect(self, config: SessionConfig) -> VoiceConnection:
            takes_s.append(second_s if takes_s else 3.5)
            await asyncio.sleep(takes_s[-1])
            return await super().connect(config)

    takes_s: list[float] = []

    async def main() -> None:
        model = Slow(0.0, "fails")
        connection = await connect_with_retry(model, SessionConfig())
        await asyncio.sleep(10.0)
        assert model.open == [connection]
        assert takes_s[:2] == [3.5, second_s]

    in_virtual_time(main())


@pytest.mark.parametrize("turns", range(6))
async def test_a_call_that_ends_while_it_connects_leaves_no_connection(turns: int) -> None:
    """It ends so many turns of the loop after the connection was ready."""
    model = Outage(0.0, "fails")
    connecting = asyncio.ensure_future(connect_with_retry(model, SessionConfig()))
    await model.opened.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    connecting.cancel()
    outcome = (await asyncio.gather(connecting, return_exceptions=True))[0]
    assert model.open == ([] if isinstance(outcome, asyncio.CancelledError) else [outcome])


def test_reconnects_have_a_budget_per_minute_and_growing_pauses() -> None:
    budget = ReconnectBudget(4)
    assert [budget.on_lost(at) for at in (0, 10, 20, 30, 40)] == [0.0, 0.25, 0.5, 1.0, None]
    assert budget.on_lost(60_005) == 1.0  # the first is a minute old, the others are not
    assert budget.on_lost(200_000) == 0.0


def test_a_server_that_fails_every_response_is_tried_again_until_4_s_are_over() -> None:
    budget, at_ms, tries = ReconnectBudget(), 0, [0]
    while (pause_s := budget.on_lost(at_ms)) is not None:
        at_ms += int(pause_s * 1000)
        tries.append(at_ms)
    assert [at for at in tries if 4_000 < at <= 6_000] == [4_750, 5_750]
    assert len(tries) == 1 + RECONNECTS_PER_MINUTE


async def test_a_refusal_is_not_tried_again() -> None:
    model = Model(REFUSED, None)
    with pytest.raises(VoiceRefused):
        await connect_with_retry(model, SessionConfig(), sleep=Pauses())
    assert model.attempts == 1


async def test_the_server_says_how_long_to_wait() -> None:
    model = Model(VoiceUnavailable("x", retry_after_s=2.0), None)
    pauses = Pauses()
    await connect_with_retry(model, SessionConfig(), sleep=pauses)
    assert pauses.taken_s == [2.0]


async def test_a_longer_wait_than_the_budget_is_not_waited() -> None:
    model = Model(VoiceUnavailable("x", retry_after_s=30.0), None)
    with pytest.raises(VoiceUnavailable):
        await connect_with_retry(model, SessionConfig(), sleep=Pauses())
    assert model.attempts == 1


async def test_a_model_that_hangs_uses_up_the_budget_and_no_more() -> None:
    model = Model(hangs=True)
    with pytest.raises(VoiceUnavailable) as caught:
        await connect_with_retry(model, SessionConfig(), budget_s=0.02)
    assert caught.value.code == "connect_timeout"
    assert model.attempts == 1


def _open_breaker() -> Breaker:
    breaker = Breaker()
    for at_ms in range(0, 500, 100):
        breaker.on_refused(REFUSED, at_ms)
    return breaker


def test_five_refusals_in_half_a_minute_open_the_breaker() -> None:
    breaker = Breaker()
    for at_ms in (0, 1_000, 2_000, 3_000):
        breaker.on_refused(REFUSED, at_ms)
        assert breaker.check(at_ms) is None
    breaker.on_refused(REFUSED, 30_000)
    assert breaker.check(30_001) is REFUSED
    assert breaker.reason is REFUSED


def test_five_refusals_over_a_longer_time_do_not() -> None:
    breaker = Breaker()
    for at_ms in (0, 10_000, 20_000, 25_000, 30_001):
        breaker.on_refused(REFUSED, at_ms)
    assert breaker.check(30_002) is None


def test_an_open_breaker_lets_one_through_every_half_minute() -> None:
    breaker = _open_breaker()
    assert breaker.check(30_399) is REFUSED
    assert breaker.check(30_400) is None
    assert breaker.check(30_401) is REFUSED
    assert breaker.check(60_400) is None


def test_a_connection_closes_it_on_probation() -> None:
    breaker = _open_breaker()
    breaker.check(30_400)
    breaker.on_connected()
    assert breaker.check(30_500) is None
    breaker.on_refused(REFUSED, 30_600)
    assert breaker.check(30_700) is REFUSED


def test_a_completed_response_ends_the_probation() -> None:
    breaker = _open_breaker()
    breaker.on_connected()
    breaker.on_success()
    breaker.on_refused(REFUSED, 40_000)
    assert breaker.check(40_001) is None


async def test_calls_share_what_others_met() -> None:
    model = Model(*[REFUSED] * 5)
    guarded = GuardedModel(model)
    for _ in range(8):
        with pytest.raises(VoiceRefused) as caught:
            await guarded.connect(SessionConfig())
        assert caught.value.code == "insufficient_quota"
    assert model.attempts == 5
    assert guarded.name == "scripted"
    assert repr(guarded) == f"GuardedModel({model!r})"


class Busy:
    """A model that notes when connections begin."""

    name = "busy"

    def __init__(self) -> None:
        self.begun_s: list[float] = []

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        self.begun_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.3)
        return RealtimeConnection(pipe()[0])


@pytest.mark.parametrize("calls", [1, 2, 50, 200])
def test_calls_that_connect_in_the_same_moment_begin_one_after_the_other(calls: int) -> None:
    async def main() -> None:
        model = Busy()
        guarded = GuardedModel(model)
        for _ in range(2):  # later ones begin at once again
            began_s = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as group:
                for _ in range(calls):
                    group.create_task(connect_with_retry(guarded, SessionConfig()))
            begun_s, model.begun_s = model.begun_s, []
            assert begun_s[0] == began_s
            steps = [after - before for before, after in itertools.pairwise(begun_s)]
            assert len(begun_s) == calls
            assert all(step >= CONNECT_EVERY_S * 0.99 for step in steps)
            assert begun_s[-1] - began_s < 1.0

    in_virtual_time(main())


async def test_quota_that_fails_only_the_responses_opens_it_too() -> None:
    model = Model(*[None] * 5)
    guarded = GuardedModel(model)
    for _ in range(5):
        await guarded.connect(SessionConfig())
        guarded.note_refused(REFUSED)
    with pytest.raises(VoiceRefused):
        await guarded.connect(SessionConfig())
    guarded.note_success()
    model.outcomes.append(None)
    await guarded.connect(SessionConfig())
    assert model.attempts == 6


async def test_trouble_that_may_pass_does_not_open_it() -> None:
    model = Model(*[VoiceUnavailable("x")] * 6)
    guarded = GuardedModel(model)
    for _ in range(6):
        with pytest.raises(VoiceUnavailable):
            await guarded.connect(SessionConfig())
    assert model.attempts == 6
