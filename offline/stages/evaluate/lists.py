"""Computes candidates for every user of a split, and ranked lists from the candidates.

One run of the search graph gives all lists: the fused list, ordered as in serving, the log-linear list, the list
without the generative path, and each channel's own list. It knows nothing of metrics. Other modules define the
questions and measure the lists.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from rich.progress import Progress

from isrf.contract.manifest import FusionWeights
from isrf.method.interest import IntArray
from isrf.method.ranking.fusion import CHANNELS, Candidates, channel_order, fuse
from isrf.method.ranking.ranker import Ranker, ranked_items
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import RankingRequest, Task
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
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


class SplitQuestion(NamedTuple):
    """What every batch of a split is asked."""

    split: EvaluationSplit
    question: Question


def candidates_of(
    recommender: Recommender,
    split: EvaluationSplit,
    question: Question,
    *,
    progress: Progress,
    title: str,
    engine: StageEngine = LOCAL,
) -> Iterator[Candidates]:
    """Yields every user's candidates in order."""
    given = (recommender, SplitQuestion(split, question))
    with _shown(progress, title, len(split.users)) as advance:
        for found in engine.map(candidates_of_batch, given, _starts(split), in_threads=True):
            yield from found
            advance(len(found))


def ranked_lists(
    recommender: Recommender,
    split: EvaluationSplit,
    question: Question,
    scorers: Scorers,
    *,
    progress: Progress,
    title: str,
    engine: StageEngine = LOCAL,
) -> RankedLists:
    """All lists of all users; the candidates stay where they were computed."""
    given = (recommender, SplitQuestion(split, question), scorers)
    parts: list[RankedLists] = []
    with _shown(progress, title, len(split.users)) as advance:
        for part in engine.map(lists_of_batch, given, _starts(split), in_threads=True):
            parts.append(part)
            advance(len(part[FUSED]))
    if not parts:
        return read_lists((), 0, all_views(scorers, task=question.task))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def candidates_of_batch(start: int, recommender: Recommender, asked: SplitQuestion) -> list[Candidates]:
    """The candidates of `BATCH` users from row `start` of the split on."""
    split, question = asked
    rows = range(start, min(start + BATCH, len(split.users)))
    histories = [split.histories[row] for row in rows]
    interests = recommender.read(histories, split.users[start : start + BATCH].tolist())
    requests = [
        RankingRequest(history=history, n=LIST_LENGTH, allowed=question.allowed(row), task=question.task)
        for row, history in zip(rows, histories, strict=True)
    ]
    output = recommender.search(requests, interests)
    return [
        recommender.candidates(
            request, output, recommender.evidence(request.history, interests.neighbours, place), place
        )
        for place, request in enumerate(requests)
    ]


def lists_of_batch(start: int, recommender: Recommender, asked: SplitQuestion, scorers: Scorers) -> RankedLists:
    """The lists of the same users."""
    candidates = candidates_of_batch(start, recommender, asked)
    return read_lists(candidates, len(candidates), all_views(scorers, task=asked.question.task))


def _starts(split: EvaluationSplit) -> range:
    return range(0, len(split.users), BATCH)


@contextlib.contextmanager
def _shown(progress: Progress, title: str, total: int) -> Iterator[Callable[[int], None]]:
    task = progress.add_task(title, total=total)
    yield partial(progress.advance, task)
    progress.remove_task(task)


def read_lists(source: Iterable[Candidates], count: int, views: Mapping[str, View]) -> RankedLists:
    """The list of every view for each of the `count` candidate sets."""
    lists = {name: np.full((count, LIST_LENGTH), -1, dtype=np.int64) for name in views}
    for row, candidates in enumerate(source):
        for name, view in views.items():
            best = view(candidates)[:LIST_LENGTH]
            lists[name][row, : len(best)] = best
    return lists
