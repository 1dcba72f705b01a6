"""Checks that the fields of a manifest fit each other, beyond their types (no IO).

The replay of golden requests would not show these mistakes.
"""

from collections.abc import Iterator
from datetime import datetime

from isrf.contract.errors import BundleError
from isrf.contract.manifest import (
    GOLDEN_ITEMS_FILE,
    INTEREST_GRAPH_FILE,
    QUERY_SCHEMA_VERSION,
    RANKER_FILE,
    SEALED_SCHEMA_VERSIONS,
    SEARCH_GRAPHS,
    GraphSpec,
    Manifest,
)
from isrf.method.ranking.fusion import CHANNELS, EVIDENCE_CHANNELS

LIVE_SCHEMA_VERSION = 4
"""The first schema with what live counts are added to."""


def check_manifest(manifest: Manifest) -> None:
    """Raises `BundleError` (`bundle.manifest`, `bundle.graph_mismatch`) for the first mistake."""
    for code, mistake in _mistakes(manifest):
        raise BundleError(code, f"manifest.json: {mistake}.", fix="Publish the release again.")


def _mistakes(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if not _is_time(manifest.created_at):
        yield "bundle.manifest", f"created_at {manifest.created_at[:60]!r} is not an RFC 3339 time with an offset"
    for field, found, expected in (
        ("fusion.weights", manifest.fusion.weights, CHANNELS),
        ("fusion.epsilons", manifest.fusion.epsilons, EVIDENCE_CHANNELS),
    ):
        # Releases of before live evidence were fitted without this channel; it weighs nothing there.
        optional = {"popular"} if manifest.schema_version < LIVE_SCHEMA_VERSION else set()
        if odd := sorted((set(found) ^ set(expected)) - optional):
            yield "bundle.manifest", f"{field} needs the channels {', '.join(expected)}: {', '.join(odd)[:200]}"
    if not any(manifest.fusion.weights.values()):
        yield "bundle.manifest", "fusion.weights are all 0, so that nothing decides an order"
    if "fp32" in manifest.variants:
        yield "bundle.manifest", "variants names fp32, which every release has"
    if manifest.schema_version in SEALED_SCHEMA_VERSIONS:
        for variant_name, variant in manifest.variants.items():
            if variant.tolerance.list_score is None or variant.tolerance.list_missing is None:
                yield "bundle.manifest", f"variants.{variant_name}.tolerance has no limits for the served list"
    for field, present, name in (
        ("ranker", manifest.ranker is not None, RANKER_FILE),
        ("goldens", manifest.goldens is not None, GOLDEN_ITEMS_FILE),
    ):
        if present != (name in manifest.files):
            yield "bundle.manifest", f"one of {field} and {name} is missing; a release has both or neither"
    for name in (INTEREST_GRAPH_FILE, SEARCH_GRAPHS["fp32"], *(SEARCH_GRAPHS[key] for key in manifest.variants)):
        if name not in manifest.graphs:
            yield "bundle.graph_mismatch", f"the manifest has no signature of {name}"
        elif name != INTEREST_GRAPH_FILE:
            yield from _search_mistakes(manifest, name, manifest.graphs[name])


def _search_mistakes(manifest: Manifest, name: str, graph: GraphSpec) -> Iterator[tuple[str, str]]:
    """Checks the search's fixed sizes against the graph's shapes, so that nobody can change them in the manifest."""
    decoding, dims = manifest.decoding, manifest.dimensions
    sizes = [
        ("dimensions.width", dims.width, graph.outputs, "query"),
        ("dimensions.explicit", dims.explicit, graph.inputs, "explicit"),
        ("dimensions.group", dims.group, graph.inputs, "group"),
    ]
    if decoding.num_beams or "beam_items" in graph.outputs:
        sizes.append(("decoding.num_beams", decoding.num_beams, graph.outputs, "beam_items"))
    if manifest.schema_version < QUERY_SCHEMA_VERSION:
        sizes.append(("decoding.num_dense", decoding.num_dense, graph.outputs, "dense_items"))
    for field, size, tensors, tensor in sizes:
        shape = tensors[tensor].shape if tensor in tensors else ()
        if len(shape) != 2 or shape[1] != size:
            yield "bundle.graph_mismatch", f"{field} is {size}, {tensor} of {name} has the shape {list(shape)}"


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
