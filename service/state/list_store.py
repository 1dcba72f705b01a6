"""The protocols of lists that a store keeps: returned lists, for a while, and the shop's placements."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol


class ListStore(Protocol):
    """Lists as bytes (`service.recommend.result_lists`)."""

    async def keep_lists(self, lists: Mapping[str, bytes], ttl_s: int, /) -> None:
        """Stores result lists by recommendation_id, for other replicas."""

    async def read_list(self, recommendation_id: str, /) -> bytes | None:
        """Returns a list that a replica stored, or None."""


class StoredPlacement(NamedTuple):
    """A placement as it was put."""

    version: int  # the number of the change that put it; later changes have higher numbers
    payload: bytes


class PlacementChange(NamedTuple):
    """What became of a change of a placement."""

    outcome: Literal["done", "absent", "too_many", "other_version"]
    version: int
    """The number of the change where it is done; where another version than the expected one is stored, that one's, 0
    where none is; else 0."""


class PlacementsLook(NamedTuple):
    """The placements at one moment."""

    cursor: bytes  # equal where nothing has changed; b"" before the first change
    placements: Mapping[str, StoredPlacement] | None  # by name; None: as at the cursor that was passed


class PlacementStore(Protocol):
    """The shop's placements as bytes (`service.recommend.placements.placement`), and the numbering of their changes."""

    async def put_placement(
        self, name: str, payload: bytes, /, *, limit: int, expected: int | None = None
    ) -> PlacementChange:
        """Stores a placement; it survives a crash from here on.

        Args:
            limit: how many placements there may be.
            expected: the version that must be stored, 0 for none; None: any.
        """

    async def delete_placement(self, name: str, /, *, expected: int | None = None) -> PlacementChange:
        """Removes a placement; `expected` as in `put_placement`."""

    async def placements(self, after: bytes | None, /) -> PlacementsLook:
        """Returns all placements, where anything has changed since a cursor."""
