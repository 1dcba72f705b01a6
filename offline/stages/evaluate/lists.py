"""Computes candidates for every user of a split, and ranked lists from the candidates.

One run of the search graph gives all lists: the fused list, ordered as in serving, the log-linear list, the list
without the generative path, and each channel's own list. It knows nothing of metrics. Other modules define the
questions and measure the lists.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from rich.progress import Progress

from isrf.contract.manifest import FusionWeights
from isrf.method.interest import IntArray
from isrf.method.ranking.fusion import CHANNELS, Candidates, channel_order, fuse
from isrf.method.ranking.ranker import Ranker, ranked_items
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import RankingRequest, SearchOutput, Task, UserInterests
from offline.runtime.hardware import usable_cpus
from offline.stages.evaluate.questions import Question
from offline.stages.evaluate.split import EvaluationSplit

BATCH = 64
LIST_LENGTH = 20
FUSED = "fused"
LOG_LINEAR = "log_linear_fusion"
WITHOUT_GENERATIVE = "without_generative"

View: TypeAlias = Callable[[Candidates], IntArray]
"""Candidates → item rows, best first."""

RankedLists: TypeAlias = dict[str, IntArray]
"""List name → the top `LIST_LENGTH` item rows of every user (R, LIST_LENGTH), −1 where a list is shorter."""


class Scorer(NamedTuple):
    """Orders candidates: by log-linear fusion, or by a ranker on top of it."""

    fusion: FusionWeights
    ranker: Ranker | None

    def order(self, candidates: Candidates) -> IntArray:
        """The candidates' item rows, best first."""
        if self.ranker is None:
            return fuse(candidates, self.fusion, explained=0).items
        return ranked_items(candidates, self.fusion, self.ranker)


class Scorers(NamedTuple):
    """The scorer of the fused list, and the best scorer without the generative path."""

    full: Scorer
    without_generative: Scorer


def all_views(scorers: Scorers, *, task: Task) -> dict[str, View]:
    """The views of candidates for all lists: the fused lists and each channel's own list."""
    if task == "direct":  # serving uses no ranker for this task
        scorers = Scorers(*(scorer._replace(ranker=None) for scorer in scorers))
    return {
        FUSED: lambda candidates: scorers.full.order(candidates),
        LOG_LINEAR: lambda candidates: fuse(candidates, scorers.full.fusion, explained=0).items,
        WITHOUT_GENERATIVE: lambda candidates: scorers.without_generative.order(candidates.without_beams()),
        # Without recent popularity, which knows of events after the held-out one.
        **{name: partial(channel_order, channel=column) for column, name in enumerate(CHANNELS) if name != "popular"},
    }


def rows_of(lists: RankedLists, rows: IntArray) -> RankedLists:
    """The lists of some of the users, in the given order."""
    return {name: items[rows] for name, items in lists.items()}


class Searched(NamedTuple):
    """A batch of requests with the outputs of the graphs."""

    requests: list[RankingRequest]
    interests: UserInterests
    output: SearchOutput


def candidates_of(
    recommender: Recommender, split: EvaluationSplit, question: Question, *, progress: Progress, title: str
) -> Iterator[Candidates]:
    """Yields every user's candidates in order; threads run the graphs some batches ahead (they release the GIL)."""

    def search(start: int) -> Searched:
        rows = range(start, min(start + BATCH, len(split.users)))
        histories = [split.histories[row] for row in rows]
        interests = recommender.read(histories, split.users[start : start + BATCH].tolist())
        requests = [
            RankingRequest(history=history, n=LIST_LENGTH, allowed=question.allowed(row), task=question.task)
            for row, history in zip(rows, histories, strict=True)
        ]
        return Searched(requests, interests, recommender.search(requests, interests))

    task = progress.add_task(title, total=len(split.users))
    for batch in ahead(search, range(0, len(split.users), BATCH)):
        for b, request in enumerate(batch.requests):
            evidence = recommender.evidence(request.history, batch.interests.neighbours, b)
            yield recommender.candidates(request, batch.output, evidence, b)
        progress.advance(task, len(batch.requests))
    progress.remove_task(task)


def ahead(search: Callable[[int], Searched], starts: Iterable[int]) -> Iterator[Searched]:
    """The results of `search` in the order of `starts`; as many calls run in parallel as there are CPUs."""
    count = usable_cpus()
    with ThreadPoolExecutor(max_workers=count) as pool:
        waiting: deque[Future[Searched]] = deque()
        try:
            for start in starts:
                waiting.append(pool.submit(search, start))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # a caller that stops early must not wait for unneeded results
            for future in waiting:
                future.cancel()


def read_lists(source: Iterable[Candidates], count: int, views: Mapping[str, View]) -> RankedLists:
    """The list of every view for each of the `count` candidate sets."""
    lists = {name: np.full((count, LIST_LENGTH), -1, dtype=np.int64) for name in views}
    for row, candidates in enumerate(source):
        for name, view in views.items():
            best = view(candidates)[:LIST_LENGTH]
            lists[name][row, : len(best)] = best
    return lists
