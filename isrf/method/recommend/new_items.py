"""Reads items that the release does not contain with its text encoder, and gives them rows after the release's own.

The encoder is torch-free. The service (`service.sync.catalogue_sync`) and the replay call it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isrf.method.evidence import SparseLists
from isrf.method.goldens.items import TextReading
from isrf.method.interest import FloatArray
from isrf.method.item_reader import Near
from isrf.method.recommend.tables import AddedItems
from isrf.method.text.encoder import item_fields

READ_TOGETHER = 64

NewItemText = Mapping[str, Any]
"""title, brand, description, categories, price of an item."""


class ReadItem(NamedTuple):
    """A new item with the vectors that the release's encoder gives it."""

    text: NewItemText
    item_input: FloatArray  # (D,)
    item_vector: FloatArray  # (D,)
    stand_in: int  # row of the most similar item of the release, for parts that need a known item; −1 for none
    near: Near


@dataclass(frozen=True)
class NewItemReader:
    """Reads new items with a release's text encoder."""

    reading: TextReading
    content: SparseLists  # the release's lists of similar items by content

    def read(self, texts: Sequence[NewItemText]) -> list[ReadItem]:
        """Reads items from their texts. It takes milliseconds per item: run it in a thread."""
        found: list[ReadItem] = []
        for start in range(0, len(texts), READ_TOGETHER):
            batch = texts[start : start + READ_TOGETHER]
            vectors = self.reading.encoder.encode([_fields(text) for text in batch])
            items = self.reading.reader.read(vectors, self.content)
            found += [
                ReadItem(text, item_input, item_vector, int(stand_in), near)
                for text, item_input, item_vector, stand_in, near in zip(batch, *items, strict=True)
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
    """Returns the recommender's tables for new items, in their order; there is at least one item."""
    read_items = list(items.values())
    near = [item.near for item in read_items]
    return AddedItems(
        item_inputs=np.stack([item.item_input for item in read_items]),
        item_vectors=np.stack([item.item_vector for item in read_items]),
        stand_ins=np.array([item.stand_in for item in read_items], dtype=np.int64),
        content=SparseLists(
            np.concatenate([[0], np.cumsum([len(lists.rows) for lists in near])]).astype(np.int64),
            np.concatenate([lists.rows for lists in near]).astype(np.int32),
            np.concatenate([lists.weights for lists in near]),
        ),
        content_places=np.concatenate([lists.places for lists in near]),
    )
