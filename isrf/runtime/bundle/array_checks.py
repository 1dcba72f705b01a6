"""Checks that a bundle's arrays are as its manifest describes them and fit each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import (
    EVIDENCE_LISTS,
    FIRST_VARIANTS_FILE,
    RANKER_FILE,
    USER_CELLS_FILE,
    USER_CENTROIDS_FILE,
    Manifest,
    arrays_of,
)


def check_arrays(manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Checks every array of `arrays_of` against the manifest's counts; raises `BundleError` naming the file."""
    dims, counts = manifest.dimensions, manifest.counts
    symbols = {
        "N": counts.num_items,
        "U": counts.num_users,
        "D": dims.width,
        "L": dims.num_levels,
        "C": dims.codebook_size,
        "F": dims.feature,
        "E": dims.explicit,
        "G": dims.group,
    }
    for name, spec in arrays_of(manifest).items():
        if name not in arrays:
            raise BundleError("bundle.missing_file", f"{name} is missing.", fix="Publish the release again.")
        array = arrays[name]
        expected = tuple(None if s is None else symbols[s] for s in spec.shape)
        fits = array.ndim == len(expected) and all(
            wanted is None or size == wanted for size, wanted in zip(array.shape, expected, strict=True)
        )
        if array.dtype != np.dtype(spec.dtype) or not fits:
            raise BundleError(
                "bundle.array_mismatch",
                f"{name} holds {array.dtype} {array.shape}, the manifest says {spec.dtype} {expected}.",
                fix="Publish the release again; its parts come from different runs.",
            )
    rows = dict.fromkeys(EVIDENCE_LISTS, counts.num_items) | {"user_items": counts.num_users}
    for name, num_rows in rows.items():
        _check_csr(
            name,
            num_rows,
            counts.num_items,
            arrays[f"evidence/{name}_indptr.npy"],
            arrays[f"evidence/{name}_indices.npy"],
            arrays[f"evidence/{name}_weights.npy"],
        )
    if FIRST_VARIANTS_FILE in arrays:
        _check_first_variants(arrays[FIRST_VARIANTS_FILE])
    if not float(arrays["popularity.npy"].min()) >= 0:
        raise BundleError(
            "bundle.array_mismatch", "popularity.npy holds a negative count.", fix="Publish the release again."
        )
    if manifest.group_search.probes is not None:
        _check_cells(arrays, USER_CELLS_FILE, USER_CENTROIDS_FILE, manifest.group_search.probes)
    if manifest.ranker is not None and len(arrays[RANKER_FILE]) != manifest.ranker.num_values:
        raise BundleError(
            "bundle.array_mismatch",
            f"{RANKER_FILE} holds {len(arrays[RANKER_FILE])} numbers, the manifest says {manifest.ranker.num_values}.",
            fix="Publish the release again; its parts come from different runs.",
        )


def _check_cells(arrays: Mapping[str, NDArray[Any]], cells_name: str, centroids_name: str, probes: int) -> None:
    cells, centroids = arrays[cells_name], arrays[centroids_name]
    if not (probes <= len(centroids) and int(cells.min()) >= 0 and int(cells.max()) < len(centroids)):
        raise BundleError(
            "bundle.array_mismatch",
            f"{cells_name} names cells that {centroids_name} lacks, or there are fewer than {probes} cells.",
            fix="Publish the release again; its parts come from different runs.",
        )


def _check_first_variants(first: NDArray[Any]) -> None:
    in_range = int(first.min()) >= 0 and bool((first <= np.arange(len(first))).all())
    if not in_range or not np.array_equal(first[first], first):
        raise BundleError(
            "bundle.array_mismatch",
            f"{FIRST_VARIANTS_FILE} names no lowest row of each item's variants.",
            fix="Publish the release again; its parts come from different runs.",
        )


def _check_csr(
    name: str,
    num_rows: int,
    num_items: int,
    indptr: NDArray[Any],
    indices: NDArray[Any],
    weights: NDArray[Any],
) -> None:
    sound = (
        len(indptr) == num_rows + 1
        and indptr[0] == 0
        and indptr[-1] == len(indices) == len(weights)
        and bool(np.all(np.diff(indptr) >= 0))
        and (len(indices) == 0 or (int(indices.min()) >= 0 and int(indices.max()) < num_items))
        and (len(weights) == 0 or float(weights.min()) >= 0)
    )
    if not sound:
        raise BundleError(
            "bundle.array_mismatch",
            f"evidence/{name}_*.npy is not a sparse list of {num_rows} rows over {num_items} items, weights from 0.",
            fix="Publish the release again.",
        )
