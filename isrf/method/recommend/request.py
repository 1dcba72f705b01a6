"""What a recommender is asked and what it answers: a request, its interests, the search's output, the ranked list."""

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

Task = Literal["sequential", "direct"]
CHANNEL_LIMIT = 200
"""Candidates that the explicit channel and each evidence channel may bring."""

SCORE_DIGITS = 4
"""Of a score as it is shown; the order was made from all of them."""


class UserInterests(NamedTuple):
    """What B histories say of their users, before any item is scored."""

    explicit: FloatArray  # (B, E)
    neighbours: Neighbours
    group: FloatArray  # (B, G)

    def rows(self, queries: Sequence[int]) -> "UserInterests":
        """The part of some of the queries, in the given order."""
        kept, near = list(queries), self.neighbours
        part = Neighbours(near.users[kept], near.similarity[kept], near.weak[kept])
        return UserInterests(self.explicit[kept], part, self.group[kept])

    @classmethod
    def together(cls, parts: "Sequence[UserInterests]") -> "UserInterests":
        """Those of one recommender, one after the other."""
        if len(parts) == 1:
            return parts[0]
        neighbours = Neighbours(
            *(np.concatenate(column) for column in zip(*(p.neighbours for p in parts), strict=True))
        )
        explicit = np.concatenate([part.explicit for part in parts])
        return cls(explicit, neighbours, np.concatenate([part.group for part in parts]))


@dataclass(frozen=True, kw_only=True)
class RankingRequest:
    """One list to make.

    Attributes:
        history: item rows, oldest first.
        n: how many items are wanted.
        allowed: (N,) bool, the items that may be answered: not seen, not hidden, inside the filter or candidate set.
    """

    history: Sequence[int]
    n: int
    allowed: BoolArray
    task: Task = "sequential"


class RankedItem(NamedTuple):
    item_index: int
    score: float
    source: str  # a channel of `isrf.method.ranking.fusion.CHANNELS`, or "popular"


class Ranked(NamedTuple):
    """One request's answer, best first: n items, or every allowed item where those are fewer."""

    items: list[RankedItem]
    fused: Fused | None  # the scored candidates, of the first n each channel's contribution; None: popularity answered
    evidence: dict[str, Evidence]


class SearchOutput(NamedTuple):
    """The search graph's answer to B requests (docs/concepts/bundle.md names shapes and meaning)."""

    beam_items: IntArray
    beam_log_probs: FloatArray
    dense_items: IntArray
    dense_log_probs: FloatArray
    query: FloatArray
    dense_all: FloatArray
    explicit_items: IntArray
    explicit_all: FloatArray
