"""Checks that a release's files contain training interactions alone: recomputes them and compares.

The model's weights cannot be recomputed without training; the training reads only what is checked here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.contract.manifest import (
    ARRAYS,
    GOLDEN_FILE,
    GOLDEN_ITEMS_FILE,
    HISTORIES_FILE,
    INTEREST_GRAPH_FILE,
    ITEM_READER_DIR,
    ITEMS_FILE,
    LIVE_ARRAYS,
    REASONING_DIR,
    SEARCH_GRAPHS,
    TEXT_ENCODER_DIR,
    USERS_FILE,
    Manifest,
)
from isrf.method.evidence import (
    SparseLists,
    lists_from_arrays,
    num_takers,
)
from isrf.method.goldens.requests import Golden
from isrf.method.interest import FloatArray, pad_histories, unit_rows
from isrf.method.order import most_counted
from isrf.runtime.onnx_session import open_graph
from offline.commands.audit.findings import Finding
from offline.commands.audit.shop import AuditedShop
from offline.config import RunConfig
from offline.runtime.evidence import TimedEvents, count_events, first_variants_of
from offline.runtime.ingest_report import learned_until
from offline.runtime.live_base import count_live_base, live_arrays

SAME = 0.999
"""The least cosine between a vector and its stored float16 copy."""

BLOCK_USERS = 1024
_KNOWN_FOLDERS = (TEXT_ENCODER_DIR, REASONING_DIR, ITEM_READER_DIR, "evidence")
_KNOWN_FILES = {
    *SEARCH_GRAPHS.values(),
    INTEREST_GRAPH_FILE,
    ITEMS_FILE,
    USERS_FILE,
    HISTORIES_FILE,
    GOLDEN_FILE,
    GOLDEN_ITEMS_FILE,
    *ARRAYS,
}


def audit_contents(release: Path, manifest: Manifest, shop: AuditedShop) -> Iterator[Finding]:
    """Yields one finding per part of the release."""
    names = (*ARRAYS, *(() if manifest.live_evidence is None else LIVE_ARRAYS))
    arrays = {name: np.load(release / name) for name in names}
    yield _popularity(arrays["popularity.npy"], shop)
    yield from _evidence(arrays, RunConfig.model_validate(manifest.config), shop)
    yield _graph(arrays["item_embeddings.npy"], shop)
    yield _neighbours(release, manifest, arrays, shop)
    yield _goldens(release, shop)
    yield _histories(release, shop)
    yield _other_files(manifest)


def _popularity(popularity: NDArray[Any], shop: AuditedShop) -> Finding:
    users, items, _, weights = TimedEvents(shop.users, shop.items, shop.times, shop.weights).counted()
    counted = num_takers(users, items, num_items=shop.num_items, weights=weights).astype(np.float32)
    differing = int((~np.isclose(popularity, counted)).sum())
    extra = float(popularity.sum() - counted.sum())
    return Finding(
        "popularity",
        "leak" if differing else "ok",
        f"{differing} of {shop.num_items} counts differ from the training data's"
        + (
            f"; they count {extra:+.0f} more users in total, and {2 * len(shop.test.users)} events are held out"
            if differing
            else ""
        ),
        {"items": shop.num_items, "differing": differing, "extra": extra},
    )


def _evidence(arrays: dict[str, NDArray[Any]], config: RunConfig, shop: AuditedShop) -> Iterator[Finding]:
    content = lists_from_arrays("content", arrays)
    events = TimedEvents(shop.users, shop.items, shop.times, shop.weights)
    counted = count_events(
        events,
        content,
        num_users=shop.num_users,
        config=config.evidence,
        first_variants=first_variants_of(shop.folder),
    )
    live_base = count_live_base(counted, events, config=config.evidence, until_s=learned_until(shop.folder))
    recomputed = {name: counted.lists[name] for name in ("user_items", "transition", "cooccurrence")}
    yield _live_base(arrays, None if live_base is None else live_arrays(live_base), shop)
    users, items = shop.held_out()
    stored = lists_from_arrays("user_items", arrays)
    pairs = sum(
        item in stored.indices[stored.row(user)] for user, item in zip(users.tolist(), items.tolist(), strict=True)
    )
    for name, expected in recomputed.items():
        rows = _differing_rows(lists_from_arrays(name, arrays), expected)
        text = f"{rows} of {len(expected.indptr) - 1} rows differ from those of the training data"
        if name == "user_items":
            text += f"; they contain {pairs} of {len(users)} held-out pairs"
        leak = rows > 0 or (name == "user_items" and pairs > 0)
        yield Finding(f"evidence: {name}", "leak" if leak else "ok", text, {"differing_rows": rows})


def _live_base(
    arrays: dict[str, NDArray[Any]], recomputed: dict[str, NDArray[Any]] | None, shop: AuditedShop
) -> Finding:
    """Compares what live counts are added to; `recomputed` is None where the training events have no times."""
    line, without_time = "evidence: live counts' base", int((~np.isfinite(shop.times)).sum())
    figures = {"events": len(shop.times), "without_time": without_time}
    if not set(LIVE_ARRAYS) <= arrays.keys():
        if recomputed is None:
            reason = f"{without_time} of {len(shop.times)} training events have no time"
            fix = "add a column `timestamp` to the interactions, and train again"
        else:
            reason, fix = "a version without live evidence made it", "train it again with this version"
        text = f"the release has no base for live evidence, as {reason}; accepted events change the lists of their own"
        return Finding(line, "warning", f"{text} user alone until the next release: {fix}", figures)
    if recomputed is None:
        text = f"the release has totals and recent counts, but {without_time} training events have no time to count by"
        return Finding(line, "leak", text, figures)
    differing = sum(int((~np.isclose(arrays[name], expected)).sum()) for name, expected in recomputed.items())
    return Finding(
        line,
        "leak" if differing else "ok",
        f"{differing} totals and recent counts differ from those of the training data",
        {**figures, "differing": differing},
    )


def _differing_rows(stored: SparseLists, expected: SparseLists) -> int:
    if len(stored.indptr) != len(expected.indptr):
        return max(len(stored.indptr), len(expected.indptr)) - 1
    return sum(
        not np.array_equal(stored.indices[stored.row(row)], expected.indices[expected.row(row)])
        or not np.allclose(stored.weights[stored.row(row)], expected.weights[expected.row(row)], atol=1e-6)
        for row in range(len(expected.indptr) - 1)
    )


def _graph(embeddings: NDArray[Any], shop: AuditedShop) -> Finding:
    """Checks for edges of items without training events; LightGCN gives a vector to items with an edge alone."""
    taken = np.bincount(shop.items, minlength=shop.num_items) > 0
    edges = np.any(embeddings != 0, axis=1)
    foreign, cold = int((edges & ~taken).sum()), int((~taken).sum())
    text = f"{foreign} of the {cold} items without a training interaction have an edge in the interaction graph"
    return Finding(
        "graph edges",
        "leak" if foreign else "ok" if cold else "note",
        text
        if cold
        else "every item has a training interaction, so this check cannot see edges of held-out interactions",
        {"cold_items": cold, "with_edges": foreign},
    )


def _neighbours(release: Path, manifest: Manifest, arrays: dict[str, NDArray[Any]], shop: AuditedShop) -> Finding:
    """Compares base users' vectors with those that the release's own graph computes from training histories."""
    width = manifest.dimensions.explicit
    stored = {
        "user_features.npy": arrays["user_features.npy"][:, -width:],
        "group_layers.npy": arrays["group_layers.npy"],
    }
    recomputed = _explicit(release, manifest, shop.training())
    has_vector = np.linalg.norm(recomputed, axis=1) > 0
    differing = {
        name: int((np.einsum("ue,ue->u", unit_rows(part.astype(np.float32)), recomputed)[has_vector] < SAME).sum())
        for name, part in stored.items()
    }
    return Finding(
        "neighbours",
        "leak" if any(differing.values()) else "ok",
        f"of {int(has_vector.sum())} base users, "
        + " and ".join(f"{count} have a row in {name}" for name, count in differing.items())
        + " that differs from their training history's",
        {"users": int(has_vector.sum()), **differing},
    )


def _explicit(release: Path, manifest: Manifest, histories: list[list[int]]) -> FloatArray:
    graph = open_graph(release / INTEREST_GRAPH_FILE)
    parts = []
    for first in range(0, len(histories), BLOCK_USERS):
        history, mask = pad_histories(histories[first : first + BLOCK_USERS], manifest.decoding.interest_length)
        parts.append(graph({"history": history, "history_mask": mask})["explicit"])
    return np.concatenate(parts)


def _goldens(release: Path, shop: AuditedShop) -> Finding:
    lines = (release / GOLDEN_FILE).read_text(encoding="utf-8").splitlines()
    goldens = [Golden.model_validate_json(line) for line in lines]
    training, most = shop.training(), most_counted(len(shop.users))
    differing = sum(golden.own >= 0 and golden.history != training[golden.own][-most:] for golden in goldens)
    return Finding(
        "goldens",
        "leak" if differing else "ok",
        f"{differing} of {len(goldens)} golden requests have another history than the training data",
        {"goldens": len(goldens), "differing": differing},
    )


def _histories(release: Path, shop: AuditedShop) -> Finding:
    """Checks the one file that may hold all events, because the service needs them."""
    stored = pl.read_parquet(release / HISTORIES_FILE, columns=["user_index", "item_ids"])
    expected = [[shop.item_ids[item] for item in history] for history in shop.training()]
    for split in (shop.valid, shop.test):
        for user, item in zip(split.users.tolist(), split.targets.tolist(), strict=True):
            expected[user].append(shop.item_ids[item])
    found = dict(stored.iter_rows())
    differing = sum(found.get(user, []) != history for user, history in enumerate(expected))
    return Finding(
        "histories",
        "warning" if differing else "ok",
        f"{HISTORIES_FILE} holds all events, for serving alone; {differing} of {len(expected)} histories differ",
        {"users": len(expected), "differing": differing},
    )


def _other_files(manifest: Manifest) -> Finding:
    others = [
        name
        for name in manifest.files
        if name not in _KNOWN_FILES and not name.startswith(tuple(f"{f}/" for f in _KNOWN_FOLDERS))
    ]
    return Finding(
        "other files",
        "warning" if others else "ok",
        f"the audit does not know these files: {', '.join(others)}" if others else "no other file than the contract's",
        {"files": others},
    )
