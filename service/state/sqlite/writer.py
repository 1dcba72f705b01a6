"""Writes to an embedded store in transactions: callers that wait during a commit share the next transaction.

The jobs of a transaction run one after the other; a job that fails is rolled back alone. A job's `then` updates the
process's memory: it runs on the event loop before the job's caller continues, and before the `then` of a later commit.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from isrf.contract.errors import StoreError
from isrf.runtime.sqlite import GroupCommit, transaction
from service.state.sqlite.files import StateFiles, unwritable
from service.state.sqlite.leftovers import holds

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

BUSY_TIMEOUT_MS = 5000
"""How long a transaction waits for one of the offline job."""
_SCRUB_WAITS_MS = 50
_TRIES_AGAIN_S = 0.5
RESTS_AFTER_LOOK, RESTS_AFTER_VACUUM = 10, 100
"""How many times its own duration the search for deleted texts then pauses, because writers wait for it."""


class _Request(NamedTuple):
    job: Job[Any]
    then: Callable[[Any], None] | None
    scrubs: str


class _Written(NamedTuple):
    results: list[Any]  # each job's result, or the exception that rolled it back
    failure: StoreError | None  # replaces the results of all jobs


class Writer:
    """Writes for the tasks of one event loop; only one thread uses the connection."""

    def __init__(self, db: sqlite3.Connection, files: StateFiles, changes: int) -> None:
        """db: in autocommit mode. changes: the number of transactions, as in the table `meta`."""
        self._db, self._files, self._changes = db, files, changes
        self._commits = GroupCommit(self._write, self._settle, thread_name="state-writer")
        self._scrubbing_again: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        # Used by the thread: texts that the file must not contain, and when to search for them next.
        self._deleted: set[bytes] = set()
        self._looks_at = 0.0

    async def do(
        self,
        job: Job[T],
        then: Callable[[T], None] | None = None,
        *,
        scrubs: str = "",
    ) -> T:
        """Runs a job in a transaction; returns its result once it is on disk.

        Args:
            job: runs inside a transaction, in the writer's thread.
            then: runs on the event loop after the commit, with the job's result.
            scrubs: a text that the job deletes, and that neither the write-ahead log nor the database may keep.

        Raises:
            StoreError: the job had no effect (`store.journal_unwritable`, `store.journal_moved`, or its own error).
        """
        if self._closing.is_set():
            raise unwritable(self._files.path, RuntimeError("the store is closed"))
        done: asyncio.Future[T] = self._commits.do(_Request(job, then, scrubs))
        # A caller that is cancelled must not cancel the commit that others wait for.
        return await asyncio.shield(done)

    async def close(self) -> None:
        """Waits for work in progress, and moves the write-ahead log into the database."""
        self._closing.set()
        await self._commits.drain()
        if self._scrubbing_again is not None:
            await self._scrubbing_again
        await self._commits.close(self._end)

    async def _settle(self, requests: Sequence[_Request], written: _Written | Exception) -> Sequence[Any]:
        if isinstance(written, RuntimeError):  # no thread can be started
            written = unwritable(self._files.path, written)
        if isinstance(written, Exception):
            return [written] * len(requests)
        deleted: list[str] = []
        for request, result in zip(requests, written.results, strict=True):
            if not isinstance(result, Exception):
                if request.then is not None:
                    request.then(result)
                if request.scrubs:
                    deleted.append(request.scrubs)
        if deleted and not await self._commits.in_thread(partial(self._scrub, deleted)):
            self._scrub_later()
        return written.results if written.failure is None else [written.failure] * len(requests)

    def _scrub_later(self) -> None:
        """Tries again later: a reader still uses the old log, or the last search was too recent."""
        if self._scrubbing_again is None or self._scrubbing_again.done():
            self._scrubbing_again = asyncio.create_task(self._scrub_again())

    async def _scrub_again(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                wait_s = max(_TRIES_AGAIN_S, self._looks_at - time.monotonic())
                await asyncio.wait_for(self._closing.wait(), wait_s)
            if self._closing.is_set() or await self._commits.in_thread(self._scrub):
                return

    def _write(self, requests: Sequence[_Request]) -> _Written:
        results: list[Any] = []
        try:
            self._files.check()
            changes = self._changes + 1
            with transaction(self._db):
                done = [self._run(request.job) for request in requests]
                self._db.execute("UPDATE meta SET value = ? WHERE name = 'changes'", (str(changes),))
            results, self._changes = done, changes
            self._files.check()
            self._files.note(changes)
        except StoreError as error:
            return _Written(results or [error] * len(requests), error)
        except sqlite3.Error as error:
            failure = unwritable(self._files.path, error)
            return _Written([failure] * len(requests), failure)
        return _Written(results, None)

    def _run(self, job: Job[Any]) -> Any:
        self._db.execute("SAVEPOINT job")
        try:
            result = job(self._db)
        except Exception as error:  # the job's caller receives it; the other jobs continue
            if not self._db.in_transaction:
                raise  # a full disk ended the whole transaction
            self._db.execute("ROLLBACK TO job")
            result = unwritable(self._files.path, error) if isinstance(error, sqlite3.Error) else error
        self._db.execute("RELEASE job")
        return result

    def _scrub(self, deleted: Iterable[str] = ()) -> bool:
        """Removes deleted texts from the write-ahead log and the database; returns whether none is left.

        `secure_delete` zeroes deleted bytes in the database's pages. But where SQLite moved rows between pages before,
        it left copies in unused parts of pages; a file with such copies is rewritten by VACUUM.
        """
        self._deleted.update(text.encode() for text in deleted)
        if self._empty_log() and time.monotonic() >= self._looks_at:
            self._look_for_copies()
            return not self._deleted
        return False

    def _look_for_copies(self) -> None:
        if not self._deleted:
            return
        began, rests_times = time.monotonic(), RESTS_AFTER_LOOK
        try:
            if holds(self._files.read, self._deleted):
                rests_times = RESTS_AFTER_VACUUM
                self._db.execute("VACUUM")
                self._empty_log()
            self._deleted.clear()
        except (sqlite3.Error, OSError):
            rests_times = RESTS_AFTER_VACUUM  # a full disk; it tries again later
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
