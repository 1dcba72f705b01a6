"""Scores how similar all items are to one item, from cooccurrence, content and the model's item vectors.

    score(j) = log(cooccurrence_i(j) + ε) + log(content_i(j) + ε) + s · cos(v_i, v_j)

The two sparse lists give strong evidence for a few items; the vectors give some evidence for every item, new ones too.
Transitions are left out: an item that people take next is rarely similar. Arrays in, arrays out; the figures are
in docs/lab-notebook.md.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import ItemLists
from isrf.method.interest import FloatArray, unit_rows

LIST_CHANNELS = ("cooccurrence", "content")
CHANNELS = (*LIST_CHANNELS, "dense")
EPSILON = 1e-3
SCALE = 10.0


class Likeness(NamedTuple):
    """How similar every item is to one item."""

    scores: FloatArray  # (N,)
    lifts: NDArray[np.float32]  # (N, len(CHANNELS)): what each channel adds for an item, over an item it does not list

    def source(self, row: int) -> str:
        """The channel that adds most for an item."""
        return CHANNELS[int(self.lifts[row].argmax())]


def likeness(item: int, lists: Mapping[str, ItemLists], vectors: FloatArray) -> Likeness:
    """Scores the similarity of every item to one item (itself included).

    Args:
        item: the item's row.
        lists: the lists of every channel of `LIST_CHANNELS`, a row per item.
        vectors: (N, D); a zero row is similar to nothing.
    """
    lifts = np.zeros((len(vectors), len(CHANNELS)), dtype=np.float32)
    for column, name in enumerate(LIST_CHANNELS):
        entries = lists[name].entries(item)
        known = entries.indices < len(vectors)  # live evidence may name items that came after these
        lifts[entries.indices[known], column] = np.log1p(entries.weights[known] / np.float32(EPSILON))
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))  # makes no array of all squares
    cosines = (vectors @ unit_rows(vectors[item])) / np.where(norms > 0, norms, 1)
    lifts[:, -1] = SCALE * (cosines - cosines.mean())
    scores: FloatArray = lifts.sum(axis=1, dtype=np.float32)
    return Likeness(scores, lifts)
