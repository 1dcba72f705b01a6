"""Golden items: what a release computes for some of its items, and for their texts if they belonged to new items.

`offline.stages.publish.goldens` makes them. Service and offline job replay them after the golden requests
(`isrf.method.goldens.requests`), which check none of this: that a row still has its item id, which items are similar to
it, and how its text becomes codes, a stand-in, a vector and weights in the content lists of other items. An answer that
a rounding error could change is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from isrf.contract.errors import BundleError
from isrf.contract.manifest import GOLDEN_ITEMS_FILE, Finite
from isrf.method.evidence import ItemLists, SparseLists
from isrf.method.goldens.requests import LIST_TOLERANCE, Row, same_list
from isrf.method.interest import FloatArray
from isrf.method.item_reader import ItemReader
from isrf.method.kinds.similar import likeness
from isrf.method.text.encoder import TextEncoder, TextFields

NUM_SIMILAR = 20
NUM_NEAR = 20
TOLERANCE = 1e-4
"""Largest difference of a vector's numbers and of weights in content lists."""
ROUNDING = 1e-5
"""How much a number of a text's vector may differ between machines, because they sum in another order."""
DIGITS = 6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NewGolden(_Frozen):
    """A text, and what the release computes for a new item with this text."""

    text: dict[str, str]  # by field
    codes: list[Row]  # (L,)
    stand_in: Annotated[int, Field(ge=-1)]
    vector: list[Finite]  # (D,)
    alone: list[Finite]  # (D,) from the codes above, without the stand-in's identity: the vector where there is none
    near_items: list[Row]  # the release's items that are most like it, nearest first
    near_weights: list[Finite]
    near_places: list[Finite]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if not len(self.near_items) == len(self.near_weights) == len(self.near_places):
            raise ValueError("a near item has no weight or no place")
        return self


class ItemGolden(_Frozen):
    """One line of `golden_items.jsonl`.

    `new` is None where the release reads no new items, or where rounding errors could change how it reads this text.
    """

    item: Row
    item_id: str
    similar_items: list[Row]
    similar_scores: list[Finite]
    new: NewGolden | None
    counts: list[Finite] | None = None  # `RecommenderTables.counts`; None in older releases

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.similar_items) != len(self.similar_scores):
            raise ValueError("a similar item has no score")
        return self


class TextReading(NamedTuple):
    """The two parts with which a release turns a text into an item."""

    encoder: TextEncoder
    reader: ItemReader


@dataclass(frozen=True, kw_only=True)
class ReadableItems:
    """The parts of a release that golden items check."""

    item_ids: Sequence[str]  # N of them
    item_vectors: FloatArray  # (N, D)
    item_lists: Mapping[str, ItemLists]
    content: SparseLists
    counts: NDArray[np.float64]  # (N, c) how often each item was taken, and what live counts are added to
    reading: TextReading | None


def make_item_golden(parts: ReadableItems, item: int, text: TextFields) -> ItemGolden:
    """Makes the golden item of an item and its text."""
    items, scores = _similar(parts, item)
    return ItemGolden(
        item=item,
        item_id=parts.item_ids[item],
        similar_items=items,
        similar_scores=scores,
        new=_stable_reading(parts, text),
        counts=parts.counts[item].tolist(),
    )


def replay_items(parts: ReadableItems, goldens: Sequence[ItemGolden]) -> None:
    """Replays golden items.

    Raises:
        BundleError: `bundle.golden_mismatch`, the release computes something else for a golden item.
    """
    texts = [golden.new.text for golden in goldens if golden.new is not None]
    read = iter(_as_new(parts, texts, _encoded(parts, texts)) if texts and parts.reading is not None else [])
    for number, golden in enumerate(goldens, start=1):
        problem = _mismatch(parts, golden, None if golden.new is None else next(read, None))
        if problem is not None:
            raise BundleError(
                "bundle.golden_mismatch",
                f"{GOLDEN_ITEMS_FILE} line {number}: {problem}.",
                fix="Publish the release again; if it happens again, report the machine and NumPy's version.",
            )


def _mismatch(parts: ReadableItems, golden: ItemGolden, read: NewGolden | None) -> str | None:
    """What differs from the published golden item, None for nothing; `read` is how the release reads its text now."""
    if golden.item >= len(parts.item_ids):
        return "it names an item without a row"
    if parts.item_ids[golden.item] != golden.item_id:
        return "the items have another order or other ids than in the published model"
    if golden.counts is not None and not np.allclose(golden.counts, parts.counts[golden.item], rtol=1e-6):
        return "how often it was taken is not what was published"
    if not same_list((golden.similar_items, golden.similar_scores), _similar(parts, golden.item), LIST_TOLERANCE):
        return (
            "its similar items differ: the item vectors, or the cooccurrence or content lists, are not those published"
        )
    if golden.new is not None and (read is None or not _same_new(golden.new, read, TOLERANCE)):
        return "its text is read differently: text_encoder/, item_reader/ or the content lists are not those published"
    return None


def _similar(parts: ReadableItems, item: int) -> tuple[list[int], list[float]]:
    scores = likeness(item, parts.item_lists, parts.item_vectors).scores
    count = min(NUM_SIMILAR + 1, len(scores))
    least = np.partition(scores, len(scores) - count)[-count]
    rows = np.flatnonzero(scores >= least)  # with all that are equal to the last one
    rows = rows[rows != item]
    best = rows[np.lexsort((rows, -scores[rows]))][:NUM_SIMILAR]
    return best.tolist(), _rounded(scores[best])


def _stable_reading(parts: ReadableItems, text: TextFields) -> NewGolden | None:
    """How the release reads a text; None where rounding errors in its vector would change that."""
    if parts.reading is None:
        return None
    vector = _encoded(parts, [text])
    signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.float32), (4, vector.shape[1]))
    vectors = np.concatenate([vector, vector + np.float32(ROUNDING) * signs])
    golden, *others = _as_new(parts, [text] * len(vectors), vectors)
    return golden if all(_same_new(golden, other, TOLERANCE / 2) for other in others) else None


def _encoded(parts: ReadableItems, texts: Sequence[TextFields]) -> FloatArray:
    assert parts.reading is not None
    return parts.reading.encoder.encode(texts)


def _as_new(parts: ReadableItems, texts: Sequence[TextFields], vectors: FloatArray) -> list[NewGolden]:
    """What the release computes for new items with the texts' vectors (B, D_t)."""
    assert parts.reading is not None
    reader = parts.reading.reader
    codes, read = reader.codes(vectors), reader.read(vectors, parts.content)
    alone = reader.vectors(codes, vectors)
    return [
        NewGolden(
            text=dict(text),
            codes=codes[b].tolist(),
            stand_in=int(read.stand_ins[b]),
            vector=_rounded(read.item_vectors[b]),
            alone=_rounded(alone[b]),
            near_items=near.rows[:NUM_NEAR].tolist(),
            near_weights=_rounded(near.weights[:NUM_NEAR]),
            near_places=_rounded(near.places[:NUM_NEAR]),
        )
        for b, (text, near) in enumerate(zip(texts, read.near, strict=True))
    ]


def _rounded(numbers: FloatArray) -> list[float]:
    return [round(number, DIGITS) for number in numbers.tolist()]


def _same_new(golden: NewGolden, found: NewGolden, tolerance: float) -> bool:
    places = dict(zip(found.near_items, found.near_places, strict=True))
    return (
        (golden.codes, golden.stand_in) == (found.codes, found.stand_in)
        and _close(golden.vector, found.vector, tolerance)
        and _close(golden.alone, found.alone, tolerance)
        and same_list((golden.near_items, golden.near_weights), (found.near_items, found.near_weights), tolerance)
        # At the end of the list, equally near items may take each other's places.
        and all(
            abs(places.get(item, place) - place) <= tolerance
            for item, place in zip(golden.near_items, golden.near_places, strict=True)
        )
    )


def _close(expected: Sequence[float], found: Sequence[float], tolerance: float) -> bool:
    return len(expected) == len(found) and bool(np.allclose(expected, found, rtol=0, atol=tolerance))
