"""Embeds texts with a dense encoder (a language model): joins fields, embeds each text once, projects the vectors.

`huggingface` and `endpoint` implement `DenseEncoder`. A SQLite file next to the stage's outputs stores the vectors by
encoder and text, so that a resumed run, another width or a changed catalogue embeds only new texts.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from isrf.method.interest import FloatArray
from isrf.method.text.encoder import TextFields
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL

FIELD_ORDER = ("title", "brand", "categories", "feature", "description", "core", "likes")
"""The order of the joined fields. A model cuts the end of a long text, so the description comes late."""

SAVE_EVERY = 16
"""Batches per transaction; a kill loses at most this many."""


class DenseEncoder(Protocol):
    """An encoder of texts. `name` must identify everything that its vectors depend on, except the text.

    Pickled, it is what makes it again in another process.
    """

    name: str

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """The texts' vectors, (B, W) float32; called with at most the configured batch size."""
        ...

    def close(self) -> None:
        """Releases connections and memory."""
        ...


def join_fields(fields: TextFields) -> str:
    """The fields of an item or a user joined to one text; empty where there are none."""
    return ". ".join(fields[name].rstrip(". ") for name in FIELD_ORDER if fields.get(name))


def embed_all(
    encoder: DenseEncoder,
    texts: Sequence[str],
    *,
    store: Path,
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
    engine: StageEngine = LOCAL,
) -> FloatArray:
    """The texts' vectors, (B, W) float32 of length 1, a zero row for an empty text.

    Texts of similar length share a batch.

    Args:
        encoder: called only for texts that `store` does not hold.
        texts: any texts; equal ones are embedded once.
        store: the SQLite file, created where it is missing.
        batch_size: texts per call.
        advance: called with the number of texts that were finished since the last call.
        engine: runs the batches.
    """
    keys = {text: _key(encoder.name, text) for text in texts if text}
    with closing(sqlite3.connect(store, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
        known = _read(db, keys)
        advance(len(texts) - len(keys) + len(known))
        missing = sorted((text for text in keys if text not in known), key=lambda text: (len(text), text))
        batches = [missing[first : first + batch_size] for first in range(0, len(missing), batch_size)]
        embedded = engine.map(_embed, (encoder,), batches, on_gpu=True)
        for first in range(0, len(batches), SAVE_EVERY):
            fresh: dict[str, FloatArray] = {}
            for batch in batches[first : first + SAVE_EVERY]:
                fresh |= zip(batch, next(embedded), strict=True)
                advance(len(batch))
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?)",
                [(keys[text], vector.tobytes()) for text, vector in fresh.items()],
            )
            db.execute("COMMIT")
            known |= fresh
    width = len(next(iter(known.values()))) if known else 1
    vectors = np.stack([known.get(text, np.zeros(width, dtype=np.float32)) for text in texts])
    return _unit(vectors)


def _embed(batch: Sequence[str], encoder: DenseEncoder) -> FloatArray:
    return encoder.embed(batch).astype(np.float32)


def project(items: FloatArray, users: FloatArray, fitted: NDArray[np.bool_], dim: int) -> tuple[FloatArray, FloatArray]:
    """Projects vectors with PCA to (N, dim) and (U, dim), rows of length 1.

    The PCA is fitted on the items in `fitted` (N,), without empty rows. A model narrower than `dim` leaves zero
    columns.
    """
    known = fitted & (np.abs(items).sum(axis=1) > 0)
    rank = min(dim, int(known.sum()), items.shape[1])
    pca = PCA(rank, svd_solver="full").fit(items[known].astype(np.float64))

    def apply(vectors: FloatArray) -> FloatArray:
        projected = np.zeros((len(vectors), dim), dtype=np.float32)
        present = np.abs(vectors).sum(axis=1) > 0
        if present.any():
            projected[present, :rank] = pca.transform(vectors[present].astype(np.float64))
        return _unit(projected)

    return apply(items), apply(users)


def _read(db: sqlite3.Connection, keys: dict[str, bytes]) -> dict[str, FloatArray]:
    vectors = {}
    for text, key in keys.items():
        row = db.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
        if row is not None:
            vectors[text] = np.frombuffer(row[0], dtype=np.float32)
    return vectors


def _key(name: str, text: str) -> bytes:
    return hashlib.sha256(f"{name}\0{text}".encode()).digest()


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
