"""What may be asked of the counts of what was shown and clicked. No user ids anywhere."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Counters(Protocol):
    """Counts for good, and marks for a while by which nothing counts twice (`service.recommend.click_stats`)."""

    async def first(self, marks: Sequence[str], ttl_s: int, /) -> list[bool]:
        """Of each mark, whether nobody asked for it in the last `ttl_s` seconds."""

    async def count(self, counts: Mapping[str, int], /) -> None:
        """Adds to the counts by name."""

    async def counts(self) -> dict[str, int]:
        """All counts, of all replicas."""
