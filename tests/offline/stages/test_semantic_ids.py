"""Stage `semantic-ids`: codebooks from trained items only, quiet on small catalogues, equal runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.contract.errors import ConfigError, StageError
from isrf.method.interest import unit_rows
from isrf.method.semantic_ids import fuse_vectors
from offline.config import build_config
from offline.context import StageContext
from offline.stages.semantic_ids.stage import run


def run_stage(folder: Path, item_text: NDArray[np.float32], embeddings: NDArray[np.float32], *assignments: str) -> Path:
    for name in ("embed", "graph", "out", "scratch"):
        (folder / name).mkdir(parents=True)
    np.save(folder / "embed" / "item_text.npy", item_text)
    np.save(folder / "graph" / "item_embeddings.npy", embeddings)
    with Progress(disable=True) as progress:
        run(
            StageContext(
                data=folder / "absent",
                inputs={"embed": folder / "embed", "graph": folder / "graph"},
                out=folder / "out",
                scratch=folder / "scratch",
                config=build_config("demo", None, assignments),
                progress=progress,
            )
        )
    return folder / "out"


def departments(num_items: int = 600, num_departments: int = 12) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Items of a few departments: close in text and in graph inside one."""
    rng = np.random.default_rng(0)
    department = np.arange(num_items) % num_departments
    text = rng.normal(size=(num_departments, 16))[department] + 0.2 * rng.normal(size=(num_items, 16))
    graph = rng.normal(size=(num_departments, 8))[department] + 0.2 * rng.normal(size=(num_items, 8))
    return unit_rows(text.astype(np.float32)), graph.astype(np.float32)


def test_a_small_catalogue_gets_unique_ids_without_a_word_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = run_stage(tmp_path, *departments())
    ids = np.load(out / "semantic_ids.npy")
    assert ids.dtype == np.int32
    assert ids.shape == (600, 4)
    assert len(np.unique(ids, axis=0)) == 600
    report = json.loads((out / "report.json").read_text())
    assert [level["prefixes"] for level in report["levels"]] == [
        len(np.unique(ids[:, : level + 1], axis=0)) for level in range(4)
    ]
    assert report["levels"][-1]["items_per_prefix_max"] == 1
    captured = capfd.readouterr()
    assert captured.err == ""


def test_items_that_share_a_first_code_share_their_department(tmp_path: Path) -> None:
    ids = np.load(run_stage(tmp_path, *departments()) / "semantic_ids.npy")
    department = np.arange(600) % 12
    for code in np.unique(ids[:, 0]):
        assert len(np.unique(department[ids[:, 0] == code])) == 1


def test_two_runs_are_equal_byte_for_byte(tmp_path: Path) -> None:
    first, second = (run_stage(tmp_path / name, *departments()) for name in "ab")
    for name in ("semantic_ids.npy", "report.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_an_item_without_training_interactions_teaches_no_codebook(tmp_path: Path) -> None:
    text, embeddings = departments()
    embeddings[7] = 0
    other = text.copy()
    other[7] = -text[7]
    first, second = (
        np.load(run_stage(tmp_path / name, rows, embeddings) / "semantic_ids.npy")
        for name, rows in (("a", text), ("b", other))
    )
    taught = np.arange(600) != 7
    np.testing.assert_array_equal(first[taught, :3], second[taught, :3])
    assert (first[7] != second[7]).any()


@pytest.mark.parametrize("num_items", [1, 2, 9])
def test_tiny_catalogues_work(tmp_path: Path, num_items: int, capfd: pytest.CaptureFixture[str]) -> None:
    text, embeddings = departments()
    ids = np.load(run_stage(tmp_path, text[:num_items], embeddings[:num_items]) / "semantic_ids.npy")
    assert len(np.unique(ids, axis=0)) == num_items
    assert capfd.readouterr().err == ""


def test_identical_items_without_text_work(tmp_path: Path) -> None:
    ids = np.load(
        run_stage(tmp_path, np.zeros((2000, 4), np.float32), np.ones((2000, 4), np.float32)) / "semantic_ids.npy"
    )
    assert len(np.unique(ids, axis=0)) == 2000


def test_too_few_codes_end_in_an_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="600 items do not fit") as caught:
        run_stage(tmp_path, *departments(), "semantic_ids.levels=2", "semantic_ids.codebook_size=24")
    assert caught.value.code == "config.semantic_ids_capacity"
    assert not list((tmp_path / "out").iterdir())


def test_no_trained_item_ends_in_an_error(tmp_path: Path) -> None:
    text, embeddings = departments()
    with pytest.raises(StageError) as caught:
        run_stage(tmp_path, text, np.zeros_like(embeddings))
    assert caught.value.code == "semantic_ids.no_trained_items"


def test_text_share_weighs_the_squared_length() -> None:
    text, embeddings = departments()
    fused = fuse_vectors(text, embeddings, 0.3)
    np.testing.assert_allclose(np.square(fused[:, :16]).sum(axis=1), 0.3, atol=1e-5)
    np.testing.assert_allclose(np.square(fused[:, 16:]).sum(axis=1), 0.7, atol=1e-5)
