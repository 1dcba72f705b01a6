"""Whether the fields of a manifest fit each other: what a type cannot say, and what no list would show (no IO)."""

from collections.abc import Iterator
from datetime import datetime

from isrf.contract.errors import BundleError
from isrf.contract.manifest import (
    GOLDEN_ITEMS_FILE,
    INTEREST_GRAPH_FILE,
    RANKER_FILE,
    SCHEMA_VERSION,
    SEARCH_GRAPHS,
    GraphSpec,
    Manifest,
)
from isrf.method.ranking.fusion import CHANNELS, EVIDENCE_CHANNELS


def check_manifest(manifest: Manifest) -> None:
    """Raises `BundleError` (`bundle.manifest`, `bundle.graph_mismatch`) with the first thing that does not fit."""
    for code, wrong in _wrong(manifest):
        raise BundleError(code, f"manifest.json: {wrong}.", fix="Publish the release again.")


def _wrong(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if not _is_moment(manifest.created_at):
        yield "bundle.manifest", f"created_at {manifest.created_at[:60]!r} is no RFC 3339 time with an offset"
    for what, found, wanted in (
        ("fusion.weights", manifest.fusion.weights, CHANNELS),
        ("fusion.epsilons", manifest.fusion.epsilons, EVIDENCE_CHANNELS),
    ):
        if set(found) != set(wanted):
            odd = sorted(set(found) ^ set(wanted))
            yield "bundle.manifest", f"{what} is about other channels than {', '.join(wanted)}: {', '.join(odd)[:200]}"
    if not any(manifest.fusion.weights.values()):
        yield "bundle.manifest", "fusion.weights are all 0, so that nothing decides an order"
    if "fp32" in manifest.variants:
        yield "bundle.manifest", "variants names fp32, which every release has"
    if manifest.schema_version == SCHEMA_VERSION:
        for form, variant in manifest.variants.items():
            if variant.tolerance.list_score is None or variant.tolerance.list_missing is None:
                yield "bundle.manifest", f"variants.{form}.tolerance does not say how far the served list may be off"
    for field, there, name in (
        ("ranker", manifest.ranker is not None, RANKER_FILE),
        ("goldens", manifest.goldens is not None, GOLDEN_ITEMS_FILE),
    ):
        if there != (name in manifest.files):
            yield "bundle.manifest", f"{field} and {name} are not both there or both missing"
    for name in (INTEREST_GRAPH_FILE, SEARCH_GRAPHS["fp32"], *(SEARCH_GRAPHS[one] for one in manifest.variants)):
        if name not in manifest.graphs:
            yield "bundle.graph_mismatch", f"the manifest has no signature of {name}"
        elif name != INTEREST_GRAPH_FILE:
            yield from _wrong_search(manifest, name, manifest.graphs[name])


def _wrong_search(manifest: Manifest, name: str, graph: GraphSpec) -> Iterator[tuple[str, str]]:
    """The search's fixed sizes are the graph's own, so that they cannot be changed beside it."""
    decoding, dims = manifest.decoding, manifest.dimensions
    sizes = (
        ("decoding.num_beams", decoding.num_beams, graph.outputs, "beam_items"),
        ("decoding.num_dense", decoding.num_dense, graph.outputs, "dense_items"),
        ("dimensions.width", dims.width, graph.inputs, "item_vectors"),
        ("dimensions.explicit", dims.explicit, graph.inputs, "explicit"),
        ("dimensions.group", dims.group, graph.inputs, "group"),
    )
    for field, wanted, values, value in sizes:
        shape = values[value].shape if value in values else ()
        if len(shape) != 2 or shape[1] != wanted:
            yield "bundle.graph_mismatch", f"{field} is {wanted}, {value} of {name} has the shape {list(shape)}"


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
