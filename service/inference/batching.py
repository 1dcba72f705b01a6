"""Runs waiting questions together in a few threads, and refuses questions that cannot be answered in time.

A free thread takes a question at once, so a single question never waits for others. While all threads are busy,
questions gather; the next free thread takes those of one group, up to the largest batch.
`service.inference.queue_limit` decides how many questions may wait and whether work for a question still begins.
Everything but the work itself happens on the event loop. It knows neither model nor HTTP.
"""

import asyncio
import contextlib
import contextvars
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import structlog

from service.inference.deadline import Deadline, current_deadline
from service.inference.queue_limit import QueueLimit
from service.telemetry.metrics import Metrics

Q = TypeVar("Q")
A = TypeVar("A")

StageTimer: TypeAlias = Callable[[str, float], None]
"""Records how many seconds a stage took, for every question of the batch."""

_log = structlog.get_logger("service")


class _Ticket:
    """A question that waits; questions with the same `group` object can run together."""

    __slots__ = ("answer", "asked", "context", "deadline", "group", "question", "work")

    def __init__(
        self, work: Callable[[Sequence[Any], StageTimer], Sequence[Any]], question: Any, group: object
    ) -> None:
        self.work, self.question, self.group = work, question, group
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.deadline: Deadline | None = None
        self.asked = time.perf_counter()
        # Stages are recorded in the trace of the question's own request.
        self.context = contextvars.copy_context()


class Batches:
    """The queue and the batches of one engine. The caller owns the thread pool, which has the limit's threads."""

    def __init__(self, threads: ThreadPoolExecutor, limit: QueueLimit, metrics: Metrics) -> None:
        self._threads, self._limit, self._metrics = threads, limit, metrics
        self._free = limit.num_threads
        self._waiting: deque[_Ticket] = deque()

    async def ask(self, work: Callable[[Sequence[Q], StageTimer], Sequence[A]], question: Q, group: object) -> A:
        """Returns the answer to one question; `work` answers several questions of one group.

        Raises:
            OverloadError: too many questions wait, the deadline passed before the work began, or the caller is gone.
        """
        self.check()
        ticket = _Ticket(work, question, group)
        ticket.deadline = current_deadline()
        answer: A = await self._wait(ticket)
        return answer

    def check(self) -> None:
        """Raises `OverloadError` where `ask` would refuse a question now."""
        if self.is_full():
            raise self._limit.refusal()

    def is_full(self, under_way: int = 0) -> bool:
        """Whether a question is refused now, or will be, as `under_way` callers ask or are about to ask."""
        if self._limit.is_full_soon(under_way):
            return True
        if self._limit.is_full(len(self._waiting)):
            self._drop_late()
        return self._limit.is_full(len(self._waiting))

    async def run(self, work: Callable[[], A]) -> A:
        """Runs background work, in no batch, without a deadline and without a limit."""
        context = contextvars.copy_context()
        answer: A = await self._wait(_Ticket(lambda *_: [context.run(work)], None, object()))
        return answer

    async def _wait(self, ticket: _Ticket) -> Any:
        self._waiting.append(ticket)
        self._metrics.waiting.inc()
        self._start()
        return await ticket.answer

    def _start(self) -> None:
        while self._free and (batch := self._next()):
            self._free -= 1
            self._threads.submit(self._work, asyncio.get_running_loop(), batch)

    def _next(self) -> list[_Ticket]:
        """Returns the oldest question and those that can run with it, in order; the others keep their order."""
        batch: list[_Ticket] = []
        others: list[_Ticket] = []
        while self._waiting and len(batch) < self._limit.max_batch:
            ticket = self._waiting.popleft()
            if self._is_late(ticket):
                self._metrics.waiting.dec()
            elif batch and ticket.group is not batch[0].group:
                others.append(ticket)
            else:
                self._metrics.waiting.dec()
                batch.append(ticket)
        self._waiting.extendleft(reversed(others))
        return batch

    def _drop_late(self) -> None:
        in_time = [ticket for ticket in self._waiting if not self._is_late(ticket)]
        self._metrics.waiting.dec(len(self._waiting) - len(in_time))
        self._waiting = deque(in_time)

    def _is_late(self, ticket: _Ticket) -> bool:
        """Whether a question needs no work any more; sets its error where its caller still waits."""
        if ticket.answer.done():  # cancelled
            return True
        error = self._limit.refusal_to_begin(ticket.deadline)
        if error is not None:
            ticket.answer.set_exception(error)
        return error is not None

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[_Ticket]) -> None:
        """Answers a batch, in a thread."""
        began = time.perf_counter()

        def record_time(stage: str, seconds: float) -> None:
            for ticket in batch:
                ticket.context.run(self._metrics.stage, stage, seconds)

        for ticket in batch:
            ticket.context.run(self._metrics.stage, "queue", began - ticket.asked)
        answers: Sequence[Any]
        try:
            answers = batch[0].work([ticket.question for ticket in batch], record_time)
        except Exception as error:  # noqa: BLE001 - the callers receive it
            answers = [error] if len(batch) == 1 else [_answer_alone(ticket, record_time) for ticket in batch]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._finish, batch, answers)

    def _finish(self, batch: list[_Ticket], answers: Sequence[Any]) -> None:
        self._free += 1
        self._start()
        for ticket, answer in zip(batch, answers, strict=True):
            if ticket.answer.done():
                continue
            if isinstance(answer, Exception):
                ticket.answer.set_exception(answer)
            else:
                ticket.answer.set_result(answer)


def _answer_alone(ticket: _Ticket, record_time: StageTimer) -> Any:
    """Returns a question's answer or error; one failing question must not fail the others of its batch."""
    try:
        return ticket.work([ticket.question], record_time)[0]
    except Exception as error:  # noqa: BLE001 - the caller receives it
        return error
