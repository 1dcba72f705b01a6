"""Lists that were given, where one process serves: it has them itself, and there is no other."""

from collections.abc import Mapping


class EmbeddedListStore:
    """The `ListStore`: keeps nothing."""

    async def keep_lists(self, _lists: Mapping[str, bytes], _ttl_s: int) -> None:
        """Does nothing."""

    async def read_list(self, _recommendation_id: str) -> bytes | None:
        return None
