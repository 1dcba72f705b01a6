"""The protocol of stored result lists: the store keeps them for a while, so that every replica can read them."""

from collections.abc import Mapping
from typing import Protocol


class ListStore(Protocol):
    """Lists as bytes (`service.recommend.result_lists`)."""

    async def keep_lists(self, lists: Mapping[str, bytes], ttl_s: int, /) -> None:
        """Stores result lists by recommendation_id, for other replicas."""

    async def read_list(self, recommendation_id: str, /) -> bytes | None:
        """Returns a list that a replica stored, or None."""
