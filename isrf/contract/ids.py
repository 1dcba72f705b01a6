"""The shop's own strings and our row numbers are different types, joined by one frozen map.

It knows nothing of where the ids came from; a release's row numbers mean nothing in another release.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NewType, TypeVar

from isrf.contract.errors import DataError

ItemId = NewType("ItemId", str)
UserId = NewType("UserId", str)
ItemIndex = NewType("ItemIndex", int)
UserIndex = NewType("UserIndex", int)

ExternalT = TypeVar("ExternalT", ItemId, UserId)
IndexT = TypeVar("IndexT", ItemIndex, UserIndex)


class IdMap(Generic[ExternalT, IndexT]):
    """A frozen two-way map: row number ↔ the shop's own id. Row numbers are 0 … len − 1."""

    __slots__ = ("_external", "_index")

    def __init__(self, external: Iterable[ExternalT]) -> None:
        """Takes the ids in row order; raises `DataError` (`data.duplicate_id`) on an id that stands twice."""
        self._external: tuple[ExternalT, ...] = tuple(external)
        self._index: dict[ExternalT, IndexT] = {}
        for row, external_id in enumerate(self._external):
            if external_id in self._index:
                raise _duplicate(external_id, self._index[external_id], row)
            self._index[external_id] = row  # type: ignore[assignment]

    def extended(self, more: Sequence[ExternalT]) -> "IdMap[ExternalT, IndexT]":
        """A map with further ids behind these; raises as the constructor does."""
        longer: IdMap[ExternalT, IndexT] = IdMap(())
        longer._external = self._external + tuple(more)
        longer._index = self._index.copy()
        for row, external_id in enumerate(more, start=len(self)):
            if external_id in longer._index:
                raise _duplicate(external_id, longer._index[external_id], row)
            longer._index[external_id] = row  # type: ignore[assignment]
        return longer

    def __len__(self) -> int:
        return len(self._external)

    def __iter__(self) -> Iterator[ExternalT]:
        return iter(self._external)

    def __contains__(self, external_id: object) -> bool:
        return external_id in self._index

    def external(self, index: IndexT) -> ExternalT:
        """The shop's id of a row; IndexError outside 0 … len − 1 (a negative row is no row)."""
        if index < 0:
            raise IndexError(f"row {index} is negative")
        return self._external[index]

    def index(self, external_id: ExternalT) -> IndexT | None:
        """The row of an id, or None where the id is unknown."""
        return self._index.get(external_id)

    def known(self, external_ids: Sequence[ExternalT]) -> list[IndexT]:
        """The rows of the ids that are known, in the given order; unknown ids are left out."""
        return [row for row in map(self._index.get, external_ids) if row is not None]


def _duplicate(external_id: str, first: int, second: int) -> DataError:
    return DataError(
        "data.duplicate_id",
        f"the id {external_id!r} stands in rows {first} and {second}.",
        fix="Give every item and every user one row.",
    )
