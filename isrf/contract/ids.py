"""Ids: which strings are valid as a shop's ids, and the frozen map between ids and row numbers.

A shop's ids are opaque: exact bytes, no trimming, no case folding, no normalisation. JSON may write an id as an
integer; every route reads it as its decimal text. Control characters are refused for two reasons: the state joins ids
in one string with control characters between them, and control characters can forge log lines. The limit is 512 bytes
because an id is repeated in every key and stream entry of its user.

The shop's own strings and our row numbers are different types. A release's row numbers mean nothing in another release.

State and event log store an owner for every event: an account's user_id, or for a visitor without an account the
session_id behind a prefix that no user_id may have. So a session never equals a user and never shows up as an account:
exports and the shop's files write it as a `session_id` without a `user_id`.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Generic, NewType, TypeVar

import numpy as np
from pydantic import BeforeValidator, WithJsonSchema

from isrf.contract.errors import DataError
from isrf.contract.item_fields import INTEGERS, MAX_ID_BYTES

ItemId = NewType("ItemId", str)
UserId = NewType("UserId", str)
ItemIndex = NewType("ItemIndex", int)
UserIndex = NewType("UserIndex", int)

ExternalT = TypeVar("ExternalT", ItemId, UserId)
IndexT = TypeVar("IndexT", ItemIndex, UserIndex)

ID_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": MAX_ID_BYTES, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]+$"}
"""The part of the rules that JSON Schema can express; it counts characters, not bytes."""


def decimal_text(value: Any) -> Any:
    """An integer as its decimal text; any other value unchanged and unchecked.

    Raises:
        ValueError: an integer that some JSON readers would round.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value not in INTEGERS:
        raise ValueError("an integer of more than 64 bits; send it as a string")
    return str(value)


# The schema leaves out "integer", which accepts 7.0 as well; 7.0 is no id here.
ExternalId = Annotated[str, BeforeValidator(decimal_text), WithJsonSchema({"type": "string", **ID_SCHEMA})]
"""A shop's id in a JSON body, documented as a string. `id_problem` checks it."""


def id_problem(text: str) -> str | None:
    """A sentence on why an id is not valid; None for a valid one."""
    if not text:
        return "is empty"
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid Unicode (a lone surrogate)"
    if size > MAX_ID_BYTES:
        return f"has {size} bytes, {MAX_ID_BYTES} are allowed"
    # `isprintable` comes first because it is fast, and this runs for every id of every request.
    if not text.isprintable() and any(unicodedata.category(character) == "Cc" for character in text):
        return "holds a control character"
    return None


SESSION_PREFIX = "isrf-session:"
"""The beginning of every session's owner, and of no user_id."""


def session_owner(session_id: str) -> str:
    """The owner of a session's events."""
    return SESSION_PREFIX + session_id


def session_of(owner: str) -> str | None:
    """The session_id of an owner; None for a user_id."""
    return owner.removeprefix(SESSION_PREFIX) if owner.startswith(SESSION_PREFIX) else None


def owner_fields(owner: str) -> dict[str, str]:
    """An owner as a line of an export names it: `user_id` or `session_id`."""
    session_id = session_of(owner)
    return {"user_id": owner} if session_id is None else {"session_id": session_id}


PACKED_FROM = 1 << 16
"""Ids from which on an `IdMap` packs them: a dictionary of 10^6 texts takes 150 MB, packed ones take 32."""


class IdMap(Generic[ExternalT, IndexT]):
    """A frozen two-way map: row number ↔ the shop's own id. Row numbers are 0 … len − 1."""

    __slots__ = ("_external", "_index", "_packed")

    def __init__(self, external: Iterable[ExternalT], *, packed_from: int = PACKED_FROM) -> None:
        """Takes the ids in row order; raises `DataError` (`data.duplicate_id`) where an id appears twice.

        packed_from: how many ids are packed, which takes a microsecond for a look-up.
        """
        ids = tuple(external)
        self._packed = _PackedIds(ids) if len(ids) >= max(packed_from, 1) else None
        # The ids after the packed ones.
        self._external: tuple[ExternalT, ...] = ids if self._packed is None else ()
        self._index: dict[ExternalT, IndexT] = {}
        for row, external_id in enumerate(self._external):
            if external_id in self._index:
                raise _duplicate(external_id, self._index[external_id], row)
            self._index[external_id] = row  # type: ignore[assignment]

    def extended(self, more: Sequence[ExternalT]) -> "IdMap[ExternalT, IndexT]":
        """A new map with more ids after these; raises as the constructor does."""
        longer: IdMap[ExternalT, IndexT] = IdMap(())
        longer._packed = self._packed
        longer._external = self._external + tuple(more)
        longer._index = self._index.copy()
        for row, external_id in enumerate(more, start=len(self)):
            known = longer.index(external_id)
            if known is not None:
                raise _duplicate(external_id, known, row)
            longer._index[external_id] = row  # type: ignore[assignment]
        return longer

    def __len__(self) -> int:
        return self._num_packed + len(self._external)

    def __iter__(self) -> Iterator[ExternalT]:
        if self._packed is not None:
            yield from self._packed.texts()  # type: ignore[misc]
        yield from self._external

    def __contains__(self, external_id: object) -> bool:
        return isinstance(external_id, str) and self.index(external_id) is not None  # type: ignore[arg-type]

    def external(self, index: IndexT) -> ExternalT:
        """The shop's id of a row; IndexError outside 0 … len − 1 (a negative row is no row)."""
        if index < 0:
            raise IndexError(f"row {index} is negative")
        packed = self._packed
        if packed is None:
            return self._external[index]
        if index < len(packed):
            return packed.text(index)  # type: ignore[return-value]
        return self._external[index - len(packed)]

    def index(self, external_id: ExternalT) -> IndexT | None:
        """The row of an id, or None where the id is unknown."""
        row = self._index.get(external_id)
        if row is None and self._packed is not None:
            return self._packed.row(external_id)  # type: ignore[return-value]
        return row

    def known(self, external_ids: Sequence[ExternalT]) -> list[IndexT]:
        """The rows of the ids that are known, in the given order; unknown ids are left out."""
        return [row for row in map(self.index, external_ids) if row is not None]

    @property
    def _num_packed(self) -> int:
        return 0 if self._packed is None else len(self._packed)


class _PackedIds:
    """Many ids in a few arrays: their bytes one after another, and their rows in the order of Python's hashes.

    Python's hash of a text is keyed (PYTHONHASHSEED), so that no client can foresee which ids have the same one.
    """

    __slots__ = ("_hashes", "_offsets", "_rows", "_texts")

    def __init__(self, ids: Sequence[str]) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") for text in ids]
        self._texts = b"".join(encoded)
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(ids)), out=offsets[1:])
        hashes = np.fromiter(map(hash, ids), np.int64, len(ids))
        rows = np.argsort(hashes, kind="stable").astype(np.int32)
        hashes = hashes[rows]
        # Elements of a memoryview are Python's own integers, several times as fast as NumPy's.
        self._offsets, self._hashes, self._rows = offsets.data, hashes.data, rows.data
        for place in (np.flatnonzero(hashes[1:] == hashes[:-1]) + 1).tolist():
            # Of equal ids one is found from the hash, and that is the first of them.
            second = int(rows[place])
            first = self.row(ids[second])
            if first != second and first is not None:
                raise _duplicate(ids[second], first, second)

    def __len__(self) -> int:
        return len(self._rows)

    def text(self, row: int) -> str:
        return str(self._texts[self._offsets[row] : self._offsets[row + 1]], "utf-8", "surrogatepass")

    def texts(self) -> Iterator[str]:
        if not self._texts.isascii():
            return map(self.text, range(len(self)))
        whole, offsets = self._texts.decode(), self._offsets
        return (whole[offsets[row] : offsets[row + 1]] for row in range(len(self)))

    def row(self, text: str) -> int | None:
        hashed, hashes = hash(text), self._hashes
        place = bisect_left(hashes, hashed)
        while place < len(hashes) and hashes[place] == hashed:
            row = self._rows[place]
            if self.text(row) == text:
                return row
            place += 1
        return None


def _duplicate(external_id: str, first: int, second: int) -> DataError:
    return DataError(
        "data.duplicate_id",
        f"the id {external_id!r} appears in rows {first} and {second}.",
        fix="Give every item and every user one row.",
    )
