"""Work that waits together runs together, in a few threads; and what cannot be done in time is refused, not queued.

A thread that is free takes what comes at once, so nobody alone waits for company. While all threads are busy, work
gathers; the next free thread takes all of it that belongs to one group, up to the largest batch. Whether one more may
wait, and for whom work is still begun, `service.inference.queue_limit` says; it is asked before any work is done.
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
"""Takes a stage and the seconds that it took everybody in the batch."""

_log = structlog.get_logger("service")


class _Ticket:
    """One caller's place; `group` is what can run together, by identity."""

    __slots__ = ("answer", "asked", "context", "deadline", "group", "question", "work")

    def __init__(
        self, work: Callable[[Sequence[Any], StageTimer], Sequence[Any]], question: Any, group: object
    ) -> None:
        self.work, self.question, self.group = work, question, group
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.deadline: Deadline | None = None
        self.asked = time.perf_counter()
        # A stage belongs to the trace of its request.
        self.context = contextvars.copy_context()


class Batches:
    """One per engine. The thread pool is the caller's, who also closes it, and has the limit's threads."""

    def __init__(self, threads: ThreadPoolExecutor, limit: QueueLimit, metrics: Metrics) -> None:
        self._threads, self._limit, self._metrics = threads, limit, metrics
        self._free = limit.num_threads
        self._waiting: deque[_Ticket] = deque()

    async def ask(self, work: Callable[[Sequence[Q], StageTimer], Sequence[A]], question: Q, group: object) -> A:
        """The answer to one question; `work` answers several of one group.

        Raises:
            OverloadError: too many wait already, the request's deadline came before its work began, or its caller left.
        """
        self.check()
        ticket = _Ticket(work, question, group)
        ticket.deadline = current_deadline()
        answer: A = await self._wait(ticket)
        return answer

    def check(self) -> None:
        """Raises `OverloadError` where a question would be refused now."""
        if self.is_full():
            raise self._limit.refusal()

    def is_full(self, under_way: int = 0) -> bool:
        """Whether a question would be refused now; or soon, since so many callers are already on their way to ask."""
        if self._limit.is_full_soon(under_way):
            return True
        if self._limit.is_full(len(self._waiting)):
            self._drop_the_late()
        return self._limit.is_full(len(self._waiting))

    async def run(self, work: Callable[[], A]) -> A:
        """Work of its own, behind the scenes: neither refused nor hurried, and in no batch."""
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
        """The oldest that waits, and what may run with it; in order, and the others stay in theirs."""
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

    def _drop_the_late(self) -> None:
        kept = [ticket for ticket in self._waiting if not self._is_late(ticket)]
        self._metrics.waiting.dec(len(self._waiting) - len(kept))
        self._waiting = deque(kept)

    def _is_late(self, ticket: _Ticket) -> bool:
        """Whether nothing needs to be done for it any more; who still waits is told why."""
        if ticket.answer.done():  # cancelled
            return True
        error = self._limit.why_not_begun(ticket.deadline)
        if error is not None:
            ticket.answer.set_exception(error)
        return error is not None

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[_Ticket]) -> None:
        """In a thread."""
        began = time.perf_counter()

        def tell(stage: str, seconds: float) -> None:
            for ticket in batch:
                ticket.context.run(self._metrics.stage, stage, seconds)

        for ticket in batch:
            ticket.context.run(self._metrics.stage, "queue", began - ticket.asked)
        answers: Sequence[Any]
        try:
            answers = batch[0].work([ticket.question for ticket in batch], tell)
        except Exception as error:  # noqa: BLE001 - it is the callers'
            answers = [error] if len(batch) == 1 else [_alone(ticket, tell) for ticket in batch]
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
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


def _alone(ticket: _Ticket, tell: StageTimer) -> Any:
    """Its answer, or its error: who shares a batch with what cannot be answered is answered all the same."""
    try:
        return ticket.work([ticket.question], tell)[0]
    except Exception as error:  # noqa: BLE001 - it is the caller's
        return error
