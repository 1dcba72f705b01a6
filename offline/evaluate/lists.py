"""Asks the recommender for every user of a split: candidates, and the lists that can be read off them.

One run of the search graph serves every list: the fused one as it is served, the log-linear one, the one without the
generative path, each channel's own.
It knows nothing of metrics; who is asked for what, and what comes of it, are other modules' business.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from rich.progress import Progress

from isrf.bundle import FusionWeights
from isrf.evidence import Evidence
from isrf.fusion import CHANNELS, Candidates, channel_order, fuse
from isrf.interest import FloatArray, IntArray
from isrf.ranker import Ranker, ranked_items
from isrf.recommend import RankRequest, Recommender, Task
from offline.evaluate.questions import Question
from offline.evaluate.split import Split

BATCH = 64
LIST_LENGTH = 20
FUSED = "fused"
LOG_LINEAR = "log_linear_fusion"
WITHOUT_GENERATIVE = "without_generative"

View: TypeAlias = Callable[[Candidates], IntArray]
"""Candidates → item rows, best first."""

Lists: TypeAlias = dict[str, IntArray]
"""By name, the top `LIST_LENGTH` item rows of every user (R, LIST_LENGTH), −1 where a list is shorter."""


class Scorer(NamedTuple):
    """What orders candidates: log-linear fusion, and the ranker over it where there is one."""

    fusion: FusionWeights
    ranker: Ranker | None

    def order(self, candidates: Candidates, popularity: FloatArray) -> IntArray:
        """Item rows, best first."""
        if self.ranker is None:
            return fuse(candidates, self.fusion).items
        return ranked_items(candidates, self.fusion, self.ranker, popularity=popularity)


class Scorers(NamedTuple):
    """What is served, and the best one found without the generative path."""

    full: Scorer
    without_generative: Scorer


def all_views(scorers: Scorers, popularity: FloatArray, *, task: Task) -> dict[str, View]:
    """Every list that candidates can be read off into: the fused ones and each channel's own."""
    if task == "direct":  # as served: no ranker
        scorers = Scorers(*(one._replace(ranker=None) for one in scorers))
    return {
        FUSED: lambda candidates: scorers.full.order(candidates, popularity),
        LOG_LINEAR: lambda candidates: fuse(candidates, scorers.full.fusion).items,
        WITHOUT_GENERATIVE: lambda candidates: scorers.without_generative.order(candidates.without_beams(), popularity),
        **{name: partial(channel_order, channel=column) for column, name in enumerate(CHANNELS)},
    }


def candidates_of(
    recommender: Recommender, split: Split, question: Question, *, progress: Progress, title: str
) -> Iterator[Candidates]:
    """Every user's candidates in turn, a batch at a time."""
    task = progress.add_task(title, total=len(split.users))
    for start in range(0, len(split.users), BATCH):
        rows = range(start, min(start + BATCH, len(split.users)))
        histories = [split.histories[row] for row in rows]
        interests = recommender.read(histories, split.users[start : start + BATCH].tolist())
        requests = [
            RankRequest(history=history, n=LIST_LENGTH, allowed=question.allowed(row), task=question.task)
            for row, history in zip(rows, histories, strict=True)
        ]
        output = recommender.search(requests, interests)
        for b, request in enumerate(requests):
            evidence: dict[str, Evidence] = recommender.evidence(request.history, interests.neighbours, b)
            yield recommender.candidates(request, output, interests.explicit[b], evidence, b)
        progress.advance(task, len(rows))
    progress.remove_task(task)


def read_lists(source: Iterable[Candidates], count: int, views: Mapping[str, View]) -> Lists:
    """Every view's list of each of the `count` candidate sets."""
    lists = {name: np.full((count, LIST_LENGTH), -1, dtype=np.int64) for name in views}
    for row, candidates in enumerate(source):
        for name, view in views.items():
            best = view(candidates)[:LIST_LENGTH]
            lists[name][row, : len(best)] = best
    return lists
