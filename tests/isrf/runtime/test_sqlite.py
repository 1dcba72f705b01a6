"""What a group commit promises: in order, together, one thread, and everybody is told."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from isrf.runtime.sqlite import GroupCommit, transaction

Job = Callable[[sqlite3.Connection], Any]


class Numbers:
    """A table of numbers behind a group commit that notes what it does."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        self.sizes: list[int] = []
        self.threads: set[str] = set()
        self.under_way = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.commits: GroupCommit[Job, list[Any]] = GroupCommit(self._write, self._settle, thread_name="numbers")

    def _write(self, jobs: Sequence[Job]) -> list[Any]:
        self.under_way.set()
        self.may_go_on.wait()
        self.sizes.append(len(jobs))
        self.threads.add(threading.current_thread().name)
        with transaction(self.db):
            return [job(self.db) for job in jobs]

    async def _settle(self, jobs: Sequence[Job], written: list[Any] | Exception) -> Sequence[Any]:
        return [written] * len(jobs) if isinstance(written, Exception) else written

    def insert(self, number: int) -> asyncio.Future[Any]:
        return self.commits.do(lambda db: db.execute("INSERT INTO numbers VALUES (?)", (number,)).lastrowid)

    def all(self) -> list[int]:
        return [number for (number,) in self.db.execute("SELECT number FROM numbers ORDER BY number")]


async def test_who_waits_meanwhile_shares_the_next_transaction(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path / "numbers.sqlite3")
    numbers.may_go_on.clear()
    first = numbers.insert(0)
    await asyncio.to_thread(numbers.under_way.wait)
    others = [numbers.insert(number) for number in range(1, 10)]
    numbers.may_go_on.set()
    assert await asyncio.gather(first, *others) == list(range(10))
    assert numbers.sizes == [1, 9]
    assert len(numbers.threads) == 1
    await numbers.commits.close(numbers.db.close)


async def test_what_fails_is_told_to_all_and_undone(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path / "numbers.sqlite3")
    await numbers.insert(1)
    told = await asyncio.gather(numbers.insert(2), numbers.insert(1), return_exceptions=True)
    assert [type(one) for one in told] == [sqlite3.IntegrityError] * 2
    assert await numbers.insert(3) == 3
    assert numbers.all() == [1, 3]
    await numbers.commits.close(numbers.db.close)


async def test_a_caller_that_leaves_takes_nobody_along(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path / "numbers.sqlite3")
    leaving, staying = numbers.insert(1), numbers.insert(2)
    leaving.cancel()
    assert await staying == 2
    assert numbers.all() == [1, 2], "what was asked for is done"
    await numbers.commits.close(numbers.db.close)


async def test_closing_does_first_what_waits(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path / "numbers.sqlite3")
    asked = [numbers.insert(number) for number in range(3)]
    left: list[int] = []
    await numbers.commits.close(lambda: left.extend(numbers.all()))
    assert left == [0, 1, 2]
    assert all(one.done() for one in asked)
    numbers.db.close()


async def test_an_error_while_settling_leaves_nobody_waiting() -> None:
    async def broken(_jobs: Sequence[str], _written: str | Exception) -> Sequence[Any]:
        raise KeyError("settling")

    commits: GroupCommit[str, str] = GroupCommit(lambda jobs: jobs[0], broken, thread_name="broken")
    with pytest.raises(KeyError):
        await asyncio.wait_for(commits.do("a job"), 10.0)
    await commits.close(lambda: None)
