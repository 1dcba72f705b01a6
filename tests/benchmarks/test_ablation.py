"""Variants differ by what their name says, share what they can, and are compared user by user."""

import json
import sys
from pathlib import Path
from typing import Any

import ablation
import pytest
from rich.progress import Progress

from offline.cli import configured
from offline.commands.demo_shop.generate import generate
from offline.config import build_config
from offline.pipeline import run_until
from tests.shops import TINY

SETTINGS = [
    word for one in (*TINY, "semantic_ids.codebook_size=12", "evaluate.sampled_users=5") for word in ("--set", one)
]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, arguments), *SETTINGS])
    ablation.main()
    last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return last


@pytest.mark.parametrize("name", [name for name in ablation.VARIANTS if name != ablation.WHOLE])
def test_every_variant_is_a_valid_configuration_of_its_own(name: str) -> None:
    settings = ablation.VARIANTS[name]
    changed = build_config("demo", None, settings)
    default = build_config("demo")
    assert changed != default or name == f"decoder layers: {default.model.num_decoder_layers}"


def test_variants_share_what_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tmp_path / "shop", seed=0, num_shoppers=60)
    parts = ("--only", "group", "--only", "generative", "--only", "layers: 1", "--only", "seed")
    result = run(monkeypatch, capsys, "--data", tmp_path / "shop", "--releases", tmp_path, *parts)
    rows = result["rows"]
    assert list(rows) == [
        "whole model",
        "the same, seed 1",
        "without the group vector",
        "without the generative path",
        "without the group channel",
        "decoder layers: 1",
    ]

    def outputs(stage: str) -> int:
        return sum(1 for path in (tmp_path / ".work" / stage).iterdir() if path.is_dir() and not path.suffix)

    assert (outputs("ingest"), outputs("graph")) == (1, 2)
    assert outputs("train") == 4  # whole, of another seed, without the group vector, without the generative path
    assert rows["without the group channel"]["fusion"]["group"] == 0.0
    assert rows["without the generative path"]["fusion"]["generative"] == 0.0
    assert rows["decoder layers: 1"]["fused_minus_whole"] == [0.0, 0.0, 0.0]  # the same model
    assert rows["without the group channel"]["dense"] == rows["whole model"]["dense"]
    for row in rows.values():
        assert row["fused"] == row["log_linear_fusion"], "this shop is too small for a ranker"
    whole, other = rows["whole model"]["fused"][0], rows["without the group vector"]["fused"][0]
    assert rows["without the group vector"]["fused_minus_whole"][0] == pytest.approx(other - whole, abs=2e-5)


def test_the_whole_model_is_measured_as_a_run_measures_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table's first row is what the release of this configuration says of itself."""
    data, releases = tmp_path / "shop", tmp_path / "releases"
    generate(data, seed=0, num_shoppers=60)
    result = run(monkeypatch, capsys, "--data", data, "--releases", releases, "--only", "nothing else")
    with Progress(disable=True) as progress:
        config = configured("demo", None, SETTINGS[1::2], {})
        outputs = run_until("evaluate", data=data, releases=releases, config=config, progress=progress)
    evaluation = json.loads((outputs["evaluate"] / "evaluation.json").read_text())
    row = result["rows"]["whole model"]
    assert row["fused"][0] == evaluation["test"]["fused"]["NDCG@10"] > 0
    assert row["generative"] == evaluation["test"]["channels"]["generative"]["NDCG@10"]
    assert row["fusion"] == json.loads((outputs["evaluate"] / "fusion.json").read_text())["weights"]
