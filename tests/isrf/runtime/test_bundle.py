"""The manifest refuses what it does not know; arrays are held against it."""

import numpy as np
import pytest
from pydantic import ValidationError

from isrf.contract.errors import BundleError
from isrf.contract.manifest import ARRAYS, EVIDENCE_LISTS, FIRST_VARIANTS_FILE, Manifest, arrays_of
from isrf.runtime.bundle.array_checks import check_arrays


def manifest(**changes: object) -> Manifest:
    fields = {
        "schema_version": 3,
        "release_id": "r-1",
        "created_at": "2026-01-01T00:00:00+00:00",
        "producer": {"isrf_version": "0", "versions": {}},
        "preset": "demo",
        "fit": "train",
        "evaluated_release_id": None,
        "config": {},
        "counts": {"num_items": 5, "num_users": 3, "num_interactions": 9},
        "dimensions": {
            "width": 4, "num_levels": 2, "codebook_size": 8, "feature": 6, "explicit": 2, "group": 2,
        },
        "decoding": {"num_beams": 3, "num_dense": 5, "history_length": 4, "interest_length": 6},
        "group_search": {
            "threshold": 0.7, "background_cosine": 0, "nearest_cosine": 1, "max_neighbours": 2, "min_neighbours": 1,
        },
        "fusion": {"weights": {}, "epsilons": {}, "beam_gap": 1},
        "graphs": {},
        "data_fingerprint": "",
        "order_fingerprint": "",
        "tie_seed": None,
        "events_through": None,
        "reasoner": "attribute",
        "encoder": "tfidf-svd",
        "evaluation": {},
        "files": {},
    }  # fmt: skip
    return Manifest.model_validate({**fields, **changes})


def arrays() -> dict[str, np.ndarray]:
    sizes = {"N": 5, "U": 3, "D": 4, "L": 2, "F": 6, "E": 2, "G": 2}
    made = {
        name: np.zeros([sizes[s] if s else 3 for s in spec.shape], dtype=spec.dtype)
        for name, spec in ARRAYS.items()
        if not name.startswith("evidence/")
    }
    for name in EVIDENCE_LISTS:
        rows = 3 if name == "user_items" else 5
        made[f"evidence/{name}_indptr.npy"] = np.zeros(rows + 1, np.int64)
        made[f"evidence/{name}_indices.npy"] = np.zeros(0, np.int32)
        made[f"evidence/{name}_weights.npy"] = np.zeros(0, np.float32)
    return made


def test_a_manifest_survives_its_own_json() -> None:
    assert Manifest.model_validate_json(manifest().model_dump_json()) == manifest()


@pytest.mark.parametrize(
    "changes", [{"schema_version": 1}, {"surprise": 1}, {"release_id": "../x"}, {"files": {"a": {"sha256": "0"}}}]
)
def test_a_manifest_that_is_not_understood_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        manifest(**changes)


def test_matching_arrays_pass() -> None:
    check_arrays(manifest(), arrays())


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_a_missing_array_is_named(name: str) -> None:
    some = arrays()
    del some[name]
    with pytest.raises(BundleError, match=name) as error:
        check_arrays(manifest(), some)
    assert error.value.code == "bundle.missing_file"


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_an_array_of_another_dtype_is_named(name: str) -> None:
    some = arrays()
    some[name] = some[name].astype(np.complex64)
    with pytest.raises(BundleError, match=name) as error:
        check_arrays(manifest(), some)
    assert error.value.code == "bundle.array_mismatch"


def test_an_array_for_other_items_is_named() -> None:
    some = arrays()
    some["item_vectors.npy"] = np.zeros((6, 4), np.float32)
    with pytest.raises(BundleError, match=r"item_vectors\.npy"):
        check_arrays(manifest(), some)


def test_evidence_that_points_outside_the_catalogue_is_refused() -> None:
    some = arrays()
    some["evidence/content_indptr.npy"] = np.array([0, 1, 1, 1, 1, 1])
    some["evidence/content_indices.npy"] = np.array([5], np.int32)
    some["evidence/content_weights.npy"] = np.ones(1, np.float32)
    with pytest.raises(BundleError, match="content"):
        check_arrays(manifest(), some)


VARIANTS = {FIRST_VARIANTS_FILE: {"sha256": "0" * 64, "bytes": 1}}


def test_variants_belong_to_a_release_that_lists_them() -> None:
    ours, some = manifest(files=VARIANTS), arrays() | {FIRST_VARIANTS_FILE: np.array([0, 1, 0, 1, 4], np.int32)}
    assert set(arrays_of(ours)) == set(some)
    check_arrays(ours, some)
    with pytest.raises(BundleError, match="first_variants"):
        check_arrays(ours, arrays())


@pytest.mark.parametrize("wrong", [[0, 1, 2, 3, 5], [0, 2, 2, 3, 4], [0, 0, 1, 3, 4], [-1, 1, 2, 3, 4]])
def test_variants_that_lead_nowhere_are_refused(wrong: list[int]) -> None:
    with pytest.raises(BundleError, match="first_variants") as error:
        check_arrays(manifest(files=VARIANTS), arrays() | {FIRST_VARIANTS_FILE: np.array(wrong, np.int32)})
    assert error.value.code == "bundle.array_mismatch"


def divided(**changes: np.ndarray) -> tuple[Manifest, dict[str, np.ndarray]]:
    """Users in two cells, of which a search looks into both."""
    search = manifest().group_search.model_copy(update={"probes": 2}).model_dump()
    cells = {"user_cells.npy": np.zeros(3, np.int32), "user_centroids.npy": np.zeros((2, 6), np.float32)}
    return manifest(group_search=search), arrays() | cells | changes


def test_cells_belong_to_a_release_that_is_searched_by_them() -> None:
    check_arrays(*divided())
    ours, some = divided()
    assert set(arrays_of(ours)) == set(some)
    assert set(arrays_of(manifest())) == set(ARRAYS)
    for name in ("user_cells.npy", "user_centroids.npy"):
        with pytest.raises(BundleError, match=name):
            check_arrays(ours, {key: array for key, array in some.items() if key != name})


@pytest.mark.parametrize(
    "changes",
    [
        {"user_cells.npy": np.array([0, 2, 0], np.int32)},
        {"user_cells.npy": np.array([0, -1, 0], np.int32)},
        {"user_cells.npy": np.zeros(4, np.int32)},
        {"user_centroids.npy": np.zeros((1, 6), np.float32)},
        {"user_centroids.npy": np.zeros((2, 5), np.float32)},
    ],
)
def test_cells_that_do_not_fit_are_refused(changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError) as error:
        check_arrays(*divided(**changes))
    assert error.value.code == "bundle.array_mismatch"
