"""A recommender that knows some of its release's items by their text alone, as items that came since the release."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.goldens.items import TextReading
from isrf.method.interest import BoolArray
from isrf.method.recommend.recommender import Graph, OfferedItems, Recommender
from isrf.method.text.encoder import TextFields
from isrf.runtime.item_index import ItemIndex


class CatalogueReading(NamedTuple):
    """How the release reads a new item's text, and the items' texts as a shop would send them."""

    reading: TextReading
    texts: Sequence[TextFields]  # N of them


def with_items_as_new(recommender: Recommender, catalogue: CatalogueReading, known: BoolArray) -> Recommender:
    """The recommender that reads all items outside of `known` (N,) by their text.

    No beam finds such an item, and in the interaction graph another item stands in for it, as in
    `Recommender.with_items`. Its content list stays as it is: it comes from texts alone.
    """
    new = np.flatnonzero(~known)
    reader = catalogue.reading.reader.among(known)
    placed = reader.place(catalogue.reading.encoder.encode([catalogue.texts[row] for row in new.tolist()]))
    tables = recommender.tables
    inputs, vectors, embeddings = (
        table.copy() for table in (tables.item_inputs, tables.item_vectors, tables.item_embeddings)
    )
    inputs[new], vectors[new] = placed.item_inputs, placed.item_vectors
    embeddings[new] = np.where(placed.stand_ins[:, None] >= 0, tables.item_embeddings[placed.stand_ins], 0.0)
    stand_ins = np.arange(len(known))
    stand_ins[new] = placed.stand_ins
    tables = replace(tables, item_inputs=inputs, item_vectors=vectors, item_embeddings=embeddings)
    return replace(
        recommender,
        tables=tables,
        offered=OfferedItems.of(tables),
        dense_items=ItemIndex(vectors),
        explicit_items=ItemIndex(embeddings, zero_is_unknown=True),
        stand_ins=stand_ins,
        search_graph=_WithoutBeams(recommender.search_graph, ~known),
    )


@dataclass(frozen=True)
class _WithoutBeams:
    """A search graph whose beams find none of the items in `hidden` (N,)."""

    graph: Graph
    hidden: BoolArray

    def __call__(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = dict(self.graph(inputs))
        if "beam_items" not in outputs:
            return outputs
        beams = outputs["beam_items"]
        outputs["beam_items"] = np.where((beams >= 0) & self.hidden[np.maximum(beams, 0)], -1, beams)
        return outputs
