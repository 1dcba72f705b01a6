"""The comparison table: every row by one protocol, scored by one code, baselines that can be worked out by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import quality

from offline.runtime.release import open_release
from tests.shops import write_shop

ROOT = Path(__file__).parents[2]
SASREC_PYTHON = ROOT / "benchmarks" / ".venv" / "bin" / "python"


needs_rectools = pytest.mark.skipif(
    not SASREC_PYTHON.exists(), reason="benchmarks/.venv is missing: make benchmarks-venv"
)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["quality.py", *map(str, arguments)])
    quality.main()
    last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return last


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A shop where everybody takes a, b, c, d, e … in this order, each from another start; "z" only in one history."""
    letters = "abcdefgh"
    events = [
        (f"u{start}", letter, place)
        for start in range(8)
        for place, letter in enumerate((letters * 2)[start : start + 5])
    ]
    events += [("last", "z", 0), ("last", "a", 1), ("last", "b", 2), ("last", "c", 3)]
    return write_shop(tmp_path / "chain", events, [{"item_id": letter, "title": letter} for letter in f"{letters}z"])


def test_the_transition_table_knows_a_chain_and_popularity_does_not(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(monkeypatch, capsys, "--data", chain, "--work", tmp_path / "work", "--predictions", tmp_path / "lists")
    assert result["users"] == 9
    rows = result["rows"]
    assert rows["last-item transition"]["HR@10"][0] == 1.0
    assert rows["last-item transition"]["NDCG@10"][0] == 1.0  # first place for everybody, by hand
    assert rows["popularity"]["NDCG@10"][0] < 1.0
    lists = [json.loads(line) for line in (tmp_path / "lists" / "popularity.jsonl").read_text().splitlines()]
    bought = {"u0": set("abcd"), "last": set("zab")}
    for user, seen in bought.items():
        items = next(one["items"] for one in lists if one["user_id"] == user)
        assert not seen & set(items)
        assert set(items) == set("abcdefghz") - seen  # popularity fills to the end of the catalogue


def test_item_knn_is_the_sum_of_cosines(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In training z was taken once, by somebody who took a as well; a by three others: cosine 1/√4 against a."""
    run(monkeypatch, capsys, "--data", chain, "--work", tmp_path / "work", "--predictions", tmp_path / "lists")
    lists = [json.loads(line) for line in (tmp_path / "lists" / "item-kNN.jsonl").read_text().splitlines()]
    by_user = {one["user_id"]: one["items"] for one in lists}
    assert by_user["last"][0] in "ch"  # neighbours of a and b on both sides of the chain
    assert by_user["u2"].index("b") < by_user["u2"].index("z")


def test_a_release_is_measured_beside_the_baselines_as_it_measured_itself(
    demo_release: Path,
    demo_shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = demo_release / "current"
    result = run(monkeypatch, capsys, "--data", demo_shop, "--release", folder, "--work", tmp_path / "work")
    own = open_release(folder).manifest.evaluation["test"]
    rows = result["rows"]
    assert rows["fused"]["NDCG@10"][0] == own["fused"]["NDCG@10"]
    assert rows["dense path alone"]["HR@10"][0] == own["channels"]["dense"]["HR@10"]
    assert "fused_minus" not in rows["fused"]
    difference = rows["fused"]["NDCG@10"][0] - rows["popularity"]["NDCG@10"][0]
    mean, low, high = rows["popularity"]["fused_minus"]
    assert mean == pytest.approx(difference, abs=2e-5)
    assert 0 < low < mean < high


@needs_rectools
@pytest.mark.timeout(600)
def test_sasrec_learns_a_chain_from_training_rows_alone(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--epochs=60", "--patience=60", "--width=16", "--heads=1", "--learning-rate=0.02", "--dropout=0"]
    given = ["--data", chain, "--work", tmp_path, "--sasrec", *(f"--sasrec-option={one}" for one in options)]
    result = run(monkeypatch, capsys, *given)
    assert result["rows"]["SASRec, full softmax"]["HR@10"][0] == 1.0
    assert result["rows"]["SASRec, full softmax"]["NDCG@10"][0] > result["rows"]["popularity"]["NDCG@10"][0]
    rows = (tmp_path / "events.csv").read_text().splitlines()
    assert len(rows) == 1 + 8 * 4 + 3  # nobody's last event
    lists = [json.loads(line)["items"] for line in next(tmp_path.glob("sasrec-*.jsonl")).read_text().splitlines()]
    assert min(map(len, lists)) >= 4


LOSSES = """
import pandas as pd, torch
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from sasrec import LossOnTargets

places = [(user, place) for user in range(6) for place in range(2 + user)]
rows = [(user, (user + place) % 9, 1.0, pd.Timestamp(place, unit="s")) for user, place in places]
data = Dataset.construct(pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"]))
model = SASRecModel(n_factors=8, n_heads=1, session_max_len=5, epochs=1, lightning_module_type=LossOnTargets)
model.fit(data)
module = model.lightning_model.eval()
module.log = lambda *_, **__: None
batch = next(iter(model.data_preparator.get_dataloader_train()))
assert (batch["y"] == 0).any()
losses = [float(kind.training_step(module, batch, 0)) for kind in (LossOnTargets, TransformerLightningModule)]
torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
print("equal")
"""


@needs_rectools
def test_logits_where_there_is_a_target_give_rectools_own_loss() -> None:
    done = subprocess.run(
        [SASREC_PYTHON, "-c", LOSSES], cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("equal\n"), done.stderr
