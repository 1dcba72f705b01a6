"""The protocols of an evaluation: the task, and the items that may be recommended to each user.

Full ranking excludes seen items, as in serving, or includes them. Direct recommendation ranks the held-out item among
sampled items.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from isrf.method.interest import BoolArray, IntArray
from isrf.method.recommend.request import Task
from offline.stages.evaluate.split import EvaluationSplit

NUM_NEGATIVES = 99
"""Sampled items of a direct recommendation, in addition to the held-out item (the protocol of P5 and of ISRF's direct
task)."""


class Question(NamedTuple):
    """A task and the items that may be recommended to each user of a split."""

    protocol: str  # a description that is stored with every figure
    allowed: Callable[[int], BoolArray]  # row of the split → (N,) items that may be recommended
    task: Task = "sequential"


def full_ranking(
    split: EvaluationSplit, num_items: int, *, tie_seed: int | None, include_seen: bool = False
) -> Question:
    """The next item out of the whole catalogue; in data with event types only purchases are excluded, as in serving."""

    def allowed(row: int) -> BoolArray:
        mask = np.ones(num_items, dtype=np.bool_)
        if not include_seen:
            mask[split.bought[row]] = False
        return mask

    excluded = "bought items excluded" if split.typed else "seen items excluded"
    seen = "seen items included" if include_seen else excluded
    return Question(f"leave-one-out, full ranking, {_order(tie_seed)}, {seen}", allowed)


def direct(split: EvaluationSplit, num_items: int, *, tie_seed: int | None, seed: int) -> Question:
    """The held-out item among `NUM_NEGATIVES` items that the user had no event with; in a small shop among all of them.

    A user's negatives depend only on seed and user, not on the other users or on the order of rows.
    """

    def allowed(row: int) -> BoolArray:
        known = np.unique([*split.histories[row], split.targets[row]])
        mask = np.zeros(num_items, dtype=np.bool_)
        mask[sample_negatives(known, num_items, seed=seed, user=int(split.users[row]))] = True
        mask[split.targets[row]] = True
        return mask

    drawn = f"{NUM_NEGATIVES} unseen ones drawn at random" if num_items > NUM_NEGATIVES else "all unseen ones"
    return Question(
        f"leave-one-out, the held-out item among {drawn}, {_order(tie_seed)}",
        allowed,
        task="direct",
    )


def sample_negatives(known: IntArray, num_items: int, *, seed: int, user: int) -> IntArray:
    """At most `NUM_NEGATIVES` item rows outside `known` (distinct rows), drawn uniformly with (seed, user)."""
    rng = np.random.default_rng([seed, user])
    drawn = rng.choice(num_items, size=min(num_items, NUM_NEGATIVES + len(known)), replace=False)
    return drawn[~np.isin(drawn, known)][:NUM_NEGATIVES]


def _order(tie_seed: int | None) -> str:
    return "ties in file order" if tie_seed is None else f"ties shuffled with seed {tie_seed}"
