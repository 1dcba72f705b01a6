"""What a run has made so far: parts of rows in a folder beside the file, so that a second run goes on after them.

    lists.parquet.parts/
        run.json        the settings of the run, and when it began; written last: where it is, the folder is complete
        users.parquet   the users in the order of the rows
        00000.parquet   the rows of the first `PART_USERS` users, with a `PartReport`; and so on
        lock            held by the run

Every part is complete or missing, after a full disk or `kill -9` too.
"""

import errno
import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from isrf.contract.errors import StageError
from isrf.runtime.files import write_file
from offline.commands.recommend.list_client import UserList
from offline.runtime.locks import lock_or_refuse

PART_USERS = 2048
COLUMNS: dict[str, Any] = {
    "user_id": pl.String,
    "rank": pl.Int32,
    "item_id": pl.String,
    "score": pl.Float64,
    "source": pl.String,
    "release_id": pl.String,
}
"""Of the rows, one for each user and item: the score may be null, as `recently-viewed` has none."""
SETTINGS_FILE, USERS_FILE, LOCK_FILE = "run.json", "users.parquet", "lock"
_REPORT = "isrf.report"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TOLD_BY_POLARS = re.compile(r"\(os error (\d+)\)")
"""Polars names an error of a file in its message alone."""
NOT_SET = "none"
MOST_AGE_S = 24 * 3600.0
"""How long after its begin an unfinished run may go on: one file should not mix lists of different days."""
_STARTED_AT = "started_at"


class WarningCount(BaseModel):
    """How many users' answers had a warning, and what the first of them said."""

    model_config = ConfigDict(frozen=True)

    users: int
    message: str


class PartReport(BaseModel):
    """What a part, or all parts together, say beside the rows."""

    model_config = ConfigDict(frozen=True)

    users: int = 0
    """Users with at least one row."""
    left_out: int = 0
    """Users whom nobody knows, left out where no file names them."""
    empty: int = 0
    """Users whose list has no item."""
    failures: tuple[tuple[str, str], ...] = ()
    """User and what the service said."""
    warnings: dict[str, WarningCount] = {}
    """By code."""
    placement_versions: tuple[int, ...] = ()

    def plus(self, other: "PartReport") -> "PartReport":
        warnings = dict(self.warnings)
        for code, more in other.warnings.items():
            before = warnings.get(code)
            warnings[code] = more if before is None else before.model_copy(update={"users": before.users + more.users})
        return PartReport(
            users=self.users + other.users,
            left_out=self.left_out + other.left_out,
            empty=self.empty + other.empty,
            failures=self.failures + other.failures,
            warnings=warnings,
            placement_versions=tuple(sorted({*self.placement_versions, *other.placement_versions})),
        )


class ListParts:
    """The parts of one run.

    Attributes:
        users: all users of the run, in order.
        settings: what the lists depend on.
    """

    def __init__(self, folder: Path, users: pl.Series, settings: Mapping[str, Any]) -> None:
        self._folder, self.users, self.settings = folder, users, settings
        self.num_parts = -(-len(users) // PART_USERS)
        made = 0
        while made < self.num_parts and self._path(made).exists():
            made += 1
        self._made = made

    @property
    def num_users_done(self) -> int:
        return min(self._made * PART_USERS, len(self.users))

    @property
    def files(self) -> list[Path]:
        """The parts that are made, in order."""
        return [self._path(number) for number in range(self._made)]

    def add(self, lists: Sequence[UserList], *, keep_unknown: bool) -> None:
        """Writes the next part, from the lists of its users in their order.

        Args:
            keep_unknown: whether users whom nobody knows get their list of popular items, or none.

        Raises:
            StageError: `recommend.no_space`.
        """
        rows, report = rows_of(lists, keep_unknown=keep_unknown)
        content = io.BytesIO()
        rows.write_parquet(content, metadata={_REPORT: report.model_dump_json()})
        with full_disk_refused(self._folder):
            write_file(self._path(self._made), content.getvalue())
        self._made += 1

    def report(self) -> PartReport:
        """Of all parts that are made."""
        total = PartReport()
        for file in self.files:
            total = total.plus(PartReport.model_validate_json(pl.read_parquet_metadata(file)[_REPORT]))
        return total

    def _path(self, number: int) -> Path:
        return _path_of(self._folder, number)


def rows_of(lists: Sequence[UserList], *, keep_unknown: bool) -> tuple[pl.DataFrame, PartReport]:
    """The rows of a part (`COLUMNS`), and its report."""
    rows: list[tuple[Any, ...]] = []
    counts = {"users": 0, "left_out": 0, "empty": 0}
    warnings: dict[str, WarningCount] = {}
    versions: set[int] = set()
    for one in lists:
        if one.failure:
            continue
        if one.is_unknown and not keep_unknown:
            counts["left_out"] += 1
            continue
        counts["users" if one.items else "empty"] += 1
        versions |= {version} if (version := one.meta.get("placement_version")) is not None else set()
        for warning in {str(one["code"]): one for one in one.warnings}.values():
            code, before = str(warning["code"]), warnings.get(str(warning["code"]))
            message = str(warning["message"]) if before is None else before.message
            warnings[code] = WarningCount(users=1 + (0 if before is None else before.users), message=message)
        release_id = one.meta["release_id"]
        rows += [
            (one.user_id, item["rank"], item["item_id"], item["score"], item["source"], release_id)
            for item in one.items
        ]
    report = PartReport(
        **counts,
        failures=tuple((one.user_id, one.failure) for one in lists if one.failure),
        warnings=warnings,
        placement_versions=tuple(sorted(versions)),
    )
    return pl.DataFrame(rows, schema=COLUMNS, orient="row"), report


@contextmanager
def lock_parts(out: Path) -> Iterator[Path]:
    """Holds the folder of a file's parts while the context is open, and removes it at the end where it has no part.

    Raises:
        StageError: `recommend.locked`, another run holds it.
    """
    folder = out.with_name(f"{out.name}.parts")
    folder.mkdir(mode=0o700, exist_ok=True)
    refusal = StageError(
        "recommend.locked",
        f"another run makes {out} now.",
        fix="Wait for its end, or give another --out.",
    )
    with lock_or_refuse(folder / LOCK_FILE, refusal):
        try:
            yield folder
        finally:
            if folder.is_dir() and not _path_of(folder, 0).exists():
                remove_parts(folder)


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuses to go on with an unfinished run that had other settings, or began more than `MOST_AGE_S` ago.

    Raises:
        StageError: `recommend.other_options`, `recommend.old_parts`.
    """
    stored = _stored(folder)
    differing = [name for name in settings if stored is not None and stored.get(name) != settings[name]]
    if stored is not None and differing:
        said = "; ".join(f"{name} was {_text(stored.get(name))} and is {_text(settings[name])}" for name in differing)
        raise StageError(
            "recommend.other_options",
            f"{folder} holds the lists of an unfinished run with other options: {said}.",
            fix="Run the command with its options to go on, or add --restart to begin anew.",
        )
    started_at = 0.0 if stored is None else float(stored.get(_STARTED_AT, 0.0))
    if stored is not None and time.time() - started_at > MOST_AGE_S:
        began = datetime.fromtimestamp(started_at, UTC).isoformat(timespec="seconds")
        raise StageError(
            "recommend.old_parts",
            f"{folder} holds the lists of an unfinished run that began at {began}, more than "
            f"{MOST_AGE_S / 3600:g} hours ago; users have done more since, and some may be erased.",
            fix="Add --restart to begin anew.",
        )


def open_parts(folder: Path, settings: Mapping[str, Any], find_users: Callable[[], pl.Series]) -> ListParts:
    """Opens what an earlier run with the same settings has left, or begins.

    Args:
        folder: as `lock_parts` gives it.
        settings: what the lists depend on.
        find_users: the users of a run that begins.

    Raises:
        StageError: `recommend.other_options`, `recommend.old_parts`, `recommend.no_space`.
    """
    check_settings(folder, settings)
    if _stored(folder) is not None:
        return ListParts(folder, pl.read_parquet(folder / USERS_FILE)["user_id"], settings)
    clear_parts(folder)
    users = find_users()
    content = io.BytesIO()
    users.alias("user_id").to_frame().write_parquet(content)
    with full_disk_refused(folder):
        write_file(folder / USERS_FILE, content.getvalue())
        write_file(folder / SETTINGS_FILE, json.dumps({**settings, _STARTED_AT: time.time()}, indent=2).encode())
    return ListParts(folder, users, settings)


def clear_parts(folder: Path) -> None:
    """Removes what an earlier run has left; the settings first, as they say that the rest is complete."""
    (folder / SETTINGS_FILE).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name != LOCK_FILE:
            path.unlink()


def remove_parts(folder: Path) -> None:
    """Removes the folder; while its lock is held, so that no other run works in it."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def full_disk_refused(folder: Path) -> Iterator[None]:
    """Turns a full disk into `StageError` (`recommend.no_space`)."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        told = _TOLD_BY_POLARS.search(str(error))
        number = getattr(error, "errno", None) or (int(told[1]) if told else 0)
        if number not in _FULL:
            raise
        raise StageError(
            "recommend.no_space",
            f"the disk of {folder} is full ({os.strerror(number)}); what was written before is complete.",
            fix="Free disk space and run the same command again: it goes on after the users that are done.",
        ) from error


def _path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.parquet"


def _stored(folder: Path) -> dict[str, Any] | None:
    """The settings of an unfinished run; None where it made no part, so that nothing is lost with it."""
    if not _path_of(folder, 0).exists():
        return None
    try:
        found = json.loads((folder / SETTINGS_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: object) -> str:
    return NOT_SET if value is None else str(value)
