"""Types of the recommender: a request, its users' interests, the search graph's output, the ranked list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from isrf.method.evidence import (
    Evidence,
)
from isrf.method.interest import (
    BoolArray,
    FloatArray,
    IntArray,
    Neighbours,
)
from isrf.method.ranking.fusion import Fused
from isrf.method.recommend.item_search import BestItems

Task = Literal["sequential", "direct"]
CHANNEL_LIMIT = 200
"""Most candidates of the explicit channel and of each evidence channel."""

SCORE_DIGITS = 4
"""Decimals of a score in an answer; the order uses the full precision."""


class UserInterests(NamedTuple):
    """The individual and group interests of B histories, before any item is scored."""

    explicit: FloatArray  # (B, E)
    neighbours: Neighbours
    group: FloatArray  # (B, G)

    def rows(self, queries: Sequence[int]) -> "UserInterests":
        """The interests of some of the queries, in the given order."""
        rows, near = list(queries), self.neighbours
        part = Neighbours(near.users[rows], near.similarity[rows], near.weak[rows])
        return UserInterests(self.explicit[rows], part, self.group[rows])

    @classmethod
    def together(cls, parts: "Sequence[UserInterests]") -> "UserInterests":
        """Concatenates interests that one recommender read."""
        if len(parts) == 1:
            return parts[0]
        neighbours = Neighbours(
            *(np.concatenate(column) for column in zip(*(p.neighbours for p in parts), strict=True))
        )
        explicit = np.concatenate([part.explicit for part in parts])
        return cls(explicit, neighbours, np.concatenate([part.group for part in parts]))


@dataclass(frozen=True, kw_only=True)
class RankingRequest:
    """A request for one list.

    Attributes:
        history: item rows, oldest first.
        n: the number of items to return.
        allowed: (N,) bool, the items that may be returned: not seen, not hidden, inside the filter or candidate set.
        also: item rows that are candidates though no channel may find them.
        boost: (N,) what is added to each item's score before the list is cut; None for nothing.
    """

    history: Sequence[int]
    n: int
    allowed: BoolArray
    task: Task = "sequential"
    also: IntArray | None = None
    boost: FloatArray | None = None


class RankedItem(NamedTuple):
    item_index: int
    score: float
    source: str  # a channel of `isrf.method.ranking.fusion.CHANNELS`, or "popular"


class Ranked(NamedTuple):
    """One request's answer, best first: n items, or every allowed item where there are fewer."""

    items: list[RankedItem]
    fused: Fused | None  # scored candidates, and each channel's contribution to the first n; None: popularity answered
    evidence: dict[str, Evidence]


class SearchOutput(NamedTuple):
    """What the learned paths found for B requests."""

    query: FloatArray  # (B, D) the dense path's query: an item's score is query · its vector
    beam_items: IntArray  # (B, K) best first, −1 where a beam is dead
    beam_log_probs: FloatArray  # (B, K) −inf where a beam is dead
    dense: Sequence[BestItems]  # B of them
    explicit: Sequence[BestItems]  # B of them, by the interaction graph
