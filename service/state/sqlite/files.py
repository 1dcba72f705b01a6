"""Locks the files of an embedded store for one process, and notices when a file or a part of it is lost.

    journal.sqlite3 (-wal, -shm)   the database
    lock                           locked by the running process; contains its pid
    identity.json                  id of the store and its number of changes, written after every commit

The process locks `lock` and the database file itself, so that deleting `lock` does not let another process in. A
database with fewer changes than `identity.json` has lost some: its write-ahead log is missing, cut or damaged.
"""

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

import structlog

from isrf.contract.errors import StoreError
from isrf.contract.event_log import JOURNAL_FILE, JOURNAL_VERSION
from isrf.runtime.files import sync_path, write_file
from service.state.sqlite import soundness
from service.state.sqlite.schema import APPLICATION_ID, TABLES, meta
from service.state.sqlite.soundness import find_damage

LOCK_FILE = "lock"
IDENTITY_FILE = "identity.json"
SUFFIXES = ("", "-wal", "-shm")
_log = structlog.get_logger("service")

_OLD_TABLES = {"journal", "tombstones", "meta"}


class StoreIdentity(NamedTuple):
    """The content of `identity.json`."""

    store_id: str
    changes: int


class StateFiles:
    """The locked files of a store, from construction to `release`.

    Attributes:
        path: of the database.
        is_new: whether there is no database yet.
        is_seen: whether all pages have been checked (`service.state.sqlite.soundness`).
        mode_to_examine: SQLite's mode in which an existing database is opened first.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `StoreError`: `store.locked`, `store.journal_lost`, `store.journal_unusable`."""
        # Follows a link: the log and the index are beside the real database.
        self.folder, self.path = folder, (folder / JOURNAL_FILE).resolve()
        self._lock = self._database = self._identity = -1
        self._store_id = ""
        self._inodes: dict[Path, int] = {}
        self._least: dict[Path, int] = {}
        self._damage: StoreError | None = None
        self.is_seen = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
            self._take(self._lock)
            self.known = self._read_identity()
            self._used_before = self.known is not None or bool(os.pread(self._lock, 20, 0).strip())
            self.is_new = not _size(self.path)
            if self.is_new and (self._used_before or _size(self._beside("-wal"))):
                raise _lost(self.path, "is empty" if self.path.exists() else "is not there")
            # Only a writer can finish what a rollback journal left half-way.
            self.mode_to_examine = "rw" if _size(self._beside("-journal")) else "ro"
            self._database = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            self._take(self._database)
            self.path.chmod(0o600)
        except OSError as error:
            self.release()
            raise unusable(self.path, error) from error
        except BaseException:
            self.release()
            raise

    def examine(self, db: sqlite3.Connection) -> bool:
        """Checks an existing database before anything is written to it.

        Args:
            db: read-only, so that closing it leaves a write-ahead log as it is.

        Returns:
            Whether it is a journal of the previous version.

        Raises:
            StoreError: `store.journal_newer`, `store.journal_foreign`, `store.journal_lost`, `store.journal_unusable`.
        """
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if application == 0 and not tables:
            if self._used_before:
                raise _lost(self.path, "has no tables")
            self.is_new = True  # a first start ended before it wrote anything
            return False
        old = application == 0 and version == 0 and tables >= _OLD_TABLES
        if not old and application != APPLICATION_ID:
            raise StoreError(
                "store.journal_foreign",
                f"{self.path} is a database of another program (application_id {application}).",
                fix="Choose another ISRF_STATE_DIR, or move that file away.",
            )
        if version > JOURNAL_VERSION:
            raise StoreError(
                "store.journal_newer",
                f"{self.path} was written by a newer version of the service (schema {version}; this one reads up to "
                f"{JOURNAL_VERSION}).",
                fix="Start the newer version again, or choose another ISRF_STATE_DIR.",
            )
        if not old and TABLES - tables:
            raise unusable(self.path, sqlite3.DatabaseError(f"there is no table {min(TABLES - tables)}"))
        damage = find_damage(db, soundness.FIRST_S)
        if damage:
            raise unusable(self.path, sqlite3.DatabaseError(damage))
        self.is_seen = damage is not None
        if self.known is not None:
            store_id, changes = meta(db, "id"), int(meta(db, "changes") or 0)
            if store_id != self.known.store_id:
                raise _lost(self.path, f"is another store's (id {store_id}, not {self.known.store_id})")
            if changes < self.known.changes:
                raise _lost(self.path, f"has {changes} of {self.known.changes} changes")
        return old

    def opened(self, store_id: str, changes: int) -> None:
        """To be called once the database is ready: from here on its files must not move."""
        self._store_id = store_id
        self._write_identity(changes)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        sync_path(self.folder)
        paths = [self._beside(suffix) for suffix in SUFFIXES]
        self._inodes = {path: path.stat().st_ino for path in paths}
        self._inodes[self.path] = os.fstat(self._database).st_ino
        self._least = dict.fromkeys(paths, 1)

    def check(self) -> None:
        """Raises `StoreError`: `store.journal_moved` where a file was replaced or cut since it was opened, and
        `store.journal_unusable` where damage was found."""
        if self._damage is not None:
            raise self._damage
        for path, inode in self._inodes.items():
            try:
                found = path.stat()
            except OSError:
                raise _moved(path, "deleted") from None
            if found.st_ino != inode:
                raise _moved(path, "replaced")
            # Compares sizes: `may_shrink` is called before the log is emptied.
            if found.st_size < self._least[path]:
                raise _moved(path, "cut")

    def may_shrink(self) -> None:
        """To be called by the writer before it empties the write-ahead log."""
        self._least[self._beside("-wal")] = 0

    def found_damage(self, what: str) -> None:
        """Stops all further writes because of damage; any thread may call it."""
        self._damage = unusable(self.path, sqlite3.DatabaseError(what))
        _log.error("store_damaged", code=self._damage.code, message=self._damage.message, fix=self._damage.fix)

    def note(self, changes: int) -> None:
        """Writes the number of changes on disk. It is not synced: after a power failure it may be too low."""
        log = self._beside("-wal")
        with contextlib.suppress(OSError):
            # From here on the log only grows, until `may_shrink`.
            self._least[log] = log.stat().st_size
            if os.fstat(self._identity).st_nlink:
                os.pwrite(self._identity, self._line(changes), 0)
            else:  # the file was deleted
                self._write_identity(changes)

    def read(self, at: int, size: int) -> bytes:
        """Reads bytes of the database. Opening and closing it once more would end SQLite's locks on it."""
        return os.pread(self._database, size, at)

    def release(self) -> None:
        """Releases the locks; only after the last connection is closed, as SQLite's own locks end with them."""
        for handle in (self._identity, self._database, self._lock):
            if handle >= 0:
                os.close(handle)
        self._lock = self._database = self._identity = -1

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _write_identity(self, changes: int) -> None:
        path = self.folder / IDENTITY_FILE
        write_file(path, self._line(changes))
        handle = os.open(path, os.O_RDWR)
        if self._identity >= 0:
            os.close(self._identity)
        self._identity = handle

    def _line(self, changes: int) -> bytes:
        return f"{json.dumps({'id': self._store_id, 'changes': changes}):<80}\n".encode()

    def _read_identity(self) -> StoreIdentity | None:
        try:
            fields = json.loads((self.folder / IDENTITY_FILE).read_bytes())
            return StoreIdentity(str(fields["id"]), int(fields["changes"]))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise StoreError(
                "store.journal_unusable",
                f"{self.folder / IDENTITY_FILE} cannot be read: {error}.",
                fix=f"If {JOURNAL_FILE} is complete, delete {IDENTITY_FILE}: the service writes a new one.",
            ) from None

    def _take(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            raise StoreError(
                "store.locked",
                f"{self.folder} is held by another service process (pid {owner}); the embedded store serves only one.",
                fix="Stop that process, choose another ISRF_STATE_DIR, or set REDIS_URL to serve from several "
                "processes.",
            ) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _moved(path: Path, what: str) -> StoreError:
    return StoreError(
        "store.journal_moved",
        f"{path} was {what} while the service ran; the service does not write any more.",
        fix="Put the file back, or stop the service, restore the folder from a backup and start it again.",
    )


def _lost(path: Path, what: str) -> StoreError:
    return StoreError(
        "store.journal_lost",
        f"the database {path} {what}: accepted events would be lost.",
        fix=f"Restore {path.name} and {path.name}-wal together. To continue with the rest, delete {IDENTITY_FILE} "
        f"and {LOCK_FILE} in that folder; to start with an empty store, choose an empty ISRF_STATE_DIR.",
    )


def unusable(path: Path, error: Exception) -> StoreError:
    """Returns the error for a database that cannot be opened or read."""
    full = "disk is full" in str(error) or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
    return StoreError(
        "store.journal_unusable",
        f"the journal {path} cannot be opened or read: {error}.",
        fix=f"Free space on the disk with {path.name}, and start again: nothing is lost."
        if full
        else "ISRF_STATE_DIR must be a writable folder on a local disk; restore a damaged file from a backup.",
    )


def unwritable(path: Path, error: Exception) -> StoreError:
    """Returns the error for a transaction that did not reach the disk."""
    locked = "locked" in str(error)
    return StoreError(
        "store.journal_unwritable",
        f"the event journal cannot be written now ({type(error).__name__}: {error}).",
        fix=f"End the program that holds a transaction on {path.name}, and send the request again."
        if locked
        else f"Free space on the disk with {path.name} and send the request again.",
    )
