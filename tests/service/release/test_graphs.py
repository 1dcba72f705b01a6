"""Where a graph runs is checked, not assumed, and tables that stay there are those of the call."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from isrf.contract.errors import ConfigError
from isrf.contract.manifest import SEARCH_GRAPH_FILE, Manifest
from isrf.method.recommend.recommender import REQUEST_INPUTS, Graph
from isrf.method.recommend.request import RankingRequest
from isrf.runtime.bundle.manifests import read_manifest
from service.release.graphs import CUDA, BoundGraph, open_graph
from service.release.opening import Release, open_release
from service.settings import DeviceName, load_settings

ON_GPU = CUDA in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def release(tiny_release: Path) -> Release:
    return open_release(tiny_release)


def _path(tiny_release: Path) -> tuple[Path, Manifest]:
    folder = (tiny_release / "current").resolve()
    return folder / SEARCH_GRAPH_FILE, read_manifest(folder)


def _opened(path: Path, manifest: Manifest, device: DeviceName = "cpu") -> Graph:
    content = np.fromfile(path, np.uint8)
    return open_graph(path.name, content, manifest.graphs[path.name], device=device)


def _search_inputs(release: Release, history: list[int]) -> dict[str, NDArray[Any]]:
    """What the recommender gives its search graph."""
    taken: dict[str, NDArray[Any]] = {}

    def listening(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        taken.update(inputs)
        return release.recommender.search_graph(inputs)

    request = RankingRequest(history=history, n=10, allowed=np.ones(len(release.catalogue), dtype=np.bool_))
    recommender = release.recommender
    recommender.searching_with(listening).search([request], recommender.read([history], [-1]))
    return taken


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused_and_auto_takes_the_processor(tiny_release: Path, release: Release) -> None:
    path, manifest = _path(tiny_release)
    with pytest.raises(ConfigError) as refused:
        _opened(path, manifest, "cuda")
    assert refused.value.code == "config.no_gpu"
    assert "ISRF_DEVICE=cpu" in refused.value.fix
    inputs = _search_inputs(release, [3, 14, 15])
    first, second = (_opened(path, manifest, device)(inputs) for device in ("cpu", "auto"))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_a_bound_graph_answers_as_an_unbound_one_and_follows_its_tables(tiny_release: Path, release: Release) -> None:
    """Bound to this machine's own memory, which takes the same way as a GPU's."""
    path, manifest = _path(tiny_release)
    plain = _opened(path, manifest)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    bound = BoundGraph(session, names - REQUEST_INPUTS, memory="cpu")
    first = _search_inputs(release, [3, 14, 15])
    changed = {**_search_inputs(release, [8, 2]), "node_vectors": first["node_vectors"] * np.float32(1.5)}
    for inputs in (first, changed, first):
        wanted, found = plain(inputs), bound(inputs)
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)
    same_tables = {**changed, "node_vectors": first["node_vectors"]}
    assert not np.array_equal(plain(same_tables)["beam_log_probs"], plain(changed)["beam_log_probs"])


def test_tables_are_copied_when_they_change_and_not_before(
    tiny_release: Path, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = _path(tiny_release)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    bound = BoundGraph(session, {"node_vectors", "item_inputs"}, memory="cpu")
    first, second = _search_inputs(release, [3, 14, 15]), _search_inputs(release, [8, 2])
    copied: list[NDArray[Any]] = []
    copy = onnxruntime.OrtValue.ortvalue_from_numpy

    def watched(array: NDArray[Any], *where: Any) -> Any:
        copied.append(array)
        return copy(array, *where)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", watched)
    bound(first)
    assert len(copied) == 2
    bound(second)
    assert len(copied) == 2, "the same tables"
    changed = second["node_vectors"].copy()
    bound({**second, "node_vectors": changed})
    assert len(copied) == 3
    assert copied[-1] is changed


def test_the_8_bit_search_on_a_gpu_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(releases_dir=tmp_path, variant="int8", device="cuda")
    assert refused.value.code == "config.int8_on_gpu"
    assert "fp16" in refused.value.fix
