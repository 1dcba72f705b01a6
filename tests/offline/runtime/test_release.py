"""A release is published whole or not at all, opened only if nothing was touched, and equal runs make equal ones."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.method.interest import BoolArray
from isrf.method.recommend.recommender import Graph, Recommender
from isrf.method.recommend.request import RankingRequest, UserInterests
from isrf.runtime.bundle.manifests import read_manifest
from isrf.runtime.onnx_session import open_graph
from offline.commands.publish import publish
from offline.config import RunConfig
from offline.runtime.release import open_release
from offline.runtime.torch_graph import torch_search
from offline.stages.train.build import load_model
from tests.service.releases import change_manifest, id_of, seal
from tests.shops import TINY, Event, run_stages, write_shop


def shop(folder: Path) -> Path:
    rng = random.Random(2)
    events: list[Event] = []
    for user in range(40):
        events += [(f"u{user}", f"i{item}", 10 * t) for t, item in enumerate(rng.sample(range(24), 6))]
    items = [{"item_id": f"i{row}", "title": f"Lamp {row} of brass", "categories": ["Light"]} for row in range(24)]
    return write_shop(folder, events, items)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A releases folder with one release; its `.work` holds the stages' outputs."""
    root = tmp_path_factory.mktemp("tiny")
    publish(run_stages("export", shop(root / "shop"), root / "releases")["export"], root / "releases")
    return root


@pytest.fixture
def release(tiny: Path, tmp_path: Path) -> Path:
    """A release that the test may break."""
    return Path(shutil.copytree(tiny / "releases" / "current", tmp_path / "release"))


def test_current_points_to_the_published_release(tiny: Path) -> None:
    current = tiny / "releases" / "current"
    assert current.is_symlink()
    assert read_manifest(current).release_id == current.resolve().name


def test_every_file_of_a_release_is_in_its_manifest(release: Path) -> None:
    manifest = read_manifest(release)
    on_disk = {p.relative_to(release).as_posix() for p in release.rglob("*") if p.is_file()}
    assert on_disk - {"manifest.json"} == set(manifest.files)


def test_one_flipped_byte_in_any_file_is_named(release: Path) -> None:
    for name, entry in read_manifest(release).files.items():
        path = release / name
        whole = path.read_bytes()
        assert entry.bytes == len(whole)
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(BundleError, match=name) as error:
            open_release(release)
        assert error.value.code == "bundle.hash_mismatch"
        path.write_bytes(whole)
    open_release(release)


def test_a_missing_file_is_named(release: Path) -> None:
    (release / "item_vectors.npy").unlink()
    with pytest.raises(BundleError, match=r"item_vectors\.npy") as error:
        open_release(release)
    assert error.value.code == "bundle.missing_file"


def test_an_unknown_schema_version_is_refused(release: Path) -> None:
    change_manifest(release, lambda manifest: manifest.update(schema_version=99))
    with pytest.raises(BundleError, match="schema_version") as error:
        open_release(release)
    assert error.value.code == "bundle.schema_version"


def test_a_folder_without_a_release_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as error:
        open_release(tmp_path)
    assert error.value.code == "bundle.no_release"


def test_a_graph_that_answers_otherwise_than_its_model_is_refused(release: Path) -> None:
    """Other item vectors with a manifest that owns up to them: only the goldens can tell."""
    vectors = np.load(release / "item_vectors.npy")
    np.save(release / "item_vectors.npy", vectors[::-1].copy())
    seal(release)
    with pytest.raises(BundleError) as error:
        open_release(release)
    assert error.value.code == "bundle.golden_mismatch"


def test_publishing_a_broken_bundle_leaves_the_old_release(tiny: Path, tmp_path: Path) -> None:
    releases = Path(shutil.copytree(tiny / "releases", tmp_path / "releases", symlinks=True))
    before = (releases / "current").resolve().name
    broken = Path(shutil.copytree(releases / "current", tmp_path / "broken"))
    change_manifest(broken, lambda manifest: manifest.update(preset="other"))
    (broken / "popularity.npy").unlink()
    with pytest.raises(BundleError):
        publish(broken, releases)
    assert (releases / "current").resolve().name == before
    assert not (releases / id_of(broken)).exists()
    assert not list(releases.glob(".publishing-*"))


def test_publishing_twice_is_the_same_as_once(tiny: Path) -> None:
    releases = tiny / "releases"
    bundle = next(path for path in (releases / ".work" / "export").iterdir() if path.is_dir())
    assert publish(bundle, releases) == releases / read_manifest(bundle).release_id


KILLED_IN_A_STAGE = """
import os, runpy, signal, sys
stage = sys.argv.pop(1)

def kill(event, args):
    if event == "open" and f"/.work/{stage}/" in str(args[0]) and ".part" in str(args[0]) and "w" in str(args[1]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
runpy.run_module("offline", run_name="__main__", alter_sys=True)
"""
"""The command, killed at the first file that the stage opens to write: beside what its libraries wrote before."""


def run_command(
    data: Path, releases: Path, *options: str, how: Sequence[str] = ("-m", "offline")
) -> "subprocess.Popen[str]":
    command = [sys.executable, *how, "run", "--data", str(data), "--releases", str(releases), *options]
    settings = [part for setting in TINY for part in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize("stage", ["reason", "train", "compile"])
def test_a_run_killed_in_a_stage_resumes_and_publishes_equal_hashes(tiny: Path, tmp_path: Path, stage: str) -> None:
    releases = tmp_path / "releases"
    killed = run_command(tiny / "shop", releases, how=("-c", KILLED_IN_A_STAGE, stage))
    _, errors = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, errors
    assert list((releases / ".work" / stage).glob("*.part"))
    assert not (releases / "current").exists()
    resumed = run_command(tiny / "shop", releases)
    printed, errors = resumed.communicate()
    assert resumed.returncode == 0, errors
    wanted = read_manifest(tiny / "releases" / "current")
    assert Path(printed.strip()).name == wanted.release_id
    assert read_manifest(Path(printed.strip())).files == wanted.files


def test_production_releases_learn_from_everything_and_name_the_run_that_was_evaluated(
    tiny: Path, tmp_path: Path
) -> None:
    run = run_command(tiny / "shop", tmp_path / "releases", "--fit", "all")
    printed, errors = run.communicate()
    assert run.returncode == 0, errors
    manifest = read_manifest(Path(printed.strip()))
    measured = read_manifest(tmp_path / "releases" / str(manifest.evaluated_release_id))
    assert manifest.fit == "all"
    assert measured.fit == "train"
    assert measured.evaluation["test"]["users"] == 40
    assert manifest.fusion == measured.fusion
    assert np.load(tmp_path / "releases" / manifest.release_id / "popularity.npy").sum() == 40 * 6


def test_the_graph_returns_the_torch_models_items_on_1000_real_histories_alone_and_in_batches(
    demo_release: Path,
) -> None:
    """Items and order equal; and every number the same to the last bit whoever shares the batch."""
    opened = open_release(demo_release / "current")
    config = RunConfig.model_validate(opened.manifest.config)
    stages = {path.name: next(p for p in path.iterdir() if p.is_dir()) for path in _stage_folders(demo_release)}
    lists = opened.recommender.tables.user_items
    whole = [(user, lists.indices[lists.row(user)].tolist()) for user in range(len(lists.indptr) - 1)]
    prefixes = [(user, taken[: len(taken) - less]) for less in (0, 1, 2) for user, taken in whole if len(taken) > less]
    users, histories = zip(*prefixes[:1000], strict=True)
    assert len(histories) == 1000
    interests = opened.recommender.read(histories, users)
    in_torch = _search(opened.recommender, torch_search(load_model(stages), config), histories, interests, size=50)
    graph = open_graph(demo_release / "current" / "recommender.onnx")
    alone = _search(opened.recommender, graph, histories, interests, size=1)
    assert np.array_equal(alone["beam_items"], in_torch["beam_items"])
    # Kernels that add up in another order may exchange items of one score.
    exchanged = alone["dense_items"][:, :50] != in_torch["dense_items"][:, :50]
    scores = alone["dense_log_probs"][:, :50], in_torch["dense_log_probs"][:, :50]
    assert exchanged.mean() < 1e-3
    np.testing.assert_allclose(scores[0][exchanged], scores[1][exchanged], atol=1e-5)
    for name in ("beam_log_probs", "dense_log_probs", "dense_all", "query", "explicit_all"):
        np.testing.assert_allclose(alone[name], in_torch[name], atol=1e-4, err_msg=name)
    for size in (2, 64):
        together = _search(opened.recommender, graph, histories, interests, size=size)
        for name, value in alone.items():
            np.testing.assert_array_equal(together[name], value, err_msg=f"{name}, {size} together")


@pytest.mark.parametrize("n", [1, 10, 200])
def test_a_list_is_as_long_as_allowed_items_last_and_holds_only_those(demo_release: Path, n: int) -> None:
    recommender = open_release(demo_release / "current").recommender
    num_items = len(recommender.tables.item_vectors)
    rng = np.random.default_rng(n)
    requests = []
    for count in (0, 1, 3, 40, num_items):
        allowed: BoolArray = np.zeros(num_items, dtype=np.bool_)
        allowed[rng.choice(num_items, count, replace=False)] = True
        requests += [
            RankingRequest(history=history, n=n, allowed=allowed)
            for history in ([], [5], rng.choice(num_items, 30).tolist())
        ]
    interests = recommender.read([r.history for r in requests], [-1] * len(requests))
    for request, ranked in zip(requests, recommender.rank(requests, interests), strict=True):
        items = [item.item_index for item in ranked.items]
        assert len(items) == len(set(items)) == min(n, int(request.allowed.sum()))
        assert request.allowed[items].all()
        scores = [item.score for item in ranked.items]
        assert scores == sorted(scores, reverse=True)


def _stage_folders(releases: Path) -> list[Path]:
    return [path for path in (releases / ".work").iterdir() if path.is_dir()]


def _search(
    recommender: Recommender,
    graph: Graph,
    histories: Sequence[Sequence[int]],
    interests: UserInterests,
    *,
    size: int,
) -> dict[str, NDArray[Any]]:
    recommender = recommender.searching_with(graph)
    everything = np.ones(len(recommender.tables.item_vectors), dtype=np.bool_)
    parts = []
    for start in range(0, len(histories), size):
        rows = range(start, min(start + size, len(histories)))
        requests = [RankingRequest(history=histories[row], n=1, allowed=everything) for row in rows]
        output = recommender.search(requests, interests.rows(list(rows)))
        every = np.arange(len(everything))
        parts.append(
            {
                "query": output.query,
                "beam_items": output.beam_items,
                "beam_log_probs": output.beam_log_probs,
                "dense_items": np.stack([found.items for found in output.dense]),
                "dense_log_probs": np.stack([found.log_probs for found in output.dense]),
                "dense_all": np.stack([found.log_probs_of(every) for found in output.dense]),
                "explicit_all": np.stack([found.log_probs_of(every) for found in output.explicit]),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
