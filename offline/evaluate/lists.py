"""Asks the recommender for every user of a split: candidates, and the lists that come of them.

It knows nothing of metrics; who is asked and what is measured are other modules' business.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.bundle import FusionWeights
from isrf.evidence import Evidence
from isrf.fusion import CHANNELS, Candidates, channel_order, fuse
from isrf.interest import IntArray
from isrf.recommend import RankRequest, Recommender
from offline.evaluate.split import Split

BATCH = 64
LIST_LENGTH = 20


def candidates_of(
    recommender: Recommender, split: Split, *, include_seen: bool, progress: Progress, title: str
) -> Iterator[Candidates]:
    """Every user's candidates in turn, a batch at a time."""
    num_items = len(recommender.tables.item_vectors)
    task = progress.add_task(title, total=len(split.users))
    for start in range(0, len(split.users), BATCH):
        histories = split.histories[start : start + BATCH]
        interests = recommender.read(histories, split.users[start : start + BATCH].tolist())
        requests = [
            RankRequest(history=history, n=LIST_LENGTH, allowed=_allowed(bought, num_items, include_seen))
            for history, bought in zip(histories, split.bought[start : start + BATCH], strict=True)
        ]
        output = recommender.search(requests, interests)
        for b, request in enumerate(requests):
            evidence: dict[str, Evidence] = recommender.evidence(request.history, interests.neighbours, b)
            yield recommender.candidates(request, output, interests.explicit[b], evidence, b)
        progress.advance(task, len(histories))
    progress.remove_task(task)


def _allowed(bought: Sequence[int], num_items: int, include_seen: bool) -> NDArray[np.bool_]:
    allowed = np.ones(num_items, dtype=np.bool_)
    if not include_seen:
        allowed[bought] = False
    return allowed


class Lists(NamedTuple):
    """Top `LIST_LENGTH` item rows of every user, −1 where a list is shorter."""

    fused: IntArray  # (R, LIST_LENGTH)
    channels: dict[str, IntArray]


def top_lists(
    recommender: Recommender,
    split: Split,
    fusion: FusionWeights,
    *,
    include_seen: bool,
    progress: Progress,
    title: str,
) -> Lists:
    """Fused lists and every channel's own."""
    shape = (len(split.users), LIST_LENGTH)
    fused = np.full(shape, -1, dtype=np.int64)
    channels = {name: np.full(shape, -1, dtype=np.int64) for name in CHANNELS}
    source = candidates_of(recommender, split, include_seen=include_seen, progress=progress, title=title)
    for row, candidates in enumerate(source):
        best = fuse(candidates, fusion).items[:LIST_LENGTH]
        fused[row, : len(best)] = best
        for column, name in enumerate(CHANNELS):
            own = channel_order(candidates, column)[:LIST_LENGTH]
            channels[name][row, : len(own)] = own
    return Lists(fused, channels)
