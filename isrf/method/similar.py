"""Items that are like an item: what it was taken together with, what is described like it, what the model puts near it.

    score(j) = log(cooccurrence_i(j) + ε) + log(content_i(j) + ε) + s · cos(v_i, v_j)

Two sparse lists say much of few items, the vectors something of every item, new ones included. Transitions are left
out: what is taken after an item is rarely like it. Arrays in, arrays out; figures in docs/lab-notebook.md.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import SparseLists
from isrf.method.interest import FloatArray, unit_rows

LIST_CHANNELS = ("cooccurrence", "content")
CHANNELS = (*LIST_CHANNELS, "dense")
EPSILON = 1e-3
SCALE = 10.0


class Likeness(NamedTuple):
    """Of every item to one."""

    scores: FloatArray  # (N,)
    lifts: NDArray[np.float32]  # (N, len(CHANNELS)): by how much each channel lifts an item over one it says nothing of

    def source(self, row: int) -> str:
        """The channel that speaks loudest for an item."""
        return CHANNELS[int(self.lifts[row].argmax())]


def likeness(item: int, lists: dict[str, SparseLists], vectors: FloatArray) -> Likeness:
    """How much every item is like one (itself included).

    Args:
        item: its row.
        lists: of every channel of `LIST_CHANNELS`, a row per item.
        vectors: (N, D), a zero row is near nothing.
    """
    lifts = np.zeros((len(vectors), len(CHANNELS)), dtype=np.float32)
    for column, name in enumerate(LIST_CHANNELS):
        listed = lists[name].row(item)
        lifts[lists[name].indices[listed], column] = np.log1p(lists[name].weights[listed] / np.float32(EPSILON))
    norms = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ unit_rows(vectors[item])) / np.where(norms > 0, norms, 1)
    lifts[:, -1] = SCALE * (cosines - cosines.mean())
    scores: FloatArray = lifts.sum(axis=1, dtype=np.float32)
    return Likeness(scores, lifts)
