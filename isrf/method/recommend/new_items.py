"""Reads items that the release does not hold, from their texts, and gives them rows behind the release's own.

It uses the release's torch-free text encoder. The service (`service.sync.catalogue_sync`) and the replay call it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isrf.method.evidence import SparseLists
from isrf.method.golden_items import TextReading
from isrf.method.interest import FloatArray
from isrf.method.item_reader import Near
from isrf.method.recommend.tables import AddedItems
from isrf.method.text.encoder import item_fields

READ_TOGETHER = 64

NewItemText = Mapping[str, Any]
"""title, brand, description, categories, price of an item."""


class ReadItem(NamedTuple):
    """One new item."""

    text: NewItemText
    item_input: FloatArray  # (D,)
    item_vector: FloatArray  # (D,)
    stand_in: int  # row of the release's item that it is read as where it must be one of those, −1 for none
    near: Near


@dataclass(frozen=True)
class NewItemReader:
    """What a release reads new items with."""

    reading: TextReading
    content: SparseLists  # the release's lists of items that are alike

    def read(self, texts: Sequence[NewItemText]) -> list[ReadItem]:
        """Takes milliseconds an item: run it in a thread."""
        found: list[ReadItem] = []
        for start in range(0, len(texts), READ_TOGETHER):
            some = texts[start : start + READ_TOGETHER]
            vectors = self.reading.encoder.encode([_fields(text) for text in some])
            items = self.reading.reader.read(vectors, self.content)
            found += [
                ReadItem(text, item_input, item_vector, int(stand_in), near)
                for text, item_input, item_vector, stand_in, near in zip(some, *items, strict=True)
            ]
        return found


def _fields(text: NewItemText) -> dict[str, str]:
    return item_fields(
        title=text.get("title"),
        brand=text.get("brand"),
        categories=text.get("categories"),
        description=text.get("description"),
    )


def added_items(items: Mapping[str, ReadItem]) -> AddedItems:
    """What the recommender needs of new items, in their order; there is at least one."""
    read = list(items.values())
    near = [one.near for one in read]
    return AddedItems(
        item_inputs=np.stack([one.item_input for one in read]),
        item_vectors=np.stack([one.item_vector for one in read]),
        stand_ins=np.array([one.stand_in for one in read], dtype=np.int64),
        content=SparseLists(
            np.concatenate([[0], np.cumsum([len(one.rows) for one in near])]).astype(np.int64),
            np.concatenate([one.rows for one in near]).astype(np.int32),
            np.concatenate([one.weights for one in near]),
        ),
        content_places=np.concatenate([one.places for one in near]),
    )
