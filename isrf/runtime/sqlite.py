"""SQLite transactions by the hundred a second: one thread does them all, and what waits meanwhile shares the next.

It knows nothing of what the jobs of a transaction are, nor of what makes a commit safe: both are its users'.
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
    """All of the body or nothing of it, on a connection in autocommit mode."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # some errors, as a full disk, end it
            db.execute("ROLLBACK")
        raise


class GroupCommit(Generic[JobT, WrittenT]):
    """For any number of tasks of one event loop. Jobs are done in the order in which they came."""

    def __init__(
        self,
        write: Callable[[Sequence[JobT]], WrittenT],
        settle: Callable[[Sequence[JobT], WrittenT | Exception], Awaitable[Sequence[Any]]],
        *,
        thread_name: str,
    ) -> None:
        """Args:
        write: does jobs in one transaction, in the thread.
        settle: given what `write` returned or raised, on the event loop, before anybody is told and before the next
            transaction begins; returns what each job's caller is told, exceptions to be raised there.
        """
        self._write, self._settle = write, settle
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread_name)
        self._waiting: list[tuple[JobT, asyncio.Future[Any]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def do(self, job: JobT) -> asyncio.Future[Any]:
        """Puts a job into the next transaction; what its caller is told. Nobody need wait for it."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._waiting.append((job, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return done

    async def in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        """`work` between two transactions."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def drain(self) -> None:
        """Waits until every job was done and told."""
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
                told = await self._settle(jobs, await self._written(jobs))
            except Exception as error:  # noqa: BLE001 - it is the callers', and nobody waits for ever
                told = [error] * len(batch)
            for (_, done), result in zip(batch, told, strict=True):
                if done.done():  # its caller went away
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)

    async def _written(self, jobs: Sequence[JobT]) -> WrittenT | Exception:
        try:
            return await self.in_thread(partial(self._write, jobs))
        except Exception as error:  # noqa: BLE001 - `settle` says what the callers are told
            return error
