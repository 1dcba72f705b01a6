"""Runs the ledger's transactions in one thread (`isrf.runtime.sqlite`) and syncs them to disk in another.

A transaction is *written* once its future is done: it survives a killed process, and other processes see it. It is
*synced*, so that it survives a power cut too, `SYNC_EVERY_S` later and by `close` at the latest. A second thread
flushes the write-ahead log, because a flush takes as long as many transactions and hundreds of calls would wait for it.
It knows nothing of what the transactions contain.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from isrf.contract.errors import StageError
from isrf.runtime.files import sync_path
from isrf.runtime.sqlite import GroupCommit, transaction
from offline.runtime.locks import file_lock

BUSY_TIMEOUT_S = 60.0
SYNC_EVERY_S = 0.05
"""A power cut may lose the transactions of this time; a killed process loses none."""

Job = Callable[[sqlite3.Connection], Any]
ResultT = TypeVar("ResultT")


class _Written(NamedTuple):
    results: list[Any]
    has_changed: bool


class Transactions:
    """Runs transactions on one SQLite file, for one event loop.

    Attributes:
        failure: the reason why a write or a sync failed, else None; after a failure the run should make no call.
    """

    def __init__(self, path: Path, *, lock: Path) -> None:
        """`lock` is a file; a process locks it while it opens or closes `path`."""
        self.failure: StageError | None = None
        self._path = path
        self._lock = lock
        self._commits = GroupCommit(self._transact, self._settle, thread_name="ledger")
        self._syncer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-sync")
        self._syncing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._unsynced = False
        self._connection: sqlite3.Connection | None = None

    async def open(self, schema: str) -> None:
        """Opens the file; raises `StageError` (`reason.ledger`) if it cannot be used."""
        await self.in_thread(partial(self._connect, schema))

    def do(self, job: Job) -> asyncio.Future[Any]:
        """Adds `job` to the next transaction; the future has its result once written, or a `StageError`."""
        return self._commits.do(job)

    async def in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        """Runs `work` between two transactions; raises `StageError` on an error of the disk or SQLite."""
        with self._as_stage_errors():
            return await self._commits.in_thread(work)

    async def close(self) -> None:
        """Writes and syncs the waiting transactions and closes the file; `failure` holds an error on the way."""
        await self._commits.drain()
        self._closing.set()
        if self._syncing is not None:
            await self._syncing
        try:
            with self._as_stage_errors():
                await self._commits.close(self._disconnect)
        finally:
            self._syncer.shutdown()

    async def _settle(self, jobs: Sequence[Job], written: _Written | Exception) -> Sequence[Any]:
        if isinstance(written, Exception):
            if isinstance(written, StageError):
                self.failure = written
            return [written] * len(jobs)
        self._unsynced = self._unsynced or written.has_changed
        if self._unsynced and (self._syncing is None or self._syncing.done()):
            self._syncing = asyncio.create_task(self._sync())
        return written.results

    async def _sync(self) -> None:
        while self._unsynced and self.failure is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), SYNC_EVERY_S)
            self._unsynced = False  # later writes may miss this flush
            try:
                with self._as_stage_errors():
                    await asyncio.get_running_loop().run_in_executor(self._syncer, self._sync_log)
            except StageError as error:
                self.failure = error

    @contextmanager
    def _as_stage_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StageError(
                "reason.ledger",
                f"the ledger of LLM answers {self._path} cannot be used: {error}.",
                fix="Free disk space, or check the file's permissions; the answers stored so far remain.",
            ) from error

    def _connect(self, schema: str) -> None:
        with file_lock(self._lock):  # SQLite's busy timeout does not cover the switch to WAL
            self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(schema)
            self._connection.execute("PRAGMA synchronous=NORMAL")  # SQLite syncs checkpoints; `_sync_log` syncs commits

    def _disconnect(self) -> None:
        with file_lock(self._lock):  # the last process to close removes the write-ahead log
            if self._connection is not None:
                self._connection.close()

    def _transact(self, jobs: Sequence[Job]) -> _Written:
        """Runs the jobs in one transaction; returns their results and whether they changed anything."""
        db = self._connection
        assert db is not None, "open comes first"
        before = db.total_changes
        with self._as_stage_errors(), transaction(db):
            results = [job(db) for job in jobs]
        return _Written(results, db.total_changes > before)

    def _sync_log(self) -> None:
        sync_path(self._path.with_name(f"{self._path.name}-wal"))
        sync_path(self._path.parent)
