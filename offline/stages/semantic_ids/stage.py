"""The stage `semantic-ids`: residual k-means over text vectors and graph embeddings of items, then unique codes.

The codebooks are trained on items with training interactions only; the other items get codes from the same codebooks.
"""

import json
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import StageError
from isrf.method.interest import FloatArray
from isrf.method.semantic_ids import SemanticIds, assign_semantic_ids, check_capacity, fuse_vectors
from offline.config import SemanticIdsConfig
from offline.context import StageContext
from offline.runtime.one_thread import one_faiss_thread

VERSION = "2"

CODEBOOKS_FILE = "codebooks.npy"
ITEMS_PER_CODE = 8
"""Items per code of a level: a small catalogue gets fewer codes per level, so that a code does not mean one item."""


def run(ctx: StageContext) -> None:
    """Writes `semantic_ids.npy` (N, L) int32, `codebooks.npy` (L, C, D_t + E) float32 and the report.

    Raises:
        ConfigError: there are more items than semantic IDs.
        StageError: `semantic_ids.no_trained_items`.
    """
    config = ctx.config.semantic_ids
    item_text: FloatArray = np.load(ctx.inputs["embed"] / "item_text.npy", allow_pickle=False)
    embeddings: FloatArray = np.load(ctx.inputs["graph"] / "item_embeddings.npy", allow_pickle=False)
    check_capacity(len(item_text), levels=config.levels, codebook_size=config.codebook_size)
    trained = np.abs(embeddings).sum(axis=1) > 0
    if not trained.any():
        raise StageError(
            "semantic_ids.no_trained_items",
            "no item has a training interaction, so there is nothing to learn codes from.",
            fix="Provide users with at least three interactions each (two of them are held out).",
        )
    vectors = fuse_vectors(item_text, embeddings, config.text_share)
    with one_faiss_thread():
        codebooks = train_codebooks(vectors[trained], config=config, seed=ctx.config.seed)
    ids = assign_semantic_ids(vectors, codebooks, codebook_size=config.codebook_size)
    np.save(ctx.out / "semantic_ids.npy", ids.codes)
    np.save(ctx.out / CODEBOOKS_FILE, pad_codebooks(codebooks, config.codebook_size))
    (ctx.out / "report.json").write_text(json.dumps(describe(ids, codebooks), indent=2))


def pad_codebooks(codebooks: list[FloatArray], codebook_size: int) -> FloatArray:
    """All codebooks as one array (L, C, D_t + E), with zeros where a code was not trained."""
    padded = np.zeros((len(codebooks), codebook_size, codebooks[0].shape[1]), dtype=np.float32)
    for level, codebook in enumerate(codebooks):
        padded[level, : len(codebook)] = codebook
    return padded


def train_codebooks(vectors: FloatArray, *, config: SemanticIdsConfig, seed: int) -> list[FloatArray]:
    """Trains one k-means per level on the residuals of the levels before; (C_l, D) float32, C_l <= codebook_size."""
    residual = vectors.copy()
    codebooks: list[FloatArray] = []
    for level in range(config.levels):
        num_codes = int(np.clip(len(residual) // ITEMS_PER_CODE, 1, config.codebook_size))
        codebook = _kmeans(residual, num_codes, iterations=config.iterations, seed=seed + level)
        codebooks.append(codebook)
        index = faiss.IndexFlatL2(codebook.shape[1])
        index.add(codebook)
        _, nearest = index.search(residual, 1)
        residual = residual - codebook[nearest[:, 0]]
    return codebooks


def _kmeans(points: FloatArray, num_codes: int, *, iterations: int, seed: int) -> FloatArray:
    kmeans = faiss.Kmeans(
        points.shape[1],
        num_codes,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,  # few points are fine; without this FAISS prints a warning
        max_points_per_centroid=max(len(points), 1),  # no sampling: all items are used
        spherical=False,
    )
    kmeans.train(np.ascontiguousarray(points))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def describe(ids: SemanticIds, codebooks: list[FloatArray]) -> dict[str, Any]:
    """For every level: used codes, items that share a prefix, and items that did not get their nearest code."""
    codes = ids.codes
    levels = []
    for level in range(codes.shape[1]):
        _, sharing = np.unique(codes[:, : level + 1], axis=0, return_counts=True)
        levels.append(
            {
                "codes_trained": len(codebooks[level]),
                "codes_used": len(np.unique(codes[:, level])),
                "code_perplexity": _perplexity(codes[:, level]),
                "prefixes": len(sharing),
                "items_per_prefix_mean": float(sharing.mean()),
                "items_per_prefix_max": int(sharing.max()),
                "items_alone_in_prefix": int((sharing == 1).sum()),
                "displaced": int(ids.displaced[level]),
            }
        )
    return {"items": len(codes), "levels": levels}


def _perplexity(codes: NDArray[np.int32]) -> float:
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(np.exp(-(shares * np.log(shares)).sum()))
