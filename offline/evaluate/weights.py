"""Chooses the fusion weights on validation users: those that are served, and the best ones without the generative path.

Candidates of all users asked are in memory while the weights are chosen, and are read off into lists afterwards, so
that nobody is asked twice.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress

from isrf.fusion import DEFAULT_FUSION, choose_weights
from isrf.interest import IntArray
from isrf.recommend import Recommender
from offline.evaluate.lists import Fusions, Lists, all_views, candidates_of, read_lists
from offline.evaluate.questions import Question
from offline.evaluate.split import Split

FUSION_WITHOUT_GENERATIVE = "fusion_without_generative"
"""Where an evaluation keeps the second one, for whoever measures the release again."""


class Chosen(NamedTuple):
    fusions: Fusions
    lists: Lists  # of the users asked, in their order
    report: dict[str, Any]


def choose_fusions(
    recommender: Recommender, asked: Split, question: Question, *, without: Collection[str], progress: Progress
) -> Chosen:
    """Both fusions by NDCG@10 on the users of `asked`, all of them a part of the validation split.

    Args:
        recommender: who is asked.
        asked: a part of the validation split.
        question: about `asked`.
        without: channels that get no weight in either.
        progress: bars.
    """
    title = "evaluate: choosing fusion weights"
    candidates = list(candidates_of(recommender, asked, question, progress=progress, title=title))
    full = choose_weights(candidates, asked.targets, start=DEFAULT_FUSION, without=without)
    weaker = choose_weights(candidates, asked.targets, start=full.fusion, without={*without, "generative"})
    fusions = Fusions(full.fusion, weaker.fusion)
    lists = read_lists(candidates, len(candidates), all_views(fusions))
    report = {
        "split": "valid",
        "users": len(asked.users),
        "NDCG@10": round(full.ndcg_at_10, 5),
        "NDCG@10_without_generative": round(weaker.ndcg_at_10, 5),
    }
    return Chosen(fusions, lists, report)


def join_lists(asked: IntArray, lists: Lists, others: IntArray, of_others: Lists) -> Lists:
    """The lists of a whole split from those of two parts, whose rows are `asked` and `others`."""
    order = np.argsort(np.concatenate([asked, others]))
    return {name: np.concatenate([own, of_others[name]])[order] for name, own in lists.items()}
