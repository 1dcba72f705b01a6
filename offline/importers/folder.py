"""Writes what an importer yields as the folder of the data contract: both files completely, or none of them.

Every record is checked as `ingest` and the service check it, so that `ingest` takes the folder without options.
"""

import csv
import math
import os
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal, NamedTuple

import orjson

from isrf.contract.errors import DataError
from isrf.contract.event_types import problem
from isrf.contract.ids import SESSION_PREFIX
from isrf.contract.item_changes import METADATA
from isrf.contract.item_fields import MAX_ID_BYTES, RIGHT, FieldError, read_fields, read_item_id
from isrf.contract.shown import shown
from isrf.runtime.files import locked_folder, move_into_place
from offline.importers.importer import Imported, ImportedEvent, ImportedItem
from offline.importers.report import ImportReport
from offline.reading.notes import ADDRESSES
from offline.reading.times import MAX_TIMESTAMP

Kind = Literal["items", "interactions"]
FILES: dict[Kind, str] = {"items": "items.jsonl", "interactions": "interactions.csv"}
COLUMNS = ("user_id", "item_id", "timestamp", "event", "weight", "session_id")
_ID = f"1 to {MAX_ID_BYTES} bytes without control characters"

_problem = lru_cache(1000)(problem)
"""A source has few event types, and each of them in millions of rows."""
_ODD_SESSIONS = "some session ids are no ids; their events have a user id, so they are written without the session id"


class Written(NamedTuple):
    """How many items and events were written."""

    items: int
    interactions: int


def write_folder(
    records: Iterable[Imported], out: Path, report: ImportReport, *, only: Kind | None = None, max_bad_rows: float
) -> Written:
    """Writes `items.jsonl` and `interactions.csv`, those of which there are records.

    Args:
        records: of an importer.
        out: the folder; it is made, and files of other names in it stay.
        report: takes records that the contract refuses.
        only: the kind of records to write; None for both.
        max_bad_rows: the largest share of rows that may be refused.

    Raises:
        DataError: `import.target_exists`, `import.running`, `import.nothing`, `data.too_many_bad_rows`, and as the
            importer; nothing is written then.
    """
    out.mkdir(parents=True, exist_ok=True)
    refusal = DataError(
        "import.running",
        f"another import writes to {out} now.",
        fix="Wait until it has ended, or give another folder with --out.",
    )
    with locked_folder(out, refusal):
        return _write(records, out, report, only, max_bad_rows)


def _write(
    records: Iterable[Imported], out: Path, report: ImportReport, only: Kind | None, max_bad_rows: float
) -> Written:
    parts = _Parts(out, report)
    parts.check_targets(only)
    try:
        for record in records:
            kind: Kind = "items" if isinstance(record, ImportedItem) else "interactions"
            if only is not None and kind != only:
                report.leave_out(f"are {kind}, which --only {only} does not ask for", record.line)
            elif isinstance(record, ImportedItem):
                parts.add_item(record)
            else:
                parts.add_event(record)
        report.bad_rows.check(max(report.num_rows, len(report.bad_rows)), max_bad_rows)
        return parts.finish()
    finally:
        parts.remove()


class _Parts:
    """The partial files."""

    def __init__(self, out: Path, report: ImportReport) -> None:
        self._out = out
        self._report = report
        self._open: dict[Kind, IO[str]] = {}
        self._counts: dict[Kind, int] = {"items": 0, "interactions": 0}
        self._seen: dict[str, int] = {}  # item_id → hash of its row
        self._named: dict[str, tuple[int, int]] = {}  # item_id → events, the first line

    def check_targets(self, only: Kind | None) -> None:
        """Refuses at once what could only be refused after much was read.

        Raises:
            DataError: `import.target_exists`: no record that this import writes would have a place.
        """
        kinds = [kind for kind in FILES if only in (None, kind)]
        if all(self._taken(kind) for kind in kinds):
            raise self._taken_error(kinds[0])

    def add_item(self, record: ImportedItem) -> None:
        try:
            item_id = read_item_id(record.fields.get("item_id"))
            fields = read_fields(record.fields)
        except FieldError as error:
            self._report.refuse(error.kind, record.line, error.value, right=RIGHT[error.field])
            return
        own = fields.pop(METADATA, None) or {}
        plain = {name: value for name, value in {**fields, **own}.items() if value is not None}
        line = orjson.dumps({"item_id": item_id, **plain}, option=orjson.OPT_APPEND_NEWLINE).decode()
        if item_id in self._seen:
            if self._seen[item_id] == hash(line):
                self._report.leave_out("that repeat an item", record.line)
            else:
                right = "one row for an item; the first one is kept"
                self._report.refuse("duplicate_item", record.line, shown(item_id), right=right)
            return
        self._seen[item_id] = hash(line)
        self._file("items").write(line)
        self._counts["items"] += 1

    def add_event(self, record: ImportedEvent) -> None:
        wrong = _wrong(record)
        if wrong is not None:
            self._report.refuse(wrong.kind, record.line, wrong.value, right=wrong.right)
            return
        if record.session_id and _unfit(record.session_id):  # the user's id is enough
            self._report.note(_ODD_SESSIONS)
            record = record._replace(session_id="")
        if "@" in record.user_id or "@" in record.session_id:
            self._report.note(ADDRESSES)
        moment = f"{record.timestamp:.6f}".rstrip("0").rstrip(".")
        row = (record.user_id, record.item_id, moment, record.event, f"{record.weight:.15g}", record.session_id)
        csv.writer(self._file("interactions"), lineterminator="\n").writerow(row)
        self._counts["interactions"] += 1
        count, first = self._named.get(record.item_id, (0, record.line))
        self._named[record.item_id] = count + 1, first

    def finish(self) -> Written:
        """Gives the files their names."""
        if not self._open:
            found = "; ".join(self._report.describe()) or "the files hold no row"
            raise DataError(
                "import.nothing",
                f"no item and no event was found: {found}.",
                fix="Look whether these are the files of this source.",
            )
        if self._counts["items"]:
            self._report.note_unknown_items({key: one for key, one in self._named.items() if key not in self._seen})
        for file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        try:
            for kind in self._open:
                move_into_place(self._part(kind), self._out / FILES[kind])
        except BaseException:  # one file alone would refuse the next import
            for kind in self._open:
                if not self._part(kind).exists():
                    (self._out / FILES[kind]).unlink(missing_ok=True)
            raise
        return Written(self._counts["items"], self._counts["interactions"])

    def remove(self) -> None:
        for kind, file in self._open.items():
            file.close()
            self._part(kind).unlink(missing_ok=True)

    def _file(self, kind: Kind) -> IO[str]:
        if kind not in self._open:
            if self._taken(kind):
                raise self._taken_error(kind)
            self._open[kind] = self._part(kind).open("w", encoding="utf-8", newline="")
            if kind == "interactions":
                csv.writer(self._open[kind], lineterminator="\n").writerow(COLUMNS)
        return self._open[kind]

    def _taken(self, kind: Kind) -> list[Path]:
        return [path for path in self._out.iterdir() if path.name.partition(".")[0] == kind]

    def _taken_error(self, kind: Kind) -> DataError:
        return DataError(
            "import.target_exists",
            f"{self._out} has {self._taken(kind)[0].name} already.",
            fix="Give another folder with --out, or move the file away, or import one kind alone with --only.",
        )

    def _part(self, kind: Kind) -> Path:
        return self._out / f".{FILES[kind]}.partial"


class _Wrong(NamedTuple):
    kind: str
    value: str  # nothing of a user's id but its length
    right: str


def _wrong(event: ImportedEvent) -> _Wrong | None:
    """The first mistake of an event; None for a good one."""
    owner = ("session_id", event.session_id) if event.session_id and not event.user_id else ("user_id", event.user_id)
    for name, value in (("item_id", event.item_id), owner):
        if not value:
            return _Wrong(f"missing_{name}", "", _ID)
        if _unfit(value):
            return _Wrong(f"bad_{name}", shown(value) if name == "item_id" else f"{len(value)} characters", _ID)
    if event.user_id.startswith(SESSION_PREFIX):  # the service would take such a user for a session
        return _Wrong("bad_user_id", f"begins with {SESSION_PREFIX}", _ID)
    if complaint := _problem(event.event):
        return _Wrong("bad_event", f"{shown(event.event)} {complaint}", "the name of an event type")
    if not 0 <= event.timestamp <= MAX_TIMESTAMP:
        return _Wrong("bad_timestamp", shown(event.timestamp), "seconds from 1970 to the year 9999")
    if not 0 < event.weight < math.inf:
        return _Wrong("bad_weight", shown(event.weight), "a number above 0")
    return None


def _unfit(text: str) -> bool:
    return _has_control(text) or len(text.encode()) > MAX_ID_BYTES


def _has_control(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
