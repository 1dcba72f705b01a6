"""A shop's own names for events mean the same in its file, in evaluation and in what is posted."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from offline.commands.publish import publish
from offline.config import build_config
from offline.stages.evaluate.split import load_split
from offline.stages.train.samples import read_sequences
from tests.service.servers import PATIENCE_S, ServiceProcess
from tests.shops import TINY, run_stages

EVENTS = {"names": {"Kauf": "purchase", "Ansicht": "view", "Daumen runter": "dislike"}, "exclude": ["Abo"]}
KINDS = ("KAUF", "ansicht", "abo", "Purchase", "", "View")
ITEMS = [{"item_id": f"i{k}", "title": f"{'red' if k % 2 else 'blue'} thing {k % 7}"} for k in range(40)]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("named")
    (root / "data").mkdir()
    start = int(time.time()) - 10**6
    rows = [
        f"u{user},i{(user * 7 + place * 5) % 40},{start + 100 * place + user},{kind}"
        for user in range(40)
        for place, kind in enumerate(KINDS)
    ]
    rows += ["u1,i39,9,DAUMEN RUNTER", "u1,i38,9,Dislike"]
    (root / "data" / "interactions.csv").write_text("user_id,item_id,timestamp,event\n" + "\n".join(rows) + "\n")
    (root / "data" / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    stages = run_stages("export", root / "data", root / "releases", build_config("demo", {"events": EVENTS}, TINY))
    publish(stages["export"], root / "releases")
    return stages | {"releases": root / "releases"}


def test_the_file_is_read_by_the_shop_s_names(stages: dict[str, Path]) -> None:
    report = json.loads((stages["ingest"] / "report.json").read_text())
    assert report["event_types"] == {"abo": 40, "dislike": 2, "purchase": 120, "view": 80}
    assert set(pl.read_parquet(stages["ingest"] / "train.parquet")["event"]) == {"purchase", "view", "abo"}
    assert pl.read_parquet(stages["ingest"] / "excluded.parquet").height == 2


def test_evaluation_and_training_exclude_what_the_service_excludes(stages: dict[str, Path]) -> None:
    split = load_split(stages["ingest"], "test")
    for history, bought in zip(split.histories, split.bought, strict=True):
        assert bought == [history[place] for place in (0, 2, 3, 4)]
    assert split.typed
    assert read_sequences(stages["ingest"], 40).bought.tolist() == [True, False, True, True] * 40


@pytest.fixture(scope="module")
def service(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(stages["releases"], tmp_path_factory.mktemp("service"), ISRF_EXCLUDE_EVENTS="Merkzettel")
    yield process.start()
    process.kill()


def user_after(service: ServiceProcess, user_id: str, *events: tuple[str, Any]) -> Any:
    posted = [{"user_id": user_id, "item_id": item_id, "event": kind} for item_id, kind in events]
    answer = httpx.post(f"{service.url}/interactions", json={"events": posted}, timeout=PATIENCE_S)
    assert [one["status"] for one in answer.json()["results"]] == ["accepted"] * len(events), answer.text
    return httpx.get(f"{service.url}/users/{user_id}", timeout=PATIENCE_S).json()


def test_posted_events_are_read_by_them_too(service: ServiceProcess) -> None:
    found = user_after(
        service, "ann", ("i0", "Kauf"), ("i1", "ANSICHT"), ("i2", "daumen runter"), ("i3", "Abo"), ("i4", "merkzettel"),
        ("i5", "other"), ("i6", 7),
    )  # fmt: skip
    assert found["history"] == ["i0", "i1", "i3", "i4", "i5", "i6"]
    assert set(found["excluded"]) == {"i0", "i2", "i3", "i4"}


def test_histories_of_the_release_exclude_by_them(service: ServiceProcess) -> None:
    found = httpx.get(f"{service.url}/users/u0", timeout=PATIENCE_S).json()
    assert found["history"] == ["i0", "i5", "i10", "i15", "i20", "i25"]
    assert set(found["excluded"]) == {"i0", "i10", "i15", "i20"}
    assert set(httpx.get(f"{service.url}/users/u1", timeout=PATIENCE_S).json()["excluded"]) >= {"i39", "i38"}


def test_a_user_who_is_exported_and_imported_is_the_same_whatever_excludes(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    seen = [{"item_id": "i0", "timestamp": 5.0}, {"item_id": "i1", "timestamp": 6.0}]
    line = {"user_id": "moved", "history": seen, "bought": {"i1": 6.0}}
    process = ServiceProcess(stages["releases"], tmp_path, ISRF_EXCLUDE_EVENTS="view")
    try:
        service = process.start()
        answer = httpx.post(f"{service.url}/import/users", content=json.dumps(line), timeout=PATIENCE_S)
        assert answer.json()["refused"] == 0, answer.text
        found = httpx.get(f"{service.url}/users/moved", timeout=PATIENCE_S).json()
    finally:
        process.kill()
    assert (found["history"], found["excluded"]) == (["i0", "i1"], ["i1"])
