"""The embedded store's memory: one SQLite table of accepted events, synced to disk before anyone is told.

One writer thread; whoever waits while a commit is on its way shares the next one. A lock on a file beside it keeps a
second process out for as long as the first one lives, however it dies. It knows nothing of what events do.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from isrf.errors import ConfigError, StoreError
from isrf.stream import JOURNAL_FILE, Tombstone, bucket_of, new_secret_record, secret_of, tombstone_name

LOCK_FILE = "lock"

Job = Callable[[sqlite3.Connection], Any]


class Journal:
    """Opened once per process; `append` may be called by any number of tasks of one event loop.

    Attributes:
        secret: of the tombstones.
        secret_record: how the file remembers it.
        failure: why the last write did not reach the disk, None if it did.
    """

    def __init__(self, folder: Path, *, erasure_key: str | None = None) -> None:
        """`erasure_key` is the operator's secret of tombstones, None for one that the journal keeps.

        Raises:
            StoreError: `store.locked` (another process), `store.journal_unusable`.
            ConfigError: `config.erasure_key`.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / LOCK_FILE)
        except OSError as error:
            raise _unusable(folder, error) from error
        self.path = folder / JOURNAL_FILE
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._waiting: list[tuple[Job, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self.failure: StoreError | None = None
        try:
            self._db = _open(self.path)
            self.secret_record = _secret_record(self._db, erasure_key)
            self.secret = secret_of(self.secret_record, erasure_key)
        except (sqlite3.Error, OSError) as error:
            self._release()
            raise _unusable(self.path, error) from error
        except ConfigError:
            self._db.close()
            self._release()
            raise

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Every (seq, payload) in the order in which they were written."""
        try:
            yield from self._db.execute("SELECT seq, payload FROM journal ORDER BY seq")
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error

    async def append(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Returns when the rows are on disk, all of them; `StoreError` if none is."""
        taken = list(rows)
        await self._do(lambda db: _insert(db, taken))

    async def erase(self, user_id: str) -> None:
        """Deletes a user's rows, bytes included, and notes under a keyed hash that they are gone."""
        name = tombstone_name(self.secret, user_id)
        await self._do(lambda db: _erase(db, user_id, name))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._checkpoint)

    async def forget_rows(self, seqs: Sequence[int]) -> None:
        """Deletes rows that state can do without."""
        doomed = [(seq,) for seq in seqs]
        await self._do(lambda db: db.executemany("DELETE FROM journal WHERE seq = ?", doomed))

    def items(self) -> list[tuple[str, bytes, bool]]:
        """(item_id, entry, added) of every item of which something was said, in the order of its last change."""
        rows = self._db.execute("SELECT item_id, entry, added FROM items ORDER BY seq").fetchall()
        return [(item_id, entry, bool(added)) for item_id, entry, added in rows]

    async def keep_items(self, rows: Sequence[tuple[str, bytes, bool]]) -> None:
        """Returns when the entries (item_id, entry, added) are on disk, in place of the items' entries before."""
        taken = list(rows)
        query = "INSERT OR REPLACE INTO items (item_id, entry, added) VALUES (?, ?, ?)"
        await self._do(lambda db: db.executemany(query, taken))

    async def forget_items(self, item_ids: Sequence[str]) -> None:
        """Deletes items' entries."""
        doomed = [(item_id,) for item_id in item_ids]
        await self._do(lambda db: db.executemany("DELETE FROM items WHERE item_id = ?", doomed))

    async def exported(self) -> int:
        """The highest seq that the offline job has taken in."""
        rows = await self._query("SELECT value FROM meta WHERE name = 'exported'")
        return int(rows[0][0]) if rows else 0

    async def page(self, after: int, until: int, count: int) -> list[tuple[int, bytes]]:
        """The first rows (seq, payload) after one seq and up to another."""
        query = "SELECT seq, payload FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        return await self._query(query, after, until, count)

    async def _query(self, query: str, *values: int) -> list[Any]:
        def ask() -> list[Any]:
            return self._db.execute(query, values).fetchall()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, ask)
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error

    def tombstones(self) -> list[tuple[str, int, str]]:
        """(name, bucket, `isrf.stream.Tombstone.text`) of everyone who was erased."""
        return self._db.execute("SELECT name, bucket, text FROM tombstones").fetchall()

    async def close(self) -> None:
        while self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher])
        self._thread.shutdown(wait=True)
        self._db.close()
        self._release()

    async def _do(self, job: Job) -> None:
        """Puts a change into the next transaction; changes take effect, and their callers go on, in this order."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        # A caller that goes away must not take the others' commit with it.
        await asyncio.shield(done)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            failure = await loop.run_in_executor(self._thread, self._write, [job for job, _ in batch])
            for _, done in batch:
                if done.done():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)

    def _write(self, jobs: Sequence[Job]) -> StoreError | None:
        self.failure = None
        try:
            with self._db:
                for job in jobs:
                    job(self._db)
        except sqlite3.Error as error:
            self.failure = _unwritable(self.path, error)
        return self.failure

    def _checkpoint(self) -> None:
        # Deleted bytes are zeroed in the file's pages; older pages in the write-ahead log go with it.
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _release(self) -> None:
        self._lock.close()


def _insert(db: sqlite3.Connection, rows: Sequence[tuple[str, bytes]]) -> None:
    db.executemany("INSERT INTO journal (user_id, payload) VALUES (?, ?)", rows)


def _erase(db: sqlite3.Connection, user_id: str, name: str) -> None:
    (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'").fetchone()
    tombstone = Tombstone(secrets.token_hex(8), (0, last), time.time())
    db.execute("DELETE FROM journal WHERE user_id = ?", (user_id,))
    values = (name, bucket_of(user_id), tombstone.text())
    db.execute("INSERT OR REPLACE INTO tombstones (name, bucket, text) VALUES (?, ?, ?)", values)


def _open(path: Path) -> sqlite3.Connection:
    # Opened here, written by the one writer thread: never by two at once.
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        with db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS journal "
                "(seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, payload BLOB NOT NULL)"
            )
            db.execute(
                "CREATE TABLE IF NOT EXISTS tombstones "
                "(name TEXT PRIMARY KEY, bucket INTEGER NOT NULL, text TEXT NOT NULL) WITHOUT ROWID"
            )
            db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
            db.execute("CREATE INDEX IF NOT EXISTS journal_user ON journal (user_id)")
            # A change gets another seq, never one that was used before.
            db.execute(
                "CREATE TABLE IF NOT EXISTS items (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
                "item_id TEXT NOT NULL UNIQUE, entry BLOB NOT NULL, added INTEGER NOT NULL)"
            )
    except BaseException:
        db.close()
        raise
    return db


def _secret_record(db: sqlite3.Connection, given: str | None) -> str:
    with db:
        for name, value in (("secret", new_secret_record(given)), ("id", secrets.token_hex(8))):
            db.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", (name, value))
        (record,) = db.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()
    return str(record)


def _lock(path: Path) -> IO[str]:
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        owner = handle.read().strip() or "unknown"
        handle.close()
        raise StoreError(
            "store.locked",
            f"{path.parent} is held by another service process (pid {owner}); the embedded store serves one.",
            fix="Stop that process, choose another ISRF_STATE_DIR, or set REDIS_URL to serve from several processes.",
        ) from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        "store.journal_unusable",
        f"the journal {path} cannot be opened: {error}.",
        fix="ISRF_STATE_DIR must be a writable folder on a local disk; restore a damaged file from a backup.",
    )


def _unwritable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        "store.journal_unwritable",
        f"the event journal cannot be written now ({type(error).__name__}: {error}).",
        fix=f"Make room on the disk that holds {path.name} and send the request again.",
    )
