"""Chooses what orders the candidates on validation users: fusion weights and the ranker over them.

Twice: as it is served, and the best without the generative path. Candidates of all users asked are in memory while both
are chosen, and are read off into lists afterwards, so that nobody is asked twice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress

from isrf.method.interest import FloatArray, IntArray
from isrf.method.ranking.fusion import DEFAULT_FUSION, Candidates
from isrf.method.ranking.fusion_fit import choose_weights
from isrf.method.recommend.recommender import Recommender
from offline.config import RunConfig
from offline.stages.evaluate.lists import RankedLists, Scorer, Scorers, all_views, candidates_of, read_lists
from offline.stages.evaluate.questions import Question
from offline.stages.evaluate.ranker import choose_ranker, collect
from offline.stages.evaluate.split import EvaluationSplit

FUSION_WITHOUT_GENERATIVE = "fusion_without_generative"
RANKER_WITHOUT_GENERATIVE = "ranker_without_generative"
"""Where an evaluation keeps the second one, for whoever measures the release again."""


class Chosen(NamedTuple):
    scorers: Scorers
    lists: RankedLists  # of the users asked, in their order
    report: dict[str, Any]


class Found(NamedTuple):
    scorer: Scorer
    ndcg_at_10: float  # of the fusion, on the users that it was chosen on
    ranker: dict[str, Any]  # why it is served or not


def choose_scorers(
    recommender: Recommender, asked: EvaluationSplit, question: Question, *, config: RunConfig, progress: Progress
) -> Chosen:
    """Both scorers by NDCG@10 on the users of `asked`, all of them a part of the validation split.

    Args:
        recommender: who is asked.
        asked: a part of the validation split.
        question: about `asked`.
        config: `evaluate.without` names channels that neither may use.
        progress: bars.
    """
    title = "evaluate: choosing fusion weights"
    candidates = list(candidates_of(recommender, asked, question, progress=progress, title=title))
    popularity = recommender.tables.popularity
    full, weaker = (
        choose_scorer(candidates, asked.targets, popularity, config=config, beams=beams) for beams in (True, False)
    )
    report: dict[str, Any] = {
        "split": "valid",
        "users": len(asked.users),
        "NDCG@10": round(full.ndcg_at_10, 5),
        "NDCG@10_without_generative": round(weaker.ndcg_at_10, 5),
        "ranker": full.ranker,
        RANKER_WITHOUT_GENERATIVE: weaker.ranker,
    }
    scorers = Scorers(full.scorer, weaker.scorer)
    views = all_views(scorers, popularity, task=question.task)
    return Chosen(scorers, read_lists(candidates, len(candidates), views), report)


def choose_scorer(
    candidates: Sequence[Candidates],
    targets: IntArray,
    popularity: FloatArray,
    *,
    config: RunConfig,
    beams: bool,
) -> Found:
    """What orders candidates best on these users: fusion weights, and a ranker over them where one wins.

    Args:
        candidates: one per user.
        targets: (R,) their held-out item rows.
        popularity: (N,) training interactions of every item.
        config: `evaluate.without` names channels that may not be used, `evaluate.ranker` whether one is tried.
        beams: whether there is a generative path; without, nor do its beams bring candidates.
    """
    settings = config.evaluate
    without = {*settings.without, *(() if beams else ("generative",))}
    choice = choose_weights(candidates, targets, start=DEFAULT_FUSION, without=without, without_beams=not beams)
    if not settings.ranker:
        reason = {"served": False, "reason": "evaluate.ranker is false"}
        return Found(Scorer(choice.fusion, None), choice.ndcg_at_10, reason)
    source = candidates if beams else (one.without_beams() for one in candidates)
    collected = collect(source, targets, fusion=choice.fusion, popularity=popularity, without=without)
    ranker, figures = choose_ranker(
        collected, without=without, seed=config.seed, bootstrap_samples=settings.bootstrap_samples
    )
    return Found(Scorer(choice.fusion, ranker), choice.ndcg_at_10, figures)


def join_lists(asked: IntArray, lists: RankedLists, others: IntArray, of_others: RankedLists) -> RankedLists:
    """The lists of a whole split from those of two parts, whose rows are `asked` and `others`."""
    order = np.argsort(np.concatenate([asked, others]))
    return {name: np.concatenate([own, of_others[name]])[order] for name, own in lists.items()}
