"""The list store of a single process, which has the lists in its memory: it stores nothing."""

from collections.abc import Mapping


class EmbeddedListStore:
    """The `ListStore` of the embedded store: stores nothing."""

    async def keep_lists(self, _lists: Mapping[str, bytes], _ttl_s: int) -> None:
        """Does nothing."""

    async def read_list(self, _recommendation_id: str) -> bytes | None:
        return None
