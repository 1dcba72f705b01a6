"""The group vector's gain is paired, shopper by shopper, over shops of several seeds."""

import json
import sys
from pathlib import Path

import numpy as np
import planted
import pytest

from offline.commands.demo_shop.generate import generate
from tests.shops import TINY

SETTINGS = [
    word for one in (*TINY, "semantic_ids.codebook_size=12", "evaluate.sampled_users=5") for word in ("--set", one)
]


def test_the_gain_is_paired_over_shops_of_several_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planted, "generate", lambda folder, *, seed: generate(folder, seed=seed, num_shoppers=60))
    monkeypatch.setattr(sys, "argv", ["planted.py", "--seeds", "0,1", "--work", str(tmp_path), *SETTINGS])
    planted.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    # One arm's own weights are those that its validation chose (this shop is too small for a ranker).
    for arm in ("with", "without"):
        assert rows[f"fused, weights of {arm}"][arm] == rows["fused"][arm]
    for row in rows.values():
        mean, low, high = row["gain"]
        assert low <= mean <= high
        assert mean == pytest.approx(row["with"] - row["without"], abs=2e-5)
        assert mean == pytest.approx(np.mean(row["gain_by_seed"]), abs=2e-5)  # shops of one size
    assert any(seed_gain != 0 for row in rows.values() for seed_gain in row["gain_by_seed"])


def test_the_share_by_hand() -> None:
    category = np.array(["tent", "tea", "tent", "pen"])
    lists = np.array([[0, 2, 3, 1, -1, -1, -1, -1, -1, -1], [3, 1, -1, -1, -1, -1, -1, -1, -1, -1]])
    assert planted.planted_share(lists, category, np.array(["tent", "tent"])).tolist() == [0.2, 0.0]
