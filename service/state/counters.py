"""The protocol of the counts of answers, shown items and clicks. It has no user ids."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Counters(Protocol):
    """Permanent counts, and temporary marks that prevent double counts (`service.recommend.click_stats`)."""

    async def first(self, marks: Sequence[str], ttl_s: int, /) -> list[bool]:
        """Sets marks; returns for each whether it was not set in the last `ttl_s` seconds."""

    async def count(self, counts: Mapping[str, int], /) -> None:
        """Adds to the counts by name."""

    async def counts(self) -> dict[str, int]:
        """Returns all counts, of all replicas."""
