"""Settings that cannot work end `offline run` with status 2 and a fix; whoever follows it gets on."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from offline.config import build_config
from tests.shops import TINY, run_stages, write_shop

NUM_ITEMS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shop` and, shared by the tests, `releases`: stages that a setting does not touch run once."""
    root = tmp_path_factory.mktemp("settings")
    rng = random.Random(3)
    events = [
        (f"u{user}", f"i{item}", place)
        for user in range(40)
        for place, item in enumerate(rng.sample(range(user % 2 * 4, user % 2 * 4 + 8), 6))
    ]
    write_shop(root / "shop", events, [{"item_id": f"i{row}", "title": f"Cup {row // 4}"} for row in range(NUM_ITEMS)])
    return root


def run(folder: Path, *settings: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "offline", "run", "--data", str(folder / "shop"), "--releases", str(folder / "r")]
    options = [part for setting in (*TINY, *settings) for part in ("--set", setting)]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("bad", "code", "not_run", "stage"),
    [
        ("semantic_ids.levels=1", "config.semantic_ids_capacity", "reason", "semantic-ids"),
        ("semantic_ids.codebook_size=2", "config.semantic_ids_capacity", "reason", "semantic-ids"),
        ("graph.similarity_threshold=40", "graph.all_weak", "semantic-ids", "graph"),
    ],
    ids=["too few levels", "too few codes", "everybody weak"],
)
def test_a_setting_that_cannot_work_is_refused_early_and_every_fix_works(
    folder: Path, bad: str, code: str, not_run: str, stage: str
) -> None:
    refused = run(folder, bad)
    assert refused.returncode == 2, refused.stderr
    assert f"[{code}]" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert f"  {not_run}:" not in refused.stderr, "no stage from there on has run"
    fixes = re.findall(r"--set (\S+=[\d.]*\d)", refused.stderr)
    assert fixes
    for fix in fixes:
        run_stages(stage, folder / "shop", folder / "r", build_config("demo", None, (*TINY, bad, fix)))


def test_a_loss_that_is_no_number_names_the_settings_to_lower(folder: Path) -> None:
    done = run(folder, "train.learning_rate=1e30", "train.clip_norm=1e30")
    assert done.returncode == 2
    assert "[train.nan_loss]" in done.stderr
    assert "Lower train.learning_rate (now 1e+30) or train.clip_norm (now 1e+30)" in done.stderr
    assert not list((folder / "r" / ".work").glob("train/*.part/*")), "nothing half-trained is left behind"
