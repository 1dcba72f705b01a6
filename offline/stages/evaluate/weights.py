"""Chooses the fusion weights, and the ranker over them, on validation users.

It chooses twice: the scorer that is served, and the best scorer without the generative path. The candidates of all
users stay in memory for both choices and for the lists afterwards, so that the search runs only once per user.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress

from isrf.method.interest import IntArray
from isrf.method.metrics import ndcg
from isrf.method.ranking.fusion import DEFAULT_FUSION, Candidates
from isrf.method.ranking.fusion_fit import choose_weights
from isrf.method.recommend.recommender import Recommender
from offline.config import RunConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.runtime.left_out import MIN_HELD_OUT, default_fusion
from offline.stages.evaluate.lists import RankedLists, Scorer, Scorers, all_views, candidates_of, read_lists
from offline.stages.evaluate.questions import Question
from offline.stages.evaluate.ranker import choose_ranker, collect
from offline.stages.evaluate.split import EvaluationSplit

FUSION_WITHOUT_GENERATIVE = "fusion_without_generative"
RANKER_WITHOUT_GENERATIVE = "ranker_without_generative"
FUSION_LEAVE_ONE_OUT = "fusion_leave_one_out"
RANKER_LEAVE_ONE_OUT = "ranker_leave_one_out"
"""Keys, in an evaluation, of the scorers that are not the release's own, for measuring the release again. The
leave-one-out scorer is missing where it is also the one that is served."""

CUTOFF = 10


class Chosen(NamedTuple):
    """Both chosen scorers, their lists and a report."""

    scorers: Scorers
    lists: RankedLists  # of the users that the scorers were chosen on, in their order
    report: dict[str, Any]


class ScorerChoice(NamedTuple):
    """A chosen scorer with its figures."""

    scorer: Scorer
    ndcg_at_10: float  # of the fusion, on the users that it was chosen on
    ranker: dict[str, Any]  # whether the ranker is served, and why


def choose_scorers(
    recommender: Recommender,
    sample: EvaluationSplit,
    question: Question,
    *,
    config: RunConfig,
    progress: Progress,
    engine: StageEngine = LOCAL,
) -> Chosen:
    """Chooses both scorers on a sample of validation users.

    Args:
        recommender: finds the candidates.
        sample: a part of the validation split.
        question: the protocol, for `sample`.
        config: `evaluate.without` names channels that neither scorer may use.
        progress: shows the progress.
        engine: computes the candidates.
    """
    title = "evaluate: choosing fusion weights"
    found = candidates_of(recommender, sample, question, progress=progress, title=title, engine=engine)
    candidates = list(found)
    full, without = (choose_scorer(candidates, sample.targets, config=config, beams=beams) for beams in (True, False))
    report: dict[str, Any] = {
        "split": "valid",
        "users": len(sample.users),
        "NDCG@10": round(full.ndcg_at_10, 5),
        "NDCG@10_without_generative": round(without.ndcg_at_10, 5),
        "ranker": full.ranker,
        RANKER_WITHOUT_GENERATIVE: without.ranker,
    }
    scorers = Scorers(full.scorer, without.scorer)
    views = all_views(scorers, task=question.task)
    return Chosen(scorers, read_lists(candidates, len(candidates), views), report)


def choose_scorer(
    candidates: Sequence[Candidates],
    targets: IntArray,
    *,
    config: RunConfig,
    beams: bool,
    live: bool = False,
) -> ScorerChoice:
    """Chooses the best scorer on these users: fusion weights, and a ranker over them if one wins.

    Args:
        candidates: one per user.
        targets: (R,) their held-out item rows.
        config: `evaluate.without` names channels that must not be used; `evaluate.ranker`: whether a ranker is tried.
        beams: whether to use the generative path; if not, candidates that only its beams found are left out too.
        live: whether the candidates were made just before their targets' time, so that recent popularity may count.
    """
    settings = config.evaluate
    without = {*settings.without, *(() if beams else ("generative",))}
    if len(candidates) < MIN_HELD_OUT:
        return _unfitted(candidates, targets, without=without, beams=beams)
    without |= set() if live else {"popular"}
    choice = choose_weights(candidates, targets, start=DEFAULT_FUSION, without=without, without_beams=not beams)
    if not settings.ranker:
        reason = {"served": False, "reason": "evaluate.ranker is false"}
        return ScorerChoice(Scorer(choice.fusion, None), choice.ndcg_at_10, reason)
    source = candidates if beams else (request.without_beams() for request in candidates)
    collected = collect(source, targets, fusion=choice.fusion, without=without)
    ranker, figures = choose_ranker(
        collected, without=without, seed=config.seed, bootstrap_samples=settings.bootstrap_samples
    )
    return ScorerChoice(Scorer(choice.fusion, ranker), choice.ndcg_at_10, figures)


def _unfitted(
    candidates: Sequence[Candidates], targets: IntArray, *, without: Collection[str], beams: bool
) -> ScorerChoice:
    """The default weights, where a choice on so few requests would be noise."""
    scorer = Scorer(default_fusion(without), None)
    source = candidates if beams else [request.without_beams() for request in candidates]
    reason = {"served": False, "reason": f"fewer than {MIN_HELD_OUT} held-out events"}
    return ScorerChoice(scorer, ndcg_at_10(scorer, source, targets), reason)


def ndcg_at_10(scorer: Scorer, candidates: Sequence[Candidates], targets: IntArray) -> float:
    """The mean NDCG@10 of a scorer's lists; 0 without candidates.

    Args:
        scorer: orders the candidates.
        candidates: one per request.
        targets: (R,) rows of the held-out items.
    """
    ranks = [_rank(scorer.order(found), target) for found, target in zip(candidates, targets.tolist(), strict=True)]
    return float(ndcg(np.array(ranks), CUTOFF).mean()) if ranks else 0.0


def _rank(items: IntArray, target: int) -> int:
    found = np.flatnonzero(items == target)
    return int(found[0]) if len(found) else -1


def join_lists(rows: IntArray, lists: RankedLists, other_rows: IntArray, other_lists: RankedLists) -> RankedLists:
    """The lists of a whole split, joined from the lists of two parts with the given rows."""
    order = np.argsort(np.concatenate([rows, other_rows]))
    return {name: np.concatenate([items, other_lists[name]])[order] for name, items in lists.items()}
