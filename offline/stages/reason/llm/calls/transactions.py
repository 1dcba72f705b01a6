"""SQLite transactions by the hundred a second: one thread does them all, and what waits meanwhile goes into one.

A transaction is *written* once its future is done: a killed process has lost nothing of it, and other processes see it.
It is *synced*, safe from a power cut too, `SYNC_EVERY_S` later and by `close` at the latest: another thread flushes the
write-ahead log meanwhile, because a flush takes as long as many transactions, and hundreds of calls would wait for it.
It knows nothing of what the transactions are about.
"""

import asyncio
import fcntl
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from isrf.contract.errors import StageError
from isrf.runtime.files import sync_path

BUSY_TIMEOUT_S = 60.0
SYNC_EVERY_S = 0.05
"""What a power cut may cost; a killed process costs nothing."""

Job = Callable[[sqlite3.Connection], Any]
ResultT = TypeVar("ResultT")


class Transactions:
    """On one file, for one event loop.

    Attributes:
        failure: why something could not be written or synced; nothing should be paid for any more.
    """

    def __init__(self, path: Path, *, turn: Path) -> None:
        """`turn` is a file that whoever opens or closes `path` locks."""
        self.failure: StageError | None = None
        self._path = path
        self._turn = turn
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._syncer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-sync")
        self._waiting: list[tuple[Job, asyncio.Future[Any]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._unsynced = False
        self._connection: sqlite3.Connection | None = None

    async def open(self, schema: str) -> None:
        """Opens the file; `StageError` (`reason.ledger`) where it cannot be used."""
        await self.in_thread(partial(self._connect, schema))

    def do(self, job: Job) -> asyncio.Future[Any]:
        """Puts `job` into the next transaction; its result once that is written, `StageError` if it cannot be."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # not every write is waited for
        self._waiting.append((job, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return done

    async def in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        """`work` between two transactions."""
        return await self._run(self._writer, work)

    async def close(self) -> None:
        """Writes and syncs what waits, closes the file; a failure on the way is in `failure`."""
        while self._flushing is not None and not self._flushing.done():
            await asyncio.wait([self._flushing])
        self._closing.set()
        if self._syncing is not None:
            await self._syncing
        try:
            await self.in_thread(self._disconnect)
        finally:
            self._writer.shutdown()
            self._syncer.shutdown()

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                results, has_changed = await self.in_thread(partial(self._transact, [job for job, _ in batch]))
            except StageError as error:
                self.failure = error
                for _, done in batch:
                    if not done.cancelled():
                        done.set_exception(error)
                continue
            self._unsynced = self._unsynced or has_changed
            if self._unsynced and (self._syncing is None or self._syncing.done()):
                self._syncing = asyncio.create_task(self._sync())
            for (_, done), result in zip(batch, results, strict=True):
                if not done.cancelled():
                    done.set_result(result)

    async def _sync(self) -> None:
        while self._unsynced and self.failure is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), SYNC_EVERY_S)
            self._unsynced = False  # what is written from here on may miss this flush
            try:
                await self._run(self._syncer, self._sync_log)
            except StageError as error:
                self.failure = error

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], ResultT]) -> ResultT:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        except (sqlite3.Error, OSError) as error:
            raise StageError(
                "reason.ledger",
                f"the ledger of LLM answers {self._path} cannot be used: {error}.",
                fix="Free some space, or check the file's rights; answers stored so far are kept.",
            ) from error

    def _connect(self, schema: str) -> None:
        with self._turn.open("w") as turn:  # SQLite's busy timeout does not cover the switch to WAL
            fcntl.flock(turn, fcntl.LOCK_EX)
            self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(schema)
            self._connection.execute("PRAGMA synchronous=NORMAL")  # checkpoints alone; commits are `_sync_log`'s

    def _disconnect(self) -> None:
        with self._turn.open("w") as turn:  # the last one to leave puts the log away
            fcntl.flock(turn, fcntl.LOCK_EX)
            if self._connection is not None:
                self._connection.close()

    def _transact(self, jobs: list[Job]) -> tuple[list[Any], bool]:
        """The jobs' results, and whether they changed anything."""
        db = self._connection
        assert db is not None, "open comes first"
        before = db.total_changes
        db.execute("BEGIN IMMEDIATE")
        try:
            results = [job(db) for job in jobs]
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return results, db.total_changes > before

    def _sync_log(self) -> None:
        sync_path(self._path.with_name(f"{self._path.name}-wal"))
        sync_path(self._path.parent)
