"""Computes a new item's vectors from its text alone, so that it can be recommended before the next release.

The vector combines the item's own text with the codes and the identity of its *stand-in*: the most similar item that
somebody took in training. The model can do without an identity (training drops it at random; a test checks that this
form equals the torch model's), but then the item ranks behind almost all others (docs/lab-notebook.md). A text
without any known word has no stand-in; it gets the codes of an empty text. The decoder cannot generate a new item: its
codes are inputs only. Arrays in, arrays out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import ITEM_READER_DIR, ItemReaderSpec
from isrf.method.evidence import CONTENT_LENGTH, CONTENT_POWER, SparseLists
from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.semantic_ids import fuse_vectors, nearest_codes

_ROWS_AT_ONCE = 1 << 16
"""Texts of the release that are read as float32 at once."""
_COSINES_AT_ONCE = 1 << 26
"""Most cosines in memory: of many new texts a part at a time."""


class Near(NamedTuple):
    """The release's items that are most like one new item, nearest first; empty for a text without a known word."""

    rows: IntArray  # (c,)
    weights: FloatArray  # (c,) in the new item's content list, summing to 1
    places: FloatArray  # (c,) the new item's weight in the content list of each of these items


class PlacedItems(NamedTuple):
    """The vectors of B new items."""

    item_inputs: FloatArray  # (B, D)
    item_vectors: FloatArray  # (B, D)
    stand_ins: IntArray  # (B,) rows of the release's items that somebody took, −1 for a text without a known word


class NewItems(NamedTuple):
    """The vectors and lists of B new items."""

    item_inputs: FloatArray  # (B, D)
    item_vectors: FloatArray  # (B, D)
    stand_ins: IntArray  # (B,) rows of the release's items that somebody took, −1 for a text without a known word
    near: Sequence[Near]  # B of them


@dataclass(frozen=True, kw_only=True)
class ItemReader:
    """Reads new items for one release; threads may share it."""

    spec: ItemReaderSpec
    codebooks: FloatArray  # (L, C, D_t + E), rows beyond `spec.codes_trained` unused
    code_vectors: FloatArray  # (L, C, D)
    text_adapter: FloatArray  # (D_t, D)
    item_text: NDArray[np.float16]  # (N, D_t) of the release's items
    item_vectors: FloatArray  # (N, D)
    semantic_ids: NDArray[np.int32]  # (N, L)
    trained: BoolArray  # (N,) whether a training interaction has the item

    @classmethod
    def of(cls, spec: ItemReaderSpec, arrays: Mapping[str, NDArray[Any]]) -> "ItemReader":
        """From a bundle's arrays by file name; `BundleError` where they do not fit together."""
        names = ("codebooks", "code_vectors", "text_adapter", "item_text")
        codebooks, code_vectors, text_adapter, item_text = (arrays[f"{ITEM_READER_DIR}/{name}.npy"] for name in names)
        levels, codes, width = codebooks.shape
        sound = (
            len(spec.codes_trained) == levels
            and all(0 < trained <= codes for trained in spec.codes_trained)
            and text_adapter.shape[0] == item_text.shape[1] <= width
        )
        if not sound:
            raise BundleError(
                "bundle.array_mismatch",
                f"{ITEM_READER_DIR}/: codebooks {codebooks.shape}, text_adapter {text_adapter.shape}, item_text "
                f"{item_text.shape} and {spec.codes_trained} trained codes do not fit together.",
                fix="Publish the release again; its parts come from different runs.",
            )
        return cls(
            spec=spec,
            codebooks=codebooks,
            code_vectors=code_vectors,
            text_adapter=text_adapter,
            item_text=item_text,
            item_vectors=arrays["item_vectors.npy"],
            semantic_ids=arrays["semantic_ids.npy"],
            trained=np.any(arrays["item_embeddings.npy"] != 0, axis=1),
        )

    @property
    def text_dim(self) -> int:
        """D_t."""
        return len(self.text_adapter)

    def read(self, text: FloatArray, content: SparseLists) -> NewItems:
        """Reads new items from their texts' vectors (B, D_t); `content` are the release's content lists."""
        cosines = self._cosines(text)
        near = [self._near(vector, cosine, content) for vector, cosine in zip(text, cosines, strict=True)]
        return NewItems(*self._placed(text, cosines), near)

    def place(self, text: FloatArray) -> PlacedItems:
        """The part of `read` without the content lists, for any number of texts."""
        at_once = max(_COSINES_AT_ONCE // len(self.item_text), 1)
        starts = range(0, max(len(text), 1), at_once)
        parts = [self._placed(part, self._cosines(part)) for part in (text[at : at + at_once] for at in starts)]
        return PlacedItems(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def among(self, items: BoolArray) -> "ItemReader":
        """A reader that takes new items' identities from some items (N,) alone."""
        return replace(self, trained=self.trained & items)

    def _cosines(self, text: FloatArray) -> FloatArray:
        # For all new items at once, because the product has to read all of the release's texts.
        cosines = np.empty((len(text), len(self.item_text)), dtype=np.float32)
        for at in range(0, len(self.item_text), _ROWS_AT_ONCE):
            part = slice(at, at + _ROWS_AT_ONCE)
            np.matmul(text, self.item_text[part].astype(np.float32).T, out=cosines[:, part])
        return cosines

    def _placed(self, text: FloatArray, cosines: FloatArray) -> PlacedItems:
        stand_ins = np.array([self._stand_in(cosine) for cosine in cosines], dtype=np.int64)
        codes, found = self.codes(text), stand_ins >= 0
        codes[found] = self.semantic_ids[stand_ins[found]]
        vectors = self.vectors(codes, text)
        vectors[found] += self._identities(stand_ins[found])
        return PlacedItems(np.sqrt(np.float32(vectors.shape[1])) * vectors, vectors, stand_ins)

    def codes(self, text: FloatArray) -> IntArray:
        """(B, L) int64: the nearest code of every level for an item without buyers, whose graph part is zero."""
        graph = np.zeros((len(text), self.codebooks.shape[2] - self.text_dim), dtype=np.float32)
        books = [book[:trained] for book, trained in zip(self.codebooks, self.spec.codes_trained, strict=True)]
        return nearest_codes(fuse_vectors(text, graph, self.spec.text_share), books)

    def vectors(self, codes: IntArray, text: FloatArray) -> FloatArray:
        """(B, D): the dense path's vectors of items without an identity; the encoder reads √D times these."""
        levels, _, width = self.code_vectors.shape
        mean = self.code_vectors[np.arange(levels), codes].mean(axis=1)
        vectors: FloatArray = (mean / np.sqrt(np.float32(width)) + text @ self.text_adapter).astype(np.float32)
        return vectors

    def _stand_in(self, cosine: FloatArray) -> int:
        taken = np.where(self.trained, cosine, np.float32(-1))
        best = int(taken.argmax())
        return best if taken[best] > 0 else -1

    def _near(self, text: FloatArray, cosine: FloatArray, content: SparseLists) -> Near:
        """The items near one text (D_t,), whose cosines with all items are (N,)."""
        count = min(CONTENT_LENGTH, len(cosine))
        rows = np.argpartition(-cosine, count - 1)[:count]
        rows = rows[np.lexsort((rows, -cosine[rows]))]
        rows = rows[cosine[rows] > 0].astype(np.int64)
        weights = cosine[rows] ** np.float32(CONTENT_POWER)
        scaled = (weights / max(float(weights.sum()), 1e-12)).astype(np.float32)
        return Near(rows, scaled, self._places(text, rows, content))

    def _identities(self, rows: IntArray) -> FloatArray:
        """(R, D): the part of the items' vectors that does not come from their codes and texts."""
        without = self.vectors(self.semantic_ids[rows].astype(np.int64), self.item_text[rows].astype(np.float32))
        identities: FloatArray = self.item_vectors[rows] - without
        return identities

    def _places(self, text: FloatArray, rows: IntArray, lists: SparseLists) -> FloatArray:
        """The weights of an item with this text (D_t,) in the content lists of some of the release's items.

        The lists may come from finer vectors than these, so only the order of the cosines is used: an item as near to
        the list's owner as its k-th nearest member gets the weight of the k-th heaviest member.

        Args:
            text: the item's text vector.
            rows: (c,) owners of the lists.
            lists: the release's content lists.

        Returns:
            (c,) float32, 0 where the item is further away than every member of a full list.
        """
        found = np.zeros(len(rows), dtype=np.float32)
        for place, row in enumerate(rows):
            owner = self.item_text[row].astype(np.float32)
            entries = lists.row(int(row))
            members = self.item_text[lists.indices[entries]].astype(np.float32)
            cosine, weights = np.sort(members @ owner), np.sort(lists.weights[entries])
            last = 0.0 if len(members) >= CONTENT_LENGTH else float(weights[0]) if len(members) else 1.0
            found[place] = np.interp(owner @ text, cosine, weights, left=last) if len(members) else last
        return found
