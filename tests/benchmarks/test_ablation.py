"""Variants differ by what their name says, share what they can, and are compared user by user."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from offline.config import build_config
from tests.shops import TINY

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("ablation", ROOT / "benchmarks" / "ablation.py")
assert spec is not None
assert spec.loader is not None
ablation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ablation)
generate_demo_shop = ablation.generate

SETTINGS = [
    word for one in (*TINY, "semantic_ids.codebook_size=12", "evaluate.sampled_users=5") for word in ("--set", one)
]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, arguments), *SETTINGS])
    ablation.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("name", [name for name in ablation.VARIANTS if name != ablation.WHOLE])
def test_every_variant_is_a_valid_configuration_of_its_own(name: str) -> None:
    settings = ablation.VARIANTS[name]
    changed = build_config("demo", None, settings)
    default = build_config("demo")
    assert changed != default or name == f"decoder layers: {default.model.num_decoder_layers}"


def test_variants_share_the_stages_that_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate_demo_shop(tmp_path / "shop", seed=0, num_shoppers=60)
    parts = ("--only", "group", "--only", "dense", "--only", "layers: 1")
    result = run(monkeypatch, capsys, "--data", tmp_path / "shop", "--releases", tmp_path, *parts)
    rows = result["rows"]
    assert len(rows) == 5

    def outputs(stage: str) -> int:
        return sum(1 for path in (tmp_path / ".work" / stage).iterdir() if path.is_dir() and not path.suffix)

    assert (outputs("graph"), outputs("semantic-ids")) == (1, 1)
    assert outputs("train") == 3  # whole, without the group vector, without the dense path
    assert outputs("evaluate") == 4
    assert rows["without the group channel"]["fusion"]["group"] == 0.0
    assert rows["without the dense path"]["fusion"]["dense"] == 0.0
    assert rows["decoder layers: 1"]["minus_whole"] == [0.0, 0.0, 0.0]  # the same run
    whole, other = rows["whole model"]["NDCG@10"][0], rows["without the dense path"]["NDCG@10"][0]
    assert rows["without the dense path"]["minus_whole"][0] == pytest.approx(other - whole, abs=2e-5)


def test_the_planted_gain_is_paired_over_shops_of_several_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        ablation, "generate", lambda folder, *, seed: generate_demo_shop(folder, seed=seed, num_shoppers=60)
    )
    result = run(monkeypatch, capsys, "--planted", "--seeds", "0,1", "--work", tmp_path)
    rows = result["rows"]
    # One arm's own weights are those that its validation chose (this shop is too small for a ranker).
    for arm in ("with", "without"):
        assert rows[f"fused, weights of {arm}"][arm] == rows["fused"][arm]
    for row in rows.values():
        mean, low, high = row["gain"]
        assert low <= mean <= high
        assert mean == pytest.approx(row["with"] - row["without"], abs=2e-5)
        assert mean == pytest.approx(np.mean(row["gain_by_seed"]), abs=2e-5)  # shops of one size
    assert any(seed_gain != 0 for row in rows.values() for seed_gain in row["gain_by_seed"])


def test_the_planted_share_by_hand() -> None:
    category = np.array(["tent", "tea", "tent", "pen"])
    lists = np.array([[0, 2, 3, 1, -1, -1, -1, -1, -1, -1], [3, 1, -1, -1, -1, -1, -1, -1, -1, -1]])
    assert ablation.planted_share(lists, category, np.array(["tent", "tent"])).tolist() == [0.2, 0.0]
