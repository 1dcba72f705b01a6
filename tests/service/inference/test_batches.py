"""What waits together runs together; nobody alone waits; what cannot be done in time is refused before it is begun."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from isrf.contract.errors import OverloadError
from service.inference.batching import Batches, StageTimer
from service.inference.deadline import CallerConnection, start_deadline
from service.inference.limits import LoadLimits
from service.inference.queue_limit import QueueLimit
from service.telemetry.metrics import Metrics


class Desk:
    """Batches of one thread over work that doubles numbers, and stands still while `hold` is not set."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(max_workers=1)
        self.metrics = Metrics()
        limit = QueueLimit(LoadLimits(1, max_batch=3, max_waiting=8), self.metrics)
        self.batches = Batches(self.threads, limit, self.metrics)
        self.ran: list[list[int]] = []
        self.begun, self.hold = threading.Event(), threading.Event()
        self.hold.set()

    def work(self, questions: Sequence[int], tell: StageTimer) -> list[int]:
        self.ran.append(list(questions))
        self.begun.set()
        assert self.hold.wait(60)
        if any(question < 0 for question in questions):
            raise ValueError("negative")
        tell("model", 0.0)
        return [2 * question for question in questions]

    def ask(self, question: int, group: object = None) -> "asyncio.Task[int]":
        return asyncio.create_task(self.batches.ask(self.work, question, group))

    async def busy(self) -> "asyncio.Task[int]":
        """The one thread is at work, until `hold` is set."""
        self.hold.clear()
        task = self.ask(0, object())
        await asyncio.to_thread(self.begun.wait, 60)
        return task

    def counted(self, series: str) -> float:
        lines = self.metrics.exposition().decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(series)), 0.0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    one = Desk()
    yield one
    one.hold.set()
    one.threads.shutdown()


async def test_who_is_alone_is_answered_at_once_and_alone(desk: Desk) -> None:
    for question in (1, 2, 3):
        assert await desk.ask(question) == 2 * question
    assert desk.ran == [[1], [2], [3]]


async def test_what_gathers_while_all_threads_are_busy_runs_together(desk: Desk) -> None:
    first = await desk.busy()
    others = [desk.ask(question) for question in range(1, 6)]
    await asyncio.sleep(0)
    assert desk.counted("isrf_model_queue") == 5
    desk.hold.set()
    assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10]
    assert desk.ran == [[0], [1, 2, 3], [4, 5]], "in order, as many as a batch may hold"
    assert desk.counted("isrf_model_queue") == 0


async def test_only_one_group_shares_a_batch_and_nobody_is_passed_over(desk: Desk) -> None:
    snapshot, other = object(), object()
    first = await desk.busy()
    others = [desk.ask(question, group) for question, group in ((1, snapshot), (2, other), (3, snapshot), (4, other))]
    await asyncio.sleep(0)
    desk.hold.set()
    await asyncio.gather(first, *others)
    assert desk.ran == [[0], [1, 3], [2, 4]]


async def test_whoever_comes_when_enough_wait_is_refused_at_once(desk: Desk) -> None:
    first = await desk.busy()
    waiting = [desk.ask(question) for question in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadError) as refused:
        await desk.ask(99)
    assert refused.value.code == "overload.refused"
    assert desk.counted('isrf_model_not_run_total{reason="refused"}') == 1
    desk.hold.set()
    assert len(await asyncio.gather(first, *waiting)) == 9
    assert await desk.ask(5) == 10, "and it is over as soon as the queue is"
    assert all(99 not in batch for batch in desk.ran)


async def test_what_is_late_is_not_begun(desk: Desk) -> None:
    async def ask_in_turn(question: int, seconds: float, line: CallerConnection | None = None) -> int:
        start_deadline(seconds, line)
        return await desk.batches.ask(desk.work, question, None)

    first = await desk.busy()
    line = CallerConnection()
    late = asyncio.create_task(ask_in_turn(1, 0.0))
    gone = asyncio.create_task(ask_in_turn(2, 60.0, line))
    cancelled = desk.ask(3)
    patient = asyncio.create_task(ask_in_turn(4, 60.0))
    await asyncio.sleep(0)
    cancelled.cancel()
    line.is_closed = True
    desk.hold.set()
    found = await asyncio.gather(late, gone, cancelled, patient, return_exceptions=True)
    assert [getattr(one, "code", None) for one in found[:2]] == ["overload.expired", "overload.caller_gone"]
    assert isinstance(found[2], asyncio.CancelledError)
    assert found[3] == 8
    await first
    assert desk.ran == [[0], [4]]
    for reason in ("expired", "caller_gone"):
        assert desk.counted(f'isrf_model_not_run_total{{reason="{reason}"}}') == 1
    assert desk.counted("isrf_model_queue") == 0


async def test_the_late_make_room(desk: Desk) -> None:
    first = await desk.busy()
    line = CallerConnection()

    async def ask_and_leave(question: int) -> int:
        start_deadline(60.0, line)
        return await desk.batches.ask(desk.work, question, None)

    leaving = [asyncio.create_task(ask_and_leave(question)) for question in range(8)]
    await asyncio.sleep(0)
    line.is_closed = True
    staying = desk.ask(7)
    await asyncio.sleep(0)
    desk.hold.set()
    assert await staying == 14
    await first
    assert desk.ran == [[0], [7]]
    assert all(isinstance(one, OverloadError) for one in await asyncio.gather(*leaving, return_exceptions=True))


async def test_what_cannot_be_answered_fails_alone(desk: Desk) -> None:
    first = await desk.busy()
    tasks = [desk.ask(question) for question in (1, -1, 2)]
    await asyncio.sleep(0)
    desk.hold.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert (found[0], found[2]) == (2, 4)
    assert isinstance(found[1], ValueError)
    await first
    assert await desk.ask(1) == 2, "the thread is free again"


async def test_work_behind_the_scenes_is_neither_refused_nor_hurried(desk: Desk) -> None:
    first = await desk.busy()
    waiting = [desk.ask(question) for question in range(1, 9)]
    await asyncio.sleep(0)
    start_deadline(0.0, None)
    behind = asyncio.create_task(desk.batches.run(lambda: 42))
    await asyncio.sleep(0)
    desk.hold.set()
    assert await behind == 42
    await asyncio.gather(first, *waiting)
