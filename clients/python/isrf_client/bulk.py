"""Imports any number of records in parts, and reads an export's lines as they arrive.

It does no IO (`isrf_client.attempts`).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from isrf_client.attempts import Budget, Call, Pause, Steps, attempts, unreadable
from isrf_client.errors import ClientError, InvalidCallError, NoAnswerError
from isrf_client.events import NOT_NOW
from isrf_client.operations import BadLine, Imported, Line
from isrf_client.values import IDS, id_text, plain

MAX_LINES, MAX_BYTES = 1000, 1024 * 1024
"""Records and bytes of one request of an import; more are sent in parts."""
MAX_PROBLEMS = 1000
"""Refused records that a report names; it counts the others."""
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Of an export."""

Convert: TypeAlias = Callable[[Any, str], Mapping[str, Any]]
"""Checks a record and returns what is sent; the text says where the record stands."""


def record_line(record: Any, where: str) -> Mapping[str, Any]:
    """Returns an item or a user as JSON can hold it. None stays: it removes an item's field."""
    if not isinstance(record, Mapping):
        fix = "Give dicts, as {'item_id': …, 'price': …}."
        raise InvalidCallError("client.invalid_value", f"{where} is of the type {type(record).__name__}.", fix=fix)
    return {
        name: id_text(value, f"{where}.{name}")
        if name in IDS and value is not None
        else plain(value, f"{where}.{name}")
        for name, value in record.items()
    }


def import_records(path: str, records: Iterable[Any], convert: Convert, budget: Budget) -> Steps[Imported]:
    """Sends records in parts of bounded size, each again until it is answered; holds one part at a time.

    Raises:
        ClientError: a record is invalid, or a part was not answered. Its `report` counts the parts before; its
            `records` are those of the part, as they are sent. What follows them has not been read.
    """
    if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
        fix = "Give an iterable of dicts."
        raise InvalidCallError("client.invalid_value", f"records is of the type {type(records).__name__}.", fix=fix)
    source, merged = iter(records), _Merged()
    part: list[Mapping[str, Any]] = []
    try:
        while True:
            part = []
            body = _fill(source, part, convert, merged.lines)
            if not part:
                return merged.report()
            budget.renew_tries()
            yield from _import_part(path, body, merged, budget)
    except ClientError as error:
        error.report = merged.report()
        error.records = [dict(record) for record in part]
        error.message += f" {merged.lines} records were imported; send error.records and what follows them."
        raise


def _fill(source: Iterator[Any], part: list[Mapping[str, Any]], convert: Convert, before: int) -> list[bytes]:
    """Reads records into `part` until it is full; returns their lines."""
    lines: list[bytes] = []
    size = 0
    while len(part) < MAX_LINES and size < MAX_BYTES:
        try:
            record = next(source)
        except StopIteration:
            break
        part.append(convert(record, f"records[{before + len(part)}]"))
        lines.append(json.dumps(part[-1], ensure_ascii=False).encode() + b"\n")
        size += len(lines[-1])
    return lines


class _Merged:
    """The report of all parts so far."""

    def __init__(self) -> None:
        self.lines = 0
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._problems: list[BadLine] = []
        self._warnings: list[Any] = []

    def add(self, answer: Imported, places: list[int], *, again: bool) -> list[int]:
        """Counts the answer to some lines of a part; with `again` returns the places that are to be sent again.

        `places` are those of the lines in the part, from 0 on.
        """
        problems = answer["problems"]
        waiting = {places[one["line"] - 1] for one in problems if again and one["reason"] == NOT_NOW}
        left = [one for one in problems if places[one["line"] - 1] not in waiting]
        reasons = Counter(answer["reasons"])
        reasons.subtract(Counter(one["reason"] for one in problems if places[one["line"] - 1] in waiting))
        self._reasons += reasons
        self._counts += Counter(
            accepted=answer["accepted"],
            duplicates=answer["duplicates"],
            refused=answer["refused"] - (len(problems) - len(left)),
        )
        self._problems += [{**one, "line": self.lines + places[one["line"] - 1] + 1} for one in left]
        self._warnings += [one for one in answer["warnings"] if one not in self._warnings]
        return sorted(waiting)

    def report(self) -> Imported:
        named = sorted(self._problems, key=lambda one: one["line"])[:MAX_PROBLEMS]
        return {
            "lines": self.lines,
            "accepted": self._counts["accepted"],
            "duplicates": self._counts["duplicates"],
            "refused": self._counts["refused"],
            "reasons": {reason: count for reason, count in self._reasons.items() if count},
            "problems": named,
            "problems_left_out": self._counts["refused"] - len(named),
            "warnings": list(self._warnings),
        }


def _import_part(path: str, lines: list[bytes], merged: _Merged, budget: Budget) -> Steps[None]:
    """Sends the lines of one part; sends those again that the store could not accept."""
    places = list(range(len(lines)))
    while places:
        body = b"".join(lines[place] for place in places)
        call = Call(method="POST", path=path, lines=body, answer=("problems", list))
        answer = _checked((yield from attempts(call, budget)), len(places))
        pause_s = budget.pause_s(None)
        places = merged.add(answer, places, again=pause_s is not None)
        if places and pause_s is not None:
            yield Pause(pause_s)
    merged.lines += len(lines)


def _checked(answer: Any, num_lines: int) -> Imported:
    numbers = [answer.get(name) for name in ("lines", "accepted", "duplicates", "refused")]
    known = all(isinstance(number, int) for number in numbers) and numbers[0] == num_lines
    known = known and isinstance(answer.get("reasons"), dict) and isinstance(answer.get("warnings"), list)
    if not known or not all(
        isinstance(one, dict) and isinstance(one.get("reason"), str) and one.get("line") in range(1, num_lines + 1)
        for one in answer["problems"]
    ):
        raise unreadable(f"no report of {num_lines} lines")
    checked: Imported = answer
    return checked


class ExportedLines:
    """Reads JSON objects from the pieces of an export."""

    def __init__(self) -> None:
        self._started = bytearray()
        self._count = 0

    def read(self, piece: bytes) -> Iterator[Line]:
        """Yields the objects whose lines end in this piece."""
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line = bytes(self._started) + end
            self._started.clear()
            if line.strip():
                yield self._object(line)
        self._started += rest
        if len(self._started) > MAX_LINE_BYTES:
            raise NoAnswerError(
                "client.too_large",
                f"line {self._count + 1} of the export has more than {MAX_LINE_BYTES} bytes.",
                fix="Check base_url: the service writes no such line.",
            )

    def end(self) -> None:
        """Raises `NoAnswerError` where the last line was cut."""
        if self._started.strip():
            raise unreadable(f"it ends in the middle of line {self._count + 1}")

    def cut(self, error: ClientError) -> ClientError:
        """Returns the error of an export that did not come to its end, which says how far it came."""
        error.message += f" The export was cut after {self._count} lines; begin it again."
        return error

    def _object(self, line: bytes) -> Line:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise unreadable(f"line {self._count + 1} is not a JSON object")
        self._count += 1
        return found
