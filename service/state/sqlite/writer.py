"""Transactions of one SQLite connection: whoever waits while a commit is on its way shares the next one.

Jobs of a transaction run one after the other; one that fails is undone alone. What the process holds ready follows the
commits in their order: a job's `then` runs on the event loop before its caller goes on, and before any later commit's.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from isrf.contract.errors import StoreError
from service.state.sqlite.files import StateFiles, unwritable
from service.state.sqlite.leftovers import holds

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

BUSY_TIMEOUT_MS = 5000
"""How long a transaction waits for the offline job's."""
_SCRUB_WAITS_MS = 50
_TRIES_AGAIN_S = 0.5
_RESTS_AFTER_LOOK, _RESTS_AFTER_VACUUM = 10, 100
"""Times as long as it took, in which the database is not looked through again: writers wait for both."""


class _Waiting(NamedTuple):
    job: Job[Any]
    then: Callable[[Any], None] | None
    scrubs: str
    done: asyncio.Future[Any]


class _Written(NamedTuple):
    results: list[Any]  # what each job returned, or the exception that undid it
    failure: StoreError | None  # what every caller is told instead


class Writer:
    """For any number of tasks of one event loop. The connection is touched by its thread alone."""

    def __init__(self, db: sqlite3.Connection, files: StateFiles, changes: int) -> None:
        """`db` is in autocommit mode; `changes` counts its transactions, and stands in its table `meta`."""
        self._db, self._files, self._changes = db, files, changes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state-writer")
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None
        self._closing = False
        # Texts that shall stand nowhere in the file, and when it is next looked for them.
        self._deleted: set[bytes] = set()
        self._looks_at = 0.0

    async def do(
        self,
        job: Job[T],
        then: Callable[[T], None] | None = None,
        *,
        scrubs: str = "",
    ) -> T:
        """What the job returned, once it is on disk.

        Args:
            job: run inside a transaction, in the writer's thread.
            then: run on the event loop after the commit, with what the job returned.
            scrubs: what the job deletes, and shall stand neither in the write-ahead log nor in the database any more.

        Raises:
            StoreError: nothing of the job was done (`store.journal_unwritable`, `store.journal_moved`, or its own).
        """
        if self._closing:
            raise unwritable(self._files.path, RuntimeError("the store is closed"))
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(job, then, scrubs, done))
        self._arrived.set()
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        # A caller that goes away must not take the others' commit with it.
        return await asyncio.shield(done)

    async def close(self) -> None:
        """Waits for what is under way, and empties the write-ahead log into the database."""
        self._closing = True
        self._arrived.set()
        while self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown(wait=True)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        scrub_at: float | None = None
        while self._waiting or (scrub_at is not None and not self._closing):
            if not self._waiting and scrub_at is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(scrub_at):
                        await self._arrived.wait()
            self._arrived.clear()
            batch, self._waiting = self._waiting, []
            try:
                written = await loop.run_in_executor(self._thread, self._write, [one.job for one in batch])
            except RuntimeError as error:  # no thread can be started
                failure = unwritable(self._files.path, error)
                written = _Written([failure] * len(batch), failure)
            scrubs = False
            try:
                for one, result in zip(batch, written.results, strict=True):
                    if not isinstance(result, Exception):
                        if one.then is not None:
                            one.then(result)
                        if one.scrubs:
                            scrubs = True
                            self._deleted.add(one.scrubs.encode())
                if scrubs or (scrub_at is not None and loop.time() >= scrub_at):
                    done = await loop.run_in_executor(self._thread, self._scrub)
                    # Where a reader held an older picture, the log is emptied later; so is a database looked through
                    # that just was.
                    wait_s = max(_TRIES_AGAIN_S, self._looks_at - time.monotonic())
                    scrub_at = None if done else loop.time() + wait_s
            finally:
                # Nobody waits for ever, whatever else fails.
                for one, result in zip(batch, written.results, strict=True):
                    _answer(one.done, written.failure or result)

    def _write(self, jobs: Sequence[Job[Any]]) -> _Written:
        results: list[Any] = []
        try:
            self._files.check()
            if not jobs:
                return _Written([], None)
            self._db.execute("BEGIN IMMEDIATE")
            try:
                results = [self._run(job) for job in jobs]
                changes = self._changes + 1
                self._db.execute("UPDATE meta SET value = ? WHERE name = 'changes'", (str(changes),))
                self._db.execute("COMMIT")
            except BaseException:
                results = []
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._changes = changes
            self._files.check()
            self._files.note(changes)
        except StoreError as error:
            return _Written(results or [error] * len(jobs), error)
        except sqlite3.Error as error:
            failure = unwritable(self._files.path, error)
            return _Written([failure] * len(jobs), failure)
        return _Written(results, None)

    def _run(self, job: Job[Any]) -> Any:
        self._db.execute("SAVEPOINT job")
        try:
            result = job(self._db)
        except Exception as error:  # told to the job's caller; the others' jobs go on
            if not self._db.in_transaction:
                raise  # a full disk ended the whole transaction
            self._db.execute("ROLLBACK TO job")
            result = unwritable(self._files.path, error) if isinstance(error, sqlite3.Error) else error
        self._db.execute("RELEASE job")
        return result

    def _scrub(self) -> bool:
        """Deleted bytes are zeroed in the database's pages; older pages in the write-ahead log go with it.

        Where SQLite moved rows between pages before they were deleted, it left copies of them in what the pages do not
        use, out of reach of `secure_delete`: a file that holds some is made anew.
        """
        if self._empty_log() and time.monotonic() >= self._looks_at:
            self._look_for_copies()
            return not self._deleted
        return False

    def _look_for_copies(self) -> None:
        if not self._deleted:
            return
        began, rests_times = time.monotonic(), _RESTS_AFTER_LOOK
        try:
            if holds(self._files.read, self._deleted):
                rests_times = _RESTS_AFTER_VACUUM
                self._db.execute("VACUUM")
                self._empty_log()
            self._deleted.clear()
        except (sqlite3.Error, OSError):
            rests_times = _RESTS_AFTER_VACUUM  # a full disk; it is tried again
        now = time.monotonic()
        self._looks_at = now + rests_times * (now - began)

    def _empty_log(self) -> bool:
        try:
            self._files.may_shrink()
            self._db.execute(f"PRAGMA busy_timeout = {_SCRUB_WAITS_MS}")
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            return False
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        return not busy

    def _end(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._look_for_copies()
        self._db.close()


def _answer(done: asyncio.Future[Any], result: Any) -> None:
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
        done.exception()  # its caller may be gone
    else:
        done.set_result(result)
