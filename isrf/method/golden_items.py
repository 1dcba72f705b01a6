"""Golden items: what a release says of some of its items, and of their texts as if they were new ones.

Written by `offline.stages.publish.stage`, replayed by both edges beside the golden requests (`isrf.method.golden`),
which ask for none of this: that a row has the name it had, what is like it, and how a text becomes codes, a stand-in, a
vector and places in the lists of others. An answer that a rounding error could change is no golden.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from isrf.contract.errors import BundleError
from isrf.contract.manifest import GOLDEN_ITEMS_FILE, Finite
from isrf.method.evidence import SparseLists
from isrf.method.golden import LIST_TOLERANCE, Row, same_list
from isrf.method.interest import FloatArray
from isrf.method.item_reader import ItemReader
from isrf.method.similar import likeness
from isrf.method.text.encoder import TextEncoder, TextFields

SIMILAR_KEPT = 20
NEAR_KEPT = 20
TOLERANCE = 1e-4
"""Of vectors' numbers and of weights in content lists."""
ROUNDING = 1e-5
"""What other machines may add up otherwise in a text's vector."""
DIGITS = 6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NewGolden(_Frozen):
    """A text, and how it is read as a new item's."""

    text: dict[str, str]  # by field
    codes: list[Row]  # (L,)
    stand_in: Annotated[int, Field(ge=-1)]
    vector: list[Finite]  # (D,)
    alone: list[Finite]  # (D,) without the stand-in's identity, of the codes above: as a text is read that has none
    near_items: list[Row]  # the nearest of the release's items first
    near_weights: list[Finite]
    near_places: list[Finite]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if not len(self.near_items) == len(self.near_weights) == len(self.near_places):
            raise ValueError("an item that is near has no weight or no place")
        return self


class ItemGolden(_Frozen):
    """One line of `golden_items.jsonl`; `new` is None where the release reads no new items, or not this text surely."""

    item: Row
    item_id: str
    similar_items: list[Row]
    similar_scores: list[Finite]
    new: NewGolden | None

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.similar_items) != len(self.similar_scores):
            raise ValueError("an item that is like it has no score")
        return self


class TextReading(NamedTuple):
    """How a release makes an item of a text."""

    encoder: TextEncoder
    reader: ItemReader


@dataclass(frozen=True, kw_only=True)
class ReadableItems:
    """What a release answers questions about items with."""

    item_ids: Sequence[str]  # N of them
    item_vectors: FloatArray  # (N, D)
    item_lists: dict[str, SparseLists]
    reading: TextReading | None


def make_item_golden(parts: ReadableItems, item: int, text: TextFields) -> ItemGolden:
    """The golden of an item, its text read as a new item's."""
    items, scores = _similar(parts, item)
    return ItemGolden(
        item=item,
        item_id=parts.item_ids[item],
        similar_items=items,
        similar_scores=scores,
        new=_surely_new(parts, text),
    )


def replay_items(parts: ReadableItems, goldens: Sequence[ItemGolden]) -> None:
    """Raises `BundleError` (`bundle.golden_mismatch`) where the release says something else of a golden item."""
    texts = [golden.new.text for golden in goldens if golden.new is not None]
    read = iter(_as_new(parts, texts, _encoded(parts, texts)) if texts and parts.reading is not None else [])
    for number, golden in enumerate(goldens, start=1):
        what = _other(parts, golden, None if golden.new is None else next(read, None))
        if what is not None:
            raise BundleError(
                "bundle.golden_mismatch",
                f"{GOLDEN_ITEMS_FILE} line {number}: {what}.",
                fix="Publish the release again; if it happens again, report the machine and NumPy's version.",
            )


def _other(parts: ReadableItems, golden: ItemGolden, read: NewGolden | None) -> str | None:
    """What is not as it was published, None for nothing; `read` is how the golden's text is read now."""
    if golden.item >= len(parts.item_ids):
        return "it names an item without a row"
    if parts.item_ids[golden.item] != golden.item_id:
        return "items stand in another order, or have other ids, than the model that was published knows them by"
    if not same_list((golden.similar_items, golden.similar_scores), _similar(parts, golden.item), LIST_TOLERANCE):
        return "other items are like it: its vectors, or the lists of what is bought together or described alike"
    if golden.new is not None and (read is None or not _same_new(golden.new, read, TOLERANCE)):
        return "its text is read otherwise: text_encoder/, item_reader/ or the content lists are not those published"
    return None


def _similar(parts: ReadableItems, item: int) -> tuple[list[int], list[float]]:
    scores = likeness(item, parts.item_lists, parts.item_vectors).scores
    rows = np.delete(np.arange(len(scores)), item)
    best = rows[np.lexsort((rows, -scores[rows]))][:SIMILAR_KEPT]
    return best.tolist(), _rounded(scores[best])


def _surely_new(parts: ReadableItems, text: TextFields) -> NewGolden | None:
    """How a text is read; None where rounding errors in its vector would change that."""
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
    """What B texts' vectors (B, D_t) are read as."""
    assert parts.reading is not None
    reader = parts.reading.reader
    codes, read = reader.codes(vectors), reader.read(vectors, parts.item_lists["content"])
    alone = reader.vectors(codes, vectors)
    return [
        NewGolden(
            text=dict(text),
            codes=codes[b].tolist(),
            stand_in=int(read.stand_ins[b]),
            vector=_rounded(read.item_vectors[b]),
            alone=_rounded(alone[b]),
            near_items=near.rows[:NEAR_KEPT].tolist(),
            near_weights=_rounded(near.weights[:NEAR_KEPT]),
            near_places=_rounded(near.places[:NEAR_KEPT]),
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
        # Of the last ones equally near items may stand there.
        and all(
            abs(places.get(item, place) - place) <= tolerance
            for item, place in zip(golden.near_items, golden.near_places, strict=True)
        )
    )


def _close(wanted: Sequence[float], found: Sequence[float], tolerance: float) -> bool:
    return len(wanted) == len(found) and bool(np.allclose(wanted, found, rtol=0, atol=tolerance))
