"""The shop's folder as something that changes in one step: a new interactions file, and what it was made from.

    1. `.isrf/interactions.part`   the new file, on disk
    2. `.isrf/pending.json`        how far it has read, on disk
    3. the part is renamed to be the interactions file       ← from here on it is done
    4. `.isrf/pending.json` is renamed to `.isrf/progress.json`

The catalogue file changes in one step too, and before: what is written there twice is the same.

Whoever finds `pending.json` knows by the part whether step 3 happened: there, it did not; gone, it did. The shop may
write its file anew between two runs; progress is about the store, and stays.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from isrf.contract.errors import DataError, StageError
from isrf.contract.event_log import stream_position
from isrf.runtime.files import move_into_place, sync_path, write_file
from offline.runtime.locks import lock_or_refuse
from offline.stages.ingest.files import find_file

OWN_DIR = ".isrf"
StreamPosition = tuple[int, int]


class ItemChangesCursor(NamedTuple):
    counting: str  # another one: the store was emptied
    last: int


class Progress(NamedTuple):
    """What has been taken in of one store."""

    cursors: dict[int, StreamPosition]  # by bucket: the last entry that was
    forgotten: frozenset[str]  # nonces of the tombstones that were seen
    items: ItemChangesCursor | None  # the last change of an item that was


class DataFolder:
    """Open for one run at a time."""

    def __init__(self, data: Path) -> None:
        self._data, self._own = data, data / OWN_DIR
        self._part, self._pending = self._own / "interactions.part", self._own / "pending.json"
        self._done = self._own / "progress.json"
        self._items_part, self._writing = self._own / "items.part", self._own / "writing.json"
        self._stack = ExitStack()
        self._rewritten: Path | None = None

    def __enter__(self) -> "DataFolder":
        find_file(self._data, "interactions", ("csv", "parquet"))
        self._own.mkdir(exist_ok=True)
        refusal = StageError("loop_back.locked", f"another run is changing {self._data}.", fix="Wait for it to end.")
        with ExitStack() as opening:
            opening.enter_context(lock_or_refuse(self._own / "lock", refusal))
            self._recover()
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def progress(self, store_id: str) -> Progress:
        kept = self._read(self._done).get(store_id, {})
        cursors = {int(bucket): stream_position(text) for bucket, text in kept.get("cursors", {}).items()}
        items = kept.get("items")
        return Progress(
            cursors, frozenset(kept.get("forgotten", ())), None if items is None else ItemChangesCursor(*items)
        )

    def rewrite_items(self, write: Callable[[Path, Path], int], *, current_at: float) -> None:
        """Has the new catalogue written, and puts it into its place; done twice, it is the same catalogue.

        `current_at` (seconds) becomes the time of the file: what was said later is not in it.
        """
        old = find_file(self._data, "items", ("jsonl", "parquet"))
        write(old, self._items_part)
        shutil.copymode(old, self._items_part)
        os.utime(self._items_part, (current_at, current_at))
        sync_path(self._items_part)
        move_into_place(self._items_part, old)

    def commit_items(self, store_id: str, cursor: ItemChangesCursor | None) -> None:
        """Notes how far the catalogue is; killed before, the next run writes it again."""
        progress = self._read(self._done)
        progress.setdefault(store_id, {})["items"] = None if cursor is None else list(cursor)
        self._write(progress, self._done)

    def any_of(self, holds: Callable[[Path], bool]) -> bool:
        """What `holds` says of the interactions file."""
        return holds(find_file(self._data, "interactions", ("csv", "parquet")))

    def rewrite(self, write: Callable[[Path, Path], int], *, current_at: float | None = None) -> int:
        """Has the new file written: `write(old, part)`; it takes the old one's place with `commit`.

        `current_at` (seconds): as with `rewrite_items`; None where the new file knows nothing newer than the old one.
        """
        old = find_file(self._data, "interactions", ("csv", "parquet"))
        result = write(old, self._part)
        shutil.copymode(old, self._part)
        moment = old.stat().st_mtime if current_at is None else current_at
        os.utime(self._part, (moment, moment))
        sync_path(self._part)
        sync_path(self._own)
        self._rewritten = old
        return result

    def commit(self, store_id: str, cursors: Mapping[int, StreamPosition], forgotten: set[str]) -> None:
        """Puts the rewritten file, if there is one, and the progress in their places."""
        progress = self._read(self._done)
        texts = {str(bucket): f"{ms}-{number}" for bucket, (ms, number) in cursors.items()}
        progress.setdefault(store_id, {}).update(cursors=texts, forgotten=sorted(forgotten))
        self._write(progress, self._pending if self._rewritten else self._done)
        if self._rewritten:
            self.replace()
            move_into_place(self._pending, self._done)

    def replace(self) -> None:
        """Puts the rewritten file in its place, without any progress."""
        if self._rewritten:
            move_into_place(self._part, self._rewritten)
            self._rewritten = None

    def _recover(self) -> None:
        """Ends what an earlier run began and was killed over."""
        if self._pending.exists() and not self._part.exists():
            sync_path(self._data)
            move_into_place(self._pending, self._done)
        # The pending progress first: without its part it would count as done.
        for left in (self._pending, self._part, self._items_part, self._writing):
            left.unlink(missing_ok=True)
            sync_path(self._own)

    def _write(self, progress: Mapping[str, Any], path: Path) -> None:
        write_file(path, json.dumps(progress, sort_keys=True).encode(), beside=self._writing)

    def _read(self, path: Path) -> dict[str, dict[str, Any]]:
        try:
            with contextlib.suppress(FileNotFoundError):
                found: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
                return found
        except ValueError:
            raise DataError(
                "data.progress",
                f"{path} says how far the store was read, and cannot be understood.",
                fix="Restore it from a backup together with the interactions file.",
            ) from None
        return {}
