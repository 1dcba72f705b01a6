"""Runs SQLite transactions, hundreds per second: one thread runs them, and jobs that wait meanwhile share the next one.

It knows nothing of what the jobs do, nor of what makes a commit safe: both belong to its callers.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

JobT = TypeVar("JobT")
WrittenT = TypeVar("WrittenT")
ResultT = TypeVar("ResultT")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Runs the body in a transaction, completely or not at all, on a connection in autocommit mode."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # some errors, such as a full disk, end the transaction
            db.execute("ROLLBACK")
        raise


class GroupCommit(Generic[JobT, WrittenT]):
    """Groups jobs of any number of tasks of one event loop into transactions; jobs run in the order of arrival."""

    def __init__(
        self,
        write: Callable[[Sequence[JobT]], WrittenT],
        settle: Callable[[Sequence[JobT], WrittenT | Exception], Awaitable[Sequence[Any]]],
        *,
        thread_name: str,
    ) -> None:
        """Args:
        write: runs jobs in one transaction, in the thread.
        settle: gets what `write` returned or raised, and returns each job's result; an exception is raised in the
            job's caller. It runs on the event loop, before any caller gets its result and before the next transaction.
        """
        self._write, self._settle = write, settle
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread_name)
        self._waiting: list[tuple[JobT, asyncio.Future[Any]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def do(self, job: JobT) -> asyncio.Future[Any]:
        """Puts a job into the next transaction and returns a future of its result, which nobody has to await."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._waiting.append((job, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return done

    async def in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        """Runs `work` in the thread, between two transactions."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def drain(self) -> None:
        """Waits until every job is done and has its result."""
        while self._flushing is not None and not self._flushing.done():
            await asyncio.wait([self._flushing])

    async def close(self, last: Callable[[], None]) -> None:
        """Waits as `drain`, runs `last` in the thread, and ends the thread."""
        await self.drain()
        try:
            await self.in_thread(last)
        finally:
            self._thread.shutdown()

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            jobs = [job for job, _ in batch]
            try:
                results = await self._settle(jobs, await self._written(jobs))
            except Exception as error:  # noqa: BLE001 - the callers get it; otherwise they would wait for ever
                results = [error] * len(batch)
            for (_, done), result in zip(batch, results, strict=True):
                if done.done():  # the caller cancelled it
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)

    async def _written(self, jobs: Sequence[JobT]) -> WrittenT | Exception:
        try:
            return await self.in_thread(partial(self._write, jobs))
        except Exception as error:  # noqa: BLE001 - `settle` decides what the callers get
            return error
