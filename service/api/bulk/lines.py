"""Reads and writes JSON Lines in pieces, so that no whole body is held in memory.

Each line is checked by itself. The report counts refused lines by reason and names them by their line numbers.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from isrf.contract.errors import RequestError, StoreError
from isrf.contract.json_object import doubled_name
from isrf.contract.shown import shown
from service.api.validation.json_bounds import json_problem

MAX_LINE_BYTES = 256 * 1024
TOGETHER = 500
"""Lines that one call of the store imports."""
TOGETHER_BYTES = 4 * 1024 * 1024
"""Fewer where lines are long, so that an import holds no more bytes than this."""
HELD_S = 0.01
"""How long an import may run before it lets other tasks of the event loop run."""
PIECE_BYTES = 64 * 1024
"""Bytes of an export that are written at a time."""
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_GZIP = b"\x1f"
MAX_NAMED = 1000
"""Refused lines that a report names; it counts the others."""


class LineVerdict(NamedTuple):
    """The outcome of a line, or of one of the events that it stands for."""

    status: str  # accepted, duplicate, refused
    reason: str = ""
    detail: str = ""


class LoopPauses:
    """Pauses a loop that never waits for anything, so that other tasks of the event loop can run."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def pause_if_due(self) -> None:
        """Lets other tasks run where `HELD_S` have passed since the last pause; to be called after every line."""
        if time.perf_counter() - self._since > HELD_S:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


ImportBatch = Callable[[Sequence[Mapping[str, Any]]], Awaitable[Sequence[Sequence[LineVerdict]]]]
"""Imports records; returns for each at least one verdict."""


@dataclass
class Report:
    """The outcome of all lines."""

    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    named: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0

    def add(self, line: int, verdict: LineVerdict) -> None:
        """Counts a verdict; `line` is the number of its line."""
        self.counts[verdict.status] += 1
        if verdict.status != "refused":
            return
        self.reasons[verdict.reason] += 1
        if len(self.named) < MAX_NAMED:
            self.named.append({"line": line, "reason": verdict.reason, "detail": verdict.detail})
        else:
            self.left_out += 1

    def body(self) -> dict[str, Any]:
        """Returns the report as a JSON object."""
        return {
            "lines": self.lines,
            "accepted": self.counts["accepted"],
            "duplicates": self.counts["duplicate"],
            "refused": self.counts["refused"],
            "reasons": dict(self.reasons),
            "problems": self.named,
            "problems_left_out": self.left_out,
        }


async def import_lines(pieces: AsyncIterator[bytes], import_batch: ImportBatch) -> Report:
    """Imports the lines of a body; empty lines only count as lines.

    Raises:
        StoreError: the store fails; the message says which lines were imported.
        RequestError: the rest of the body cannot be read (too slow, no valid gzip, too large when inflated); the
            message says which lines were imported.
    """
    report, batch, num_imported, size = Report(), [], 0, 0
    pauses = LoopPauses()
    try:
        async for line in _lines(_uncompressed(pieces)):
            report.lines += 1
            size += len(line or b"")
            record = _read(line)
            if isinstance(record, LineVerdict):
                report.add(report.lines, record)
            elif record is not None:
                batch.append((report.lines, record))
            if len(batch) == TOGETHER or size > TOGETHER_BYTES:
                await _import(batch, import_batch, report, num_imported)
                batch, num_imported, size = [], report.lines, 0
            await pauses.pause_if_due()
    except RequestError as error:
        await _import(batch, import_batch, report, num_imported)
        message = f"{error.message.rstrip('.')}; {_imported_text(report.lines)}."
        fix = f"{error.fix} Lines that were imported may be sent again."
        raise RequestError(error.code, message, fix=fix) from error
    await _import(batch, import_batch, report, num_imported)
    report.named.sort(key=lambda named: int(named["line"]))
    return report


def _imported_text(lines: int) -> str:
    return f"lines 1 to {lines} were imported" if lines else "no line was imported"


async def _import(
    batch: Sequence[tuple[int, Mapping[str, Any]]], import_batch: ImportBatch, report: Report, num_imported: int
) -> None:
    """Imports (line number, record) pairs; `num_imported` lines before them are imported already."""
    if not batch:
        return
    try:
        verdicts = await import_batch([record for _, record in batch])
    except StoreError as error:
        message = f"{error.message.rstrip('.')}; {_imported_text(num_imported)}."
        raise StoreError(error.code, message, fix="Send the remaining lines, or all of them, later.") from error
    for (line, _), parts in zip(batch, verdicts, strict=True):
        for verdict in parts:
            report.add(line, verdict)


async def _uncompressed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Passes pieces on; raises `RequestError` where the first of them begins as gzip does, and no JSON can."""
    is_first = True
    async for piece in pieces:
        if is_first and piece.startswith(_GZIP):
            message = "the body begins as gzip does, and its head does not say so."
            raise RequestError("request.malformed_json", message, fix="Send the header Content-Encoding: gzip.")
        is_first = is_first and not piece
        yield piece


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Yields lines without their line breaks; None for a line that is too long, whose bytes are dropped."""
    started, too_long = bytearray(), False
    async for piece in pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line = None if too_long or len(started) + len(end) > MAX_LINE_BYTES else bytes(started) + end
            started, too_long = bytearray(), False
            yield line
        too_long = too_long or len(started) + len(rest) > MAX_LINE_BYTES
        # Each piece is searched once, however long its line is.
        started += b"" if too_long else rest
    if started or too_long:
        yield None if too_long else bytes(started)


def _read(line: bytes | None) -> Mapping[str, Any] | LineVerdict | None:
    """Returns the record of a line, or its refusal; None for an empty line."""
    if line is None:
        return LineVerdict("refused", "line_too_long", f"a line has at most {MAX_LINE_BYTES} bytes")
    if not line.strip():
        return None
    line = line.removeprefix(b"\xef\xbb\xbf")
    problem = json_problem(line)
    if problem is not None:
        return LineVerdict("refused", "too_complex", f"the line {problem}")
    try:
        record = orjson.loads(line)
        if _LONG_NUMBER.search(line):
            # orjson reads an integer beyond 64 bits as a float, without an error.
            record = json.loads(line)
    except ValueError:
        return LineVerdict("refused", "malformed_json", "the line is not JSON in UTF-8")
    if not isinstance(record, dict):
        return LineVerdict("refused", "malformed_json", "the line is not a JSON object")
    name = doubled_name(line, record)
    if name is not None:
        return LineVerdict("refused", "duplicate_name", f"{shown(name)} stands twice in one object")
    return record


async def write_lines(pages: AsyncIterator[Iterable[Mapping[str, Any]]]) -> AsyncIterator[bytes]:
    """Yields records as JSON Lines, whenever `PIECE_BYTES` are there and at the end of a page."""
    async for page in pages:
        piece = bytearray()
        for record in page:
            piece += orjson.dumps(record) + b"\n"
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)
