"""A new item's vectors from its text alone: what the model would read of it, had it been in the shop without a buyer.

Its codes are the greedy nearest ones of the release's codebooks, as an item without training interactions gets them
(its graph part is zero); they name it to nobody and need not be unique. Its vector is made of the codes' vectors and
the text: the identity part, which the model learned to do without, is missing. A test holds all of it equal to the
torch model. Arrays in, arrays out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.bundle import ITEM_READER_DIR, ItemReaderSpec
from isrf.errors import BundleError
from isrf.evidence import CONTENT_LENGTH, CONTENT_POWER
from isrf.interest import FloatArray, IntArray
from isrf.semantic_ids import fuse_vectors, nearest_codes


class NewItems(NamedTuple):
    """B items as the recommender needs them."""

    item_inputs: FloatArray  # (B, D)
    item_vectors: FloatArray  # (B, D)
    text: FloatArray  # (B, D_t) rows of length 1, or 0 for a text without a known word


@dataclass(frozen=True, kw_only=True)
class ItemReader:
    """Of one release; threads may share it."""

    spec: ItemReaderSpec
    codebooks: FloatArray  # (L, C, D_t + E), rows beyond `spec.codes_trained` unused
    code_vectors: FloatArray  # (L, C, D)
    text_adapter: FloatArray  # (D_t, D)
    item_text: NDArray[np.float16]  # (N, D_t) of the release's own items

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
            spec=spec, codebooks=codebooks, code_vectors=code_vectors, text_adapter=text_adapter, item_text=item_text
        )

    @property
    def text_dim(self) -> int:
        """D_t."""
        return len(self.text_adapter)

    def read(self, text: FloatArray) -> NewItems:
        """Items from their texts' vectors (B, D_t)."""
        vectors = self.vectors(self.codes(text), text)
        width = np.float32(vectors.shape[1])
        return NewItems(np.sqrt(width) * vectors, vectors, text)

    def codes(self, text: FloatArray) -> IntArray:
        """(B, L) int64 the nearest code of every level."""
        graph = np.zeros((len(text), self.codebooks.shape[2] - self.text_dim), dtype=np.float32)
        books = [book[:trained] for book, trained in zip(self.codebooks, self.spec.codes_trained, strict=True)]
        return nearest_codes(fuse_vectors(text, graph, self.spec.text_share), books)

    def vectors(self, codes: IntArray, text: FloatArray) -> FloatArray:
        """(B, D) what the dense path scores items with; the encoder reads √D times as much."""
        levels, _, width = self.code_vectors.shape
        mean = self.code_vectors[np.arange(levels), codes].mean(axis=1)
        vectors: FloatArray = (mean / np.sqrt(np.float32(width)) + text @ self.text_adapter).astype(np.float32)
        return vectors

    def nearest(self, text: FloatArray) -> tuple[IntArray, FloatArray]:
        """The release's items nearest to one text (D_t,), nearest first: rows (c,) and weights (c,) summing to 1.

        Nothing for a text without a known word. Weights as the content lists have them.
        """
        cosine = self.item_text.astype(np.float32) @ text
        count = min(CONTENT_LENGTH, len(cosine))
        rows = np.argpartition(-cosine, count - 1)[:count]
        rows = rows[np.lexsort((rows, -cosine[rows]))]
        rows = rows[cosine[rows] > 0]
        weights = cosine[rows] ** np.float32(CONTENT_POWER)
        return rows.astype(np.int64), (weights / max(float(weights.sum()), 1e-12)).astype(np.float32)
