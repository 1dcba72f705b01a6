"""Opens an embedded store's database with three connections: a writer and two readers, each in its own thread."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from isrf.contract.errors import ConfigError, StoreError
from isrf.contract.event_log import JOURNAL_VERSION, secret_of
from isrf.runtime.sqlite import transaction
from service.state.sqlite.files import StateFiles, unusable
from service.state.sqlite.item_entries import last_change
from service.state.sqlite.schema import (
    APPLICATION_ID,
    create_identity,
    create_later_tables,
    create_tables,
    meta,
    number_on,
)
from service.state.sqlite.soundness import BackgroundCheck
from service.state.sqlite.takeover import take_over
from service.state.sqlite.writer import BUSY_TIMEOUT_MS, Job, Writer

T = TypeVar("T")

PAGE_BYTES = 1024
"""Small, because an event changes a few rows on as many pages, and a commit writes whole pages."""
CHECKPOINT_PAGES = 32_000
"""Length of the write-ahead log (32 MB): a page that many events change is copied into the database only once."""
_LAYOUT = f"PRAGMA page_size = {PAGE_BYTES}", "PRAGMA auto_vacuum = INCREMENTAL"
"""Works only before the first table exists, or with VACUUM. It lets free pages go back to the disk."""


class Database:
    """The open database of an embedded store; a process opens it once.

    Attributes:
        secret: of the tombstones' names.
        store_id: of this store, for as long as it exists.
    """

    def __init__(self, folder: Path, *, erasure_key: str | None) -> None:
        """Locks and checks the files, and imports a journal of the previous version.

        Args:
            erasure_key: the operator's secret for tombstones, None for a secret in the store.

        Raises:
            StoreError: as `StateFiles` and `take_over` raise them.
            ConfigError: `config.erasure_key`.
        """
        self._files = StateFiles(folder)
        self.path = self._files.path
        opened: list[sqlite3.Connection] = []
        try:
            old = False
            if not self._files.is_new:
                opened.append(_connect(self.path, mode=self._files.mode_to_examine))
                old = self._files.examine(opened[0])
            db = _connect(self.path, mode="rw")
            opened.append(db)
            if self._files.is_new:
                for pragma in _LAYOUT:
                    db.execute(pragma)
            _set_up(db, self.path)
            with contextlib.suppress(sqlite3.Error):  # a full disk
                # The previous process may have ended before it removed erased data from the log.
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._prepare(db, erasure_key, old=old)
            for other in opened[:-1]:
                other.close()
            del opened[:-1]
            if old:
                _make_anew(db)
                _set_up(db, self.path)
            changes = int(meta(db, "changes") or 0)
            # Creates the write-ahead log. A write that changes no byte would leave it empty.
            db.execute("INSERT INTO probes (content) VALUES (zeroblob(1))")
            db.execute("DELETE FROM probes")
            self._files.opened(self.store_id, changes)
            self._look = None
            if not self._files.is_seen:
                self._look = BackgroundCheck(_connect(self.path, mode="ro"), self._files.found_damage)
            self._readers = [_Reader(_connect(self.path, mode="ro"), self.path) for _ in range(2)]
        except (sqlite3.Error, ValueError, OSError) as error:
            self._give_up(opened)
            raise unusable(self.path, error) from error
        except (ConfigError, StoreError):
            self._give_up(opened)
            raise
        self._writer = Writer(db, self._files, changes)
        self.write = self._writer.do
        self.read = self._readers[0].ask
        """Reads for requests."""
        self.read_behind = self._readers[1].ask
        """Reads for background work, which may take long."""

    def check(self) -> None:
        """Raises `StoreError` where the files are not the opened ones any more."""
        self._files.check()

    def ask_now(self, job: Job[T]) -> T:
        """Reads in the caller's thread; only at the start, before the first request."""
        return self._readers[0].ask_now(job)

    async def close(self) -> None:
        """Closes the connections after the work in progress."""
        if self._look is not None:
            await asyncio.to_thread(self._look.end)
        for reader in self._readers:
            await reader.close()
        await self._writer.close()
        self._files.release()

    def _prepare(self, db: sqlite3.Connection, erasure_key: str | None, *, old: bool) -> None:
        with transaction(db):
            if old or self._files.is_new:
                create_tables(db)
            if meta(db, "secret") is None and db.execute("SELECT 1 FROM tombstones").fetchone():
                raise unusable(self.path, sqlite3.DatabaseError("the secret of its erased users is gone"))
            create_later_tables(db)
            create_identity(db, erasure_key)
            self.secret = secret_of(str(meta(db, "secret")), erasure_key)
            self.store_id = str(meta(db, "id"))
            if old:
                take_over(db, self.secret)
            number_on(db, "journal")
            if last_change(db):
                number_on(db, "items")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {JOURNAL_VERSION}")

    def _give_up(self, opened: list[sqlite3.Connection]) -> None:
        # The read-only connection closes last, so that it leaves the write-ahead log as it is.
        for db in reversed(opened):
            db.close()
        self._files.release()


class OnDatabase:
    """A part of the embedded store.

    Attributes:
        database: the store's database.
    """

    def __init__(self, database: Database) -> None:
        self.database = database


class _Reader:
    """A read-only connection in a thread of its own."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state-reader")

    async def ask(self, job: Job[T]) -> T:
        """Runs a job in one read transaction, and returns its result."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.ask_now, job)

    def ask_now(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._db.execute("BEGIN")
            try:
                return job(self._db)
            finally:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise unusable(self._path, error) from error

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown(wait=True)


def _set_up(db: sqlite3.Connection, path: Path) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise unusable(path, sqlite3.OperationalError(f"the file system takes no write-ahead log ({mode})"))
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def _make_anew(db: sqlite3.Connection) -> None:
    """Rewrites a database of the previous version with the new layout; without disk space it stays as it is."""
    with contextlib.suppress(sqlite3.Error):
        db.execute("PRAGMA journal_mode = DELETE")
        for pragma in (*_LAYOUT, "VACUUM"):
            db.execute(pragma)


def _connect(path: Path, *, mode: str) -> sqlite3.Connection:
    # Opened in one thread and used by another, but never by two at the same time.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, check_same_thread=False, isolation_level=None)
    db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return db
