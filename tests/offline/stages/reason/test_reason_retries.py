"""When calls are made: how long they wait, on whose order, how far apart they come back, and when that ends."""

import asyncio
import itertools
import random

import pytest

from offline.stages.reason.llm.calls import retries
from offline.stages.reason.llm.calls.client import Completion, LlmCall, UnavailableError, read_retry_after
from offline.stages.reason.llm.calls.retries import RetryingCaller
from offline.stages.reason.schemas import ItemPositive
from tests.offline.stages.reason import virtual_time

BACK_OFF_S = 0.1
LATENCY_S = 0.01


def limited_caller(
    retry_after_s: float | None, *, times: int, max_attempts: int = 1
) -> tuple[RetryingCaller, list[float]]:
    """A caller whose server turns the first calls away, and when each call reached that server."""
    reached: list[float] = []

    class Limited:
        async def complete(self, _call: LlmCall) -> Completion:
            reached.append(asyncio.get_running_loop().time())
            nth = len(reached)
            await asyncio.sleep(LATENCY_S)
            if nth <= times:
                raise UnavailableError("HTTP 429: scripted", retry_after_s=retry_after_s)
            return Completion("x", "", 1, 1, 0.0)

        async def close(self) -> None: ...

    caller = RetryingCaller(
        Limited(), concurrency=50, max_attempts=max_attempts, max_server_failures=1, back_off_s=BACK_OFF_S
    )
    return caller, reached


def make_calls(caller: RetryingCaller, number: int = 1) -> None:
    async def main() -> None:
        await asyncio.gather(*(caller.call(LlmCall((), ItemPositive, str(n))) for n in range(number)))

    virtual_time.run(main())


@pytest.mark.parametrize(("retry_after_s", "max_attempts"), [(0.0, 1), (None, 5)], ids=["ordered: now", "no order"])
def test_pauses_double_and_vary_by_half(retry_after_s: float | None, max_attempts: int) -> None:
    pauses: list[list[float]] = []
    for _ in range(20):
        caller, reached = limited_caller(retry_after_s, times=4, max_attempts=max_attempts)
        make_calls(caller)
        pauses.append([later - earlier - LATENCY_S for earlier, later in itertools.pairwise(reached)])
    for place, at_place in enumerate(zip(*pauses, strict=True)):
        longest = BACK_OFF_S * 2**place
        assert 0.5 * longest <= min(at_place) + 1e-9
        assert max(at_place) <= longest + 1e-9
        assert len(set(at_place)) == 20


def test_calls_that_waited_do_not_all_come_back_at_once() -> None:
    """Twenty calls told the same time come back spread over a back-off after it, none before."""
    random.seed(0)
    caller, reached = limited_caller(0.3, times=20)
    make_calls(caller, 20)
    assert set(reached[:20]) == {reached[0]}
    back = [when - reached[0] - LATENCY_S for when in reached[20:]]
    assert 0.3 <= min(back) < 0.32
    assert 0.38 < max(back) <= 0.4 + 1e-9
    assert len(set(back)) == 20


def test_waiting_on_the_servers_order_has_an_end() -> None:
    caller, reached = limited_caller(50.0, times=10_000)
    with pytest.raises(retries.CircuitOpenError, match="HTTP 429"):
        make_calls(caller)
    assert len(reached) == 13, "at 0, 50, …, 600 s"
    assert retries.MAX_ORDERED_WAIT_S <= reached[-1] - reached[0] < retries.MAX_ORDERED_WAIT_S + 15


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0), ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("-3", 0.0),
        ("soon", None), ("nan", None), ("inf", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert read_retry_after(header, now=100.0) == seconds
