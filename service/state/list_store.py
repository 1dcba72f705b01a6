"""What may be asked of the lists that were given: they are kept for a while, so that any replica knows them."""

from collections.abc import Mapping
from typing import Protocol


class ListStore(Protocol):
    """Lists as bytes (`service.recommend.result_lists`)."""

    async def keep_lists(self, lists: Mapping[str, bytes], ttl_s: int, /) -> None:
        """Keeps lists that were given, by recommendation_id, for other replicas."""

    async def read_list(self, recommendation_id: str, /) -> bytes | None:
        """A list that a replica kept."""
