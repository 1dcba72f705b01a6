"""Asks the recommender for every user of a split: candidates, and the lists that can be read off them.

One run of the search graph serves every list: the fused one as it is served, the log-linear one, the one without the
generative path, each channel's own.
It knows nothing of metrics; who is asked for what, and what comes of it, are other modules' business.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from rich.progress import Progress

from isrf.contract.manifest import FusionWeights
from isrf.method.interest import FloatArray, IntArray
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
"""By name, the top `LIST_LENGTH` item rows of every user (R, LIST_LENGTH), −1 where a list is shorter."""


class Scorer(NamedTuple):
    """What orders candidates: log-linear fusion, and the ranker over it where there is one."""

    fusion: FusionWeights
    ranker: Ranker | None

    def order(self, candidates: Candidates, popularity: FloatArray) -> IntArray:
        """Item rows, best first."""
        if self.ranker is None:
            return fuse(candidates, self.fusion, explained=0).items
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
        LOG_LINEAR: lambda candidates: fuse(candidates, scorers.full.fusion, explained=0).items,
        WITHOUT_GENERATIVE: lambda candidates: scorers.without_generative.order(candidates.without_beams(), popularity),
        **{name: partial(channel_order, channel=column) for column, name in enumerate(CHANNELS)},
    }


class _Asked(NamedTuple):
    """A batch of requests and what the graphs said of them."""

    requests: list[RankingRequest]
    interests: UserInterests
    output: SearchOutput


def candidates_of(
    recommender: Recommender, split: EvaluationSplit, question: Question, *, progress: Progress, title: str
) -> Iterator[Candidates]:
    """Every user's candidates in turn; the graphs run some batches ahead, in threads, since they let go of the GIL."""

    def ask(start: int) -> _Asked:
        rows = range(start, min(start + BATCH, len(split.users)))
        histories = [split.histories[row] for row in rows]
        interests = recommender.read(histories, split.users[start : start + BATCH].tolist())
        requests = [
            RankingRequest(history=history, n=LIST_LENGTH, allowed=question.allowed(row), task=question.task)
            for row, history in zip(rows, histories, strict=True)
        ]
        return _Asked(requests, interests, recommender.search(requests, interests))

    task = progress.add_task(title, total=len(split.users))
    for asked in _ahead(ask, range(0, len(split.users), BATCH)):
        for b, request in enumerate(asked.requests):
            evidence = recommender.evidence(request.history, asked.interests.neighbours, b)
            yield recommender.candidates(request, asked.output, evidence, b)
        progress.advance(task, len(asked.requests))
    progress.remove_task(task)


def _ahead(ask: Callable[[int], _Asked], starts: Iterable[int]) -> Iterator[_Asked]:
    """The answers in the order of `starts`, as many under way as there are CPUs."""
    count = usable_cpus()
    with ThreadPoolExecutor(max_workers=count) as pool:
        waiting: deque[Future[_Asked]] = deque()
        try:
            for start in starts:
                waiting.append(pool.submit(ask, start))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # whoever stops reading does not wait for what nobody will read
            for future in waiting:
                future.cancel()


def read_lists(source: Iterable[Candidates], count: int, views: Mapping[str, View]) -> RankedLists:
    """Every view's list of each of the `count` candidate sets."""
    lists = {name: np.full((count, LIST_LENGTH), -1, dtype=np.int64) for name in views}
    for row, candidates in enumerate(source):
        for name, view in views.items():
            best = view(candidates)[:LIST_LENGTH]
            lists[name][row, : len(best)] = best
    return lists
