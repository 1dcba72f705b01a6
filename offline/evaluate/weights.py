"""Chooses what orders the candidates on validation users: fusion weights and the ranker over them.

Twice: as it is served, and the best without the generative path. Candidates of all users asked are in memory while both
are chosen, and are read off into lists afterwards, so that nobody is asked twice.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress

from isrf.bundle import FusionWeights
from isrf.fusion import DEFAULT_FUSION, Candidates
from isrf.fusion_fit import choose_weights
from isrf.interest import FloatArray, IntArray
from isrf.ranker import Ranker
from isrf.recommend import Recommender
from offline.config import RunConfig
from offline.evaluate.lists import Lists, Scorer, Scorers, all_views, candidates_of, read_lists
from offline.evaluate.questions import Question
from offline.evaluate.ranker import choose_ranker, collect
from offline.evaluate.split import Split

FUSION_WITHOUT_GENERATIVE = "fusion_without_generative"
RANKER_WITHOUT_GENERATIVE = "ranker_without_generative"
"""Where an evaluation keeps the second one, for whoever measures the release again."""


class Chosen(NamedTuple):
    scorers: Scorers
    lists: Lists  # of the users asked, in their order
    report: dict[str, Any]


def choose_scorers(
    recommender: Recommender, asked: Split, question: Question, *, config: RunConfig, progress: Progress
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
    excluded = set(config.evaluate.without)
    full = choose_weights(candidates, asked.targets, start=DEFAULT_FUSION, without=excluded)
    weaker = choose_weights(
        candidates, asked.targets, start=DEFAULT_FUSION, without={*excluded, "generative"}, without_beams=True
    )
    report: dict[str, Any] = {
        "split": "valid",
        "users": len(asked.users),
        "NDCG@10": round(full.ndcg_at_10, 5),
        "NDCG@10_without_generative": round(weaker.ndcg_at_10, 5),
    }
    fitting = _Fitting(candidates, asked.targets, recommender.tables.popularity, config)
    served, report["ranker"] = fitting.ranker(full.fusion, excluded)
    second, report[RANKER_WITHOUT_GENERATIVE] = fitting.ranker(weaker.fusion, {*excluded, "generative"}, beams=False)
    scorers = Scorers(Scorer(full.fusion, served), Scorer(weaker.fusion, second))
    views = all_views(scorers, recommender.tables.popularity, task=question.task)
    return Chosen(scorers, read_lists(candidates, len(candidates), views), report)


class _Fitting(NamedTuple):
    """On what rankers are fitted."""

    candidates: Sequence[Candidates]
    targets: IntArray
    popularity: FloatArray
    config: RunConfig

    def ranker(
        self, fusion: FusionWeights, without: Collection[str], *, beams: bool = True
    ) -> tuple[Ranker | None, dict[str, Any]]:
        """The ranker over `fusion` if it wins, and the figures; `beams`: whether beams bring candidates."""
        settings = self.config.evaluate
        if not settings.ranker:
            return None, {"served": False, "reason": "evaluate.ranker is false"}
        source = self.candidates if beams else (one.without_beams() for one in self.candidates)
        collected = collect(source, self.targets, fusion=fusion, popularity=self.popularity, without=without)
        return choose_ranker(
            collected, without=without, seed=self.config.seed, bootstrap_samples=settings.bootstrap_samples
        )


def join_lists(asked: IntArray, lists: Lists, others: IntArray, of_others: Lists) -> Lists:
    """The lists of a whole split from those of two parts, whose rows are `asked` and `others`."""
    order = np.argsort(np.concatenate([asked, others]))
    return {name: np.concatenate([own, of_others[name]])[order] for name, own in lists.items()}
