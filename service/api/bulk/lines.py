"""Many lines at once, in and out, as JSON Lines: read and written piece by piece, never kept whole.

Every line is judged in its own right. What cannot be taken in is counted by reason and named with its line's number.
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
"""Lines that are taken in by one call of the store."""
TOGETHER_BYTES = 4 * 1024 * 1024
"""Of long lines fewer, so that an import keeps no more than this."""
HELD_S = 0.01
"""How long lines may keep everybody else waiting."""
PIECE_BYTES = 64 * 1024
"""Of lines that leave, written at a time."""
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
MAX_NAMED = 1000
"""Lines that are named with what is wrong; of others the number."""


class LineVerdict(NamedTuple):
    """What became of a line, or of a part of it."""

    status: str  # accepted, duplicate, refused
    reason: str = ""
    detail: str = ""


class Turns:
    """Lines that are there already are judged without a pause of their own; between them others have their turn."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def give(self) -> None:
        """To be called after every line."""
        if time.perf_counter() - self._since > HELD_S:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


Take = Callable[[Sequence[Mapping[str, Any]]], Awaitable[Sequence[Sequence[LineVerdict]]]]
"""Takes records in; of each the verdicts on its parts, at least one."""


@dataclass
class Report:
    """What became of all lines."""

    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    named: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0

    def add(self, line: int, verdict: LineVerdict) -> None:
        self.counts[verdict.status] += 1
        if verdict.status != "refused":
            return
        self.reasons[verdict.reason] += 1
        if len(self.named) < MAX_NAMED:
            self.named.append({"line": line, "reason": verdict.reason, "detail": verdict.detail})
        else:
            self.left_out += 1

    def body(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            "accepted": self.counts["accepted"],
            "duplicates": self.counts["duplicate"],
            "refused": self.counts["refused"],
            "reasons": dict(self.reasons),
            "problems": self.named,
            "problems_left_out": self.left_out,
        }


async def take_lines(pieces: AsyncIterator[bytes], take: Take) -> Report:
    """Takes the lines of a body in; empty ones count as lines and as nothing else.

    Raises:
        StoreError: the store could not go on; the message says from which line.
        RequestError: the rest of the body came too slowly; the message says which lines were taken in.
    """
    report, batch, taken, size = Report(), [], 0, 0
    turns = Turns()
    try:
        async for line in _lines(pieces):
            report.lines += 1
            size += len(line or b"")
            record = _read(line)
            if isinstance(record, LineVerdict):
                report.add(report.lines, record)
            elif record is not None:
                batch.append((report.lines, record))
            if len(batch) == TOGETHER or size > TOGETHER_BYTES:
                await _take(batch, take, report, taken)
                batch, taken, size = [], report.lines, 0
            await turns.give()
    except RequestError as error:
        await _take(batch, take, report, taken)
        message = f"{error.message.rstrip('.')}; {_taken_in(report.lines)}."
        raise RequestError(error.code, message, fix="Send what is left, or all of it, again.") from error
    await _take(batch, take, report, taken)
    report.named.sort(key=lambda named: int(named["line"]))
    return report


def _taken_in(lines: int) -> str:
    return f"lines 1 to {lines} were taken in" if lines else "no line was taken in"


async def _take(batch: Sequence[tuple[int, Mapping[str, Any]]], take: Take, report: Report, taken: int) -> None:
    if not batch:
        return
    try:
        verdicts = await take([record for _, record in batch])
    except StoreError as error:
        message = f"{error.message.rstrip('.')}; {_taken_in(taken)}."
        raise StoreError(error.code, message, fix="Send what is left, or all of it, later.") from error
    for (line, _), parts in zip(batch, verdicts, strict=True):
        for verdict in parts:
            report.add(line, verdict)


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Lines without their ends; None for one that is too long, which is not kept."""
    kept, too_long = bytearray(), False
    async for piece in pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line = None if too_long or len(kept) + len(end) > MAX_LINE_BYTES else bytes(kept) + end
            kept, too_long = bytearray(), False
            yield line
        too_long = too_long or len(kept) + len(rest) > MAX_LINE_BYTES
        # Pieces are small: each is looked at once, however long its line is.
        kept += b"" if too_long else rest
    if kept or too_long:
        yield None if too_long else bytes(kept)


def _read(line: bytes | None) -> Mapping[str, Any] | LineVerdict | None:
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
            # That reader makes a float of an integer beyond 64 bits, and says nothing.
            record = json.loads(line)
    except ValueError:
        return LineVerdict("refused", "malformed_json", "the line is not JSON in UTF-8")
    if not isinstance(record, dict):
        return LineVerdict("refused", "malformed_json", "the line is no JSON object")
    name = doubled_name(line, record)
    if name is not None:
        return LineVerdict("refused", "duplicate_name", f"{shown(name)} stands twice in one object")
    return record


async def write_lines(pages: AsyncIterator[Iterable[Mapping[str, Any]]]) -> AsyncIterator[bytes]:
    """Records as JSON Lines, written as soon as there is a piece of them, and at the end of a page."""
    async for page in pages:
        piece = bytearray()
        for record in page:
            piece += orjson.dumps(record) + b"\n"
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)
