"""Items that no release has yet: read by the release's torch-free text encoder, and given rows behind its own.

It knows no store; `service.item_feed` tells it what the shop said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isrf.evidence import SparseLists
from isrf.interest import FloatArray, IntArray
from isrf.item_reader import ItemReader
from isrf.recommend import AddedItems
from isrf.text import TextEncoder, item_fields

Text = Mapping[str, Any]
"""title, brand, description, categories, price of an item."""


class ReadItem(NamedTuple):
    """One new item."""

    text: Text
    item_input: FloatArray  # (D,)
    item_vector: FloatArray  # (D,)
    stand_in: int  # row of the release's item that it is read as where it must be one of those, −1 for none
    near: IntArray  # (c,) the release's items that are like it, nearest first
    near_weights: FloatArray  # (c,)
    places: FloatArray  # (c,) what it weighs in those items' lists of what is like them


@dataclass(frozen=True, kw_only=True)
class NewItemReader:
    """What a release reads new items with."""

    encoder: TextEncoder
    reader: ItemReader
    content: SparseLists  # the release's lists of items that are alike

    def read(self, text: Text) -> ReadItem:
        """Milliseconds: run it in a thread."""
        fields = item_fields(
            title=text.get("title"),
            brand=text.get("brand"),
            categories=text.get("categories"),
            description=text.get("description"),
        )
        vector = self.encoder.encode([fields])
        item = self.reader.read(vector)
        rows, weights = self.reader.nearest(vector[0])
        places = self.reader.places(vector[0], rows, self.content)
        stand_in = int(item.stand_ins[0])
        return ReadItem(text, item.item_inputs[0], item.item_vectors[0], stand_in, rows, weights, places)


def added_items(items: Mapping[str, ReadItem]) -> AddedItems:
    """What the recommender needs of new items, in their order; there is at least one."""
    read = list(items.values())
    lengths = [len(one.near) for one in read]
    return AddedItems(
        item_inputs=np.stack([one.item_input for one in read]),
        item_vectors=np.stack([one.item_vector for one in read]),
        stand_ins=np.array([one.stand_in for one in read], dtype=np.int64),
        content=SparseLists(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([one.near for one in read]).astype(np.int32),
            np.concatenate([one.near_weights for one in read]).astype(np.float32),
        ),
        content_places=np.concatenate([one.places for one in read]),
    )
