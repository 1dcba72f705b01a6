"""Maximal marginal relevance: a list whose next item is good and unlike those before it.

Source: J. Carbonell, J. Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries", SIGIR 1998: argmax over the rest of λ · relevance − (1 − λ) · max over the chosen of similarity, λ = 1 −
`diversity` here. Scores and vectors in, places out.
"""

import numpy as np

from isrf.method.interest import FloatArray, unit_rows


def diversify(scores: FloatArray, vectors: FloatArray, n: int, *, diversity: float) -> list[int]:
    """The places of the first n of a list that has been ordered anew.

    Relevance is the score, scaled so that the list spans 0 to 1; similarity is the cosine of two items' vectors.
    Ties go to the item that came first, so that 0 changes nothing and the best item always leads.

    Args:
        scores: (c,) of the list, best first.
        vectors: (c, D) of its items; a zero row is like nothing.
        n: places wanted, c where there are fewer.
        diversity: 0 leaves the order as it is, 1 looks at nothing but how unlike an item is.
    """
    count = min(n, len(scores))
    if diversity == 0 or count < 2:
        return list(range(count))
    span = float(scores.max() - scores.min())
    relevance = (scores - scores.min()) / span if span > 0 else np.ones(len(scores), dtype=np.float32)
    unit = unit_rows(vectors.astype(np.float32))
    chosen = [0]
    likeness = unit @ unit[0]  # of each item to the chosen one that it is most like
    free = np.ones(len(scores), dtype=np.bool_)
    free[0] = False
    while len(chosen) < count:
        value = np.where(free, (1.0 - diversity) * relevance - diversity * likeness, -np.inf)
        best = int(value.argmax())
        chosen.append(best)
        free[best] = False
        likeness = np.maximum(likeness, unit @ unit[best])
    return chosen
