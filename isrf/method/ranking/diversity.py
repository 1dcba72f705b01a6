"""Reorders a list by maximal marginal relevance: each next item scores well and differs from the items before it.

Source: J. Carbonell, J. Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries", SIGIR 1998: argmax over the rest of λ · relevance − (1 − λ) · max over the chosen of similarity, λ = 1 −
`diversity` here. Scores and vectors in, positions out.
"""

import numpy as np

from isrf.method.interest import FloatArray, unit_rows


def diversify(scores: FloatArray, vectors: FloatArray, n: int, *, diversity: float) -> list[int]:
    """The positions in the given list of the first n items of the diversified list.

    Relevance is the score, scaled so that the list spans 0 to 1; similarity is the cosine of two items' vectors. Ties
    go to the item with the better position, so a `diversity` of 0 changes nothing. The best item is always first.

    Args:
        scores: (c,) the list's scores, best first.
        vectors: (c, D) its items' vectors; a zero row is similar to nothing.
        n: the number of positions; c where there are fewer.
        diversity: 0 leaves the order unchanged, 1 uses only the dissimilarity.
    """
    count = min(n, len(scores))
    if diversity == 0 or count < 2:
        return list(range(count))
    span = float(scores.max() - scores.min())
    relevance = (scores - scores.min()) / span if span > 0 else np.ones(len(scores), dtype=np.float32)
    unit = unit_rows(vectors.astype(np.float32))
    chosen = [0]
    likeness = unit @ unit[0]  # of each item to the most similar chosen item
    free = np.ones(len(scores), dtype=np.bool_)
    free[0] = False
    while len(chosen) < count:
        value = np.where(free, (1.0 - diversity) * relevance - diversity * likeness, -np.inf)
        best = int(value.argmax())
        chosen.append(best)
        free[best] = False
        likeness = np.maximum(likeness, unit @ unit[best])
    return chosen
