"""Changes the shop's folder in one step: replaces the interactions file and stores how far the store was read.

    1. write `.isrf/interactions.part`, the new file
    2. write `.isrf/pending.json`, the new read positions
    3. rename the part to the interactions file       ← this commits the change
    4. rename `.isrf/pending.json` to `.isrf/progress.json`

If a run dies, the next run finds `pending.json`. If the part still exists, step 3 did not happen. The catalogue file
is replaced in one step too, before the interactions file; writing the same changes twice gives the same catalogue. The
shop may rewrite its files between two runs: the progress describes the store, and stays valid.
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
from offline.commands.loop_back.own_form import changeable_file
from offline.runtime.locks import lock_or_refuse

OWN_DIR = ".isrf"
StreamPosition = tuple[int, int]


class ItemChangesCursor(NamedTuple):
    """The read position in a store's item changes."""

    counting: str  # id of the store's counter; it is another one once the store was emptied
    last: int


class Progress(NamedTuple):
    """How far earlier runs read one store."""

    cursors: dict[int, StreamPosition]  # by bucket: the last entry read
    forgotten: frozenset[str]  # nonces of the tombstones seen
    items: ItemChangesCursor | None  # the last item change read
    finished: dict[int, StreamPosition]  # by bucket: the last entry read by the last run that ended; empty before


class DataFolder:
    """The shop's data folder, locked for one run at a time."""

    def __init__(self, data: Path) -> None:
        self._data, self._own = data, data / OWN_DIR
        self._part, self._pending = self._own / "interactions.part", self._own / "pending.json"
        self._done = self._own / "progress.json"
        self._items_part, self._writing = self._own / "items.part", self._own / "writing.json"
        self._stack = ExitStack()
        self._rewritten: Path | None = None

    def __enter__(self) -> "DataFolder":
        changeable_file(self._data, "interactions")
        self._own.mkdir(exist_ok=True)
        refusal = StageError(
            "loop_back.locked",
            f"another run is changing {self._data}.",
            fix="Run the same command again when it has ended.",
        )
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
        """Returns how far earlier runs read this store."""
        stored = self._read(self._done).get(store_id, {})
        items = stored.get("items")
        return Progress(
            _positions(stored.get("cursors", {})),
            frozenset(stored.get("forgotten", ())),
            None if items is None else ItemChangesCursor(*items),
            _positions(stored.get("finished", {})),
        )

    def finish(self, store_id: str) -> None:
        """Stores that a run has ended with the cursors of its last commit (`Progress.finished`)."""
        progress = self._read(self._done)
        of_store = progress.get(store_id, {})
        if "cursors" in of_store and of_store.get("finished") != of_store["cursors"]:
            of_store["finished"] = of_store["cursors"]
            self._write(progress, self._done)

    def rewrite_items(self, write: Callable[[Path, Path], int], *, current_at: float) -> None:
        """Calls `write(old, part)` to write the new catalogue, then replaces the old one with it.

        `current_at` (seconds since 1970) becomes the file's time: the file lacks later changes.
        """
        old = changeable_file(self._data, "items")
        write(old, self._items_part)
        shutil.copymode(old, self._items_part)
        os.utime(self._items_part, (current_at, current_at))
        sync_path(self._items_part)
        move_into_place(self._items_part, old)

    def commit_items(self, store_id: str, cursor: ItemChangesCursor | None) -> None:
        """Stores how far the item changes were read; if a run dies before, the next one writes the catalogue again."""
        progress = self._read(self._done)
        progress.setdefault(store_id, {})["items"] = None if cursor is None else list(cursor)
        self._write(progress, self._done)

    def any_of(self, holds: Callable[[Path], bool]) -> bool:
        """Returns what `holds` answers for the interactions file."""
        return holds(changeable_file(self._data, "interactions"))

    def rewrite(self, write: Callable[[Path, Path], int], *, current_at: float | None = None) -> int:
        """Calls `write(old, part)` to write the new interactions file; `commit` or `replace` puts it in place.

        `current_at` (seconds since 1970) becomes the file's time; None keeps the old file's time.
        """
        old = changeable_file(self._data, "interactions")
        result = write(old, self._part)
        shutil.copymode(old, self._part)
        moment = old.stat().st_mtime if current_at is None else current_at
        os.utime(self._part, (moment, moment))
        sync_path(self._part)
        sync_path(self._own)
        self._rewritten = old
        return result

    def commit(self, store_id: str, cursors: Mapping[int, StreamPosition], forgotten: set[str]) -> None:
        """Replaces the interactions file by the rewritten one, if any, and stores the progress."""
        progress = self._read(self._done)
        texts = {str(bucket): f"{ms}-{number}" for bucket, (ms, number) in cursors.items()}
        progress.setdefault(store_id, {}).update(cursors=texts, forgotten=sorted(forgotten))
        self._write(progress, self._pending if self._rewritten else self._done)
        if self._rewritten:
            self.replace()
            move_into_place(self._pending, self._done)

    def replace(self) -> None:
        """Replaces the interactions file by the rewritten one, without any progress."""
        if self._rewritten:
            move_into_place(self._part, self._rewritten)
            self._rewritten = None

    def _recover(self) -> None:
        """Completes or removes what a killed run left."""
        if self._pending.exists() and not self._part.exists():
            sync_path(self._data)
            move_into_place(self._pending, self._done)
        # `pending.json` first: without the part it would count as committed
        for leftover in (self._pending, self._part, self._items_part, self._writing):
            leftover.unlink(missing_ok=True)
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
                f"{path}, which stores how far the store was read, cannot be parsed.",
                fix="Restore it from a backup together with the interactions file.",
            ) from None
        return {}


def _positions(stored: Mapping[str, str]) -> dict[int, StreamPosition]:
    return {int(bucket): stream_position(text) for bucket, text in stored.items()}
