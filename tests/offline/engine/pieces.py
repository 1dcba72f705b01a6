"""Work for an engine, in a module that workers can import."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import DataError


class Table:
    """Something large that is opened once in a process; each opening leaves a file."""

    def __init__(self, rows: NDArray[np.int64], opened: Path) -> None:
        self.rows, self.opened = rows, opened

    def __getstate__(self) -> tuple[NDArray[np.int64], Path]:
        return self.rows, self.opened

    def __setstate__(self, state: tuple[NDArray[np.int64], Path]) -> None:
        self.rows, self.opened = state
        (self.opened / f"{os.getpid()}-{time.monotonic_ns()}").touch()


class Ran(NamedTuple):
    """A piece's result, and the process that it ran in."""

    value: int
    process: int


def add_up(row: int, table: Table) -> Ran:
    return Ran(int(table.rows[row:].sum()), os.getpid())


def double(number: int, runs: Path) -> int:
    """Leaves a file for every run. The first run of number 3 takes its own process with it."""
    with contextlib.suppress(FileExistsError):
        (runs / f"{number}-first").touch(exist_ok=False)
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    (runs / f"{number}-{time.monotonic_ns()}").touch()
    return 2 * number


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(row: int) -> None:
    raise DataError("data.refused", f"row {row} is bad.", fix="Mend it.")


def fail(_: int) -> None:
    raise ZeroDivisionError("by zero")


def slowly(number: int) -> int:
    time.sleep(0.5)
    return number
