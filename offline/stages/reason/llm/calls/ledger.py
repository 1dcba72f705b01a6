"""The ledger: stores every usable answer under the hash of its call, so that no call is paid for twice.

It is an SQLite file in WAL mode. All runs of a shop share it, also at the same time. A run *claims* a call before it
makes it. If a run dies, its claims on the same machine are free at once (nobody holds its lock file any more), and
elsewhere after `LEASE_S`. The ledger writes an answer before the same run makes a later call, so that `kill -9` loses
none. It syncs the answer to disk moments later, and always before the run returns. It knows completions, and nothing
of prompts or schemas.
"""

import asyncio
import fcntl
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from isrf.contract.errors import StageError
from offline.stages.reason.llm.calls.client import Completion
from offline.stages.reason.llm.calls.transactions import BUSY_TIMEOUT_S, Transactions

LEASE_S = 3600.0
POLL_S = 0.2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, step TEXT NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL, refusal TEXT NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, latency_s REAL NOT NULL, created_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, run TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
"""


class LedgerEntry(NamedTuple):
    """An answer and whether this run paid for it."""

    completion: Completion
    paid: bool


class _Claimed:
    """The run has claimed the call and may make it."""


class _Taken:
    """Another run is making the call."""


class Ledger:
    """Stores answers for one run. Call `start` first and `close` last; use it from one event loop."""

    def __init__(self, path: Path, *, model: str) -> None:
        self._model = model
        self._runs = path.with_name(f"{path.name}.runs")
        self._transactions = Transactions(path, lock=self._runs / "opening")
        self._in_flight: dict[str, asyncio.Future[Completion]] = {}
        self._run = uuid.uuid4().hex
        self._lock = ExitStack()

    async def start(self) -> None:
        """Opens the file; raises `StageError` (`reason.ledger`) if it cannot be used."""
        try:
            await self._transactions.in_thread(self._register)
            await self._transactions.open(_SCHEMA)
            await self._transactions.do(self._sweep)
        except StageError:
            with suppress(StageError):
                await self._leave()
            raise

    async def obtain(self, key: str, step: str, ask: Callable[[], Awaitable[Completion]]) -> LedgerEntry:
        """Returns the stored answer, or calls `ask` and stores its answer.

        A new answer is written before this run makes a later call: its write is in the queue before the claim of that
        call, and `obtain` waits for the claim. Another `obtain` of the same key, in this run or another, waits for
        this one. An error of `ask` passes through and frees the key.
        """
        while key in self._in_flight:
            try:
                return LedgerEntry(await asyncio.shield(self._in_flight[key]), paid=False)
            except Exception:  # noqa: BLE001, S112 - the error belongs to the other caller; this one asks again
                continue
        answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = answer
        try:
            entry = await self._obtain(key, step, ask)
        except BaseException as error:
            answer.set_exception(error if isinstance(error, Exception) else RuntimeError("cancelled"))
            answer.exception()  # marks the error as seen: perhaps nobody waits for it
            raise
        else:
            answer.set_result(entry.completion)
            return entry
        finally:
            del self._in_flight[key]

    def forget(self, *keys: str) -> None:
        """Deletes unusable answers, so that a later run asks again; on disk by `close` at the latest."""
        self._transactions.do(lambda db: db.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in keys]))

    async def close(self) -> None:
        """Frees this run's claims, waits until every answer is on disk, closes the file.

        Raises:
            StageError: `reason.ledger` if an answer could not be stored.
        """
        try:
            await self._transactions.do(lambda db: db.execute("DELETE FROM claims WHERE run = ?", (self._run,)))
        finally:
            await self._leave()
        if self._transactions.failure is not None:
            raise self._transactions.failure

    async def _leave(self) -> None:
        try:
            await self._transactions.close()
        finally:
            self._lock.close()

    async def _obtain(self, key: str, step: str, ask: Callable[[], Awaitable[Completion]]) -> LedgerEntry:
        while True:
            if self._transactions.failure is not None:
                raise self._transactions.failure  # an answer could not be stored: make no further call
            found = await self._transactions.do(lambda db: self._claim(db, key))
            if isinstance(found, Completion):
                return LedgerEntry(found, paid=False)
            if isinstance(found, _Claimed):
                break
            await asyncio.sleep(POLL_S)
            await self._transactions.do(self._sweep)
        try:
            completion = await ask()
        except BaseException:
            self._transactions.do(lambda db: db.execute("DELETE FROM claims WHERE key = ?", (key,)))
            raise
        self._transactions.do(lambda db: self._store(db, key, step, completion))
        return LedgerEntry(completion, paid=True)

    def _claim(self, db: sqlite3.Connection, key: str) -> Completion | _Claimed | _Taken:
        row = db.execute(
            "SELECT text, refusal, tokens_in, tokens_out, latency_s FROM answers WHERE key = ?", (key,)
        ).fetchone()
        if row is not None:
            return Completion(*row)
        now = time.time()
        claim = db.execute("SELECT run FROM claims WHERE key = ? AND expires_at > ?", (key, now)).fetchone()
        if claim is not None and claim[0] != self._run:
            return _Taken()
        db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (key, self._run, now + LEASE_S))
        return _Claimed()

    def _store(self, db: sqlite3.Connection, key: str, step: str, completion: Completion) -> None:
        text, refusal, tokens_in, tokens_out, latency_s = completion
        values = (key, step, self._model, text, refusal, tokens_in, tokens_out, latency_s, time.time())
        db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        db.execute("DELETE FROM claims WHERE key = ?", (key,))

    def _sweep(self, db: sqlite3.Connection) -> None:
        """Frees the claims of runs on this machine that have died."""
        for (run,) in db.execute("SELECT DISTINCT run FROM claims WHERE run != ?", (self._run,)).fetchall():
            path = self._lock_path(run)
            if _is_abandoned(path):
                db.execute("DELETE FROM claims WHERE run = ?", (run,))
                path.unlink(missing_ok=True)

    def _register(self) -> None:
        """Locks a file for as long as this process lives; the lock tells other runs that its claims are valid."""
        lock = self._lock_path(self._run)
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = self._lock.enter_context(lock.open("w"))
        self._lock.callback(lock.unlink, missing_ok=True)
        fcntl.flock(held, fcntl.LOCK_EX)

    def _lock_path(self, run: str) -> Path:
        return self._runs / f"{run}.lock"


def _is_abandoned(path: Path) -> bool:
    """Returns whether the lock file exists and nobody holds it; a missing file means an ended or a remote run."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def forget_user_answers(path: Path, *, before: float) -> int:
    """Deletes the answers about users from before a moment (seconds since 1970); returns the number of answers.

    For erasure: call it once the person's events are out of the data. Answers about users from later stay; the next
    run asks for the others again.
    """
    if not path.exists():
        return 0
    with sqlite3.connect(path, timeout=BUSY_TIMEOUT_S) as db:
        db.execute("PRAGMA secure_delete=ON")
        cursor = db.execute("DELETE FROM answers WHERE step LIKE 'user_%' AND created_at < ?", (before,))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return cursor.rowcount
