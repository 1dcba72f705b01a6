"""However much one account did, no answer and no exported line grows with it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

from service.api.bulk.lines import MAX_LINE_BYTES
from service.api.bulk.users import events_of, user_lines
from service.api.schemas import answers as schemas
from service.app import create_app
from service.settings import Settings
from service.state.records import NOBODY, HistoryEntry, ItemMark
from tests.service.releases import named_copy, point, seal

EVENTS = 3000


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """On a release that holds a great many events of its first user, `FAT`."""
    releases = tmp_path_factory.mktemp("releases")
    folder = named_copy(tiny_release / "current", releases, "r-fat")
    histories = pl.read_parquet(folder / "histories.parquet")
    items = [json.loads(line)["item_id"] for line in (folder / "items.jsonl").read_text().splitlines()]
    rows = histories.to_dicts()
    (fat,) = [row for row in rows if row["user_index"] == 0]
    fat["item_ids"] = [items[at % len(items)] for at in range(EVENTS)]
    fat["timestamps"] = [1e9 + at for at in range(EVENTS)]
    fat["events"] = ["view"] * EVENTS
    pl.DataFrame(rows, schema=histories.schema).write_parquet(folder / "histories.parquet")
    seal(folder)
    point(releases, "r-fat")
    chosen = Settings(releases_dir=releases, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60)
    with TestClient(create_app(chosen)) as http:
        yield http


@pytest.fixture(scope="module")
def fat(http: TestClient, tiny_release: Path) -> str:
    """A user who did a great deal before the release, and bought and disliked all there is since."""
    added = "".join(json.dumps({"item_id": f"{at}" + "x" * 400, "title": "Headphones"}) + "\n" for at in range(100))
    assert http.post("/import/items", content=added).json()["accepted"] == 100
    user_id: str = pl.read_parquet(tiny_release / "current" / "users.parquet")["user_id"][0]
    items = [json.loads(line)["item_id"] for line in http.get("/export/items").text.splitlines()]
    now = time.time()
    for at, kind in ((now - 20, "purchase"), (now - 10, "dislike")):
        events = [{"user_id": user_id, "item_id": item, "event": kind, "timestamp": at} for item in items]
        for start in range(0, len(events), 1000):
            answer = http.post("/interactions", json={"events": events[start : start + 1000]})
            assert answer.json()["refused"] == 0, answer.text[:500]
    return user_id


def test_a_user_is_told_by_the_latest_and_the_totals(http: TestClient, fat: str) -> None:
    told = http.get(f"/users/{fat}").json()
    schemas.UserAnswer.model_validate(told)
    assert (len(told["history"]), len(told["timestamps"]), len(told["excluded"])) == (200, 200, 200)
    num_items = told["excluded_total"]
    assert num_items > 200
    assert told["history_total"] == EVENTS + 200, "the release's, and what state keeps of what came since"
    more = http.get(f"/users/{fat}", params={"last": 1000}).json()
    assert more["history"][-200:] == told["history"], "the latest, oldest first"
    assert len(more["history"]) == 1000
    assert more["timestamps"] == sorted(more["timestamps"])
    assert more["excluded"][:200] == told["excluded"]
    assert len(more["excluded"]) == num_items
    none = http.get(f"/users/{fat}", params={"last": 0}).json()
    assert (none["history"], none["timestamps"], none["excluded"]) == ([], [], [])
    assert none["history_total"] == told["history_total"]
    assert none["interests"] == told["interests"]
    for last in (-1, 1001, "all", ""):
        assert http.get(f"/users/{fat}", params={"last": last}).status_code == 422


def test_a_user_of_few_events_is_told_whole(http: TestClient) -> None:
    item = http.get("/popular?n=1").json()["items"][0]["item_id"]
    http.post("/interactions", json={"events": [{"user_id": "thin", "item_id": item}]})
    told = http.get("/users/thin").json()
    assert (told["history"], told["history_total"], told["excluded"], told["excluded_total"]) == ([item], 1, [item], 1)


def test_an_export_has_no_line_that_cannot_come_back(http: TestClient, fat: str) -> None:
    lines = [line for line in http.get("/export/users").text.splitlines() if json.loads(line)["user_id"] == fat]
    assert len(lines) > 1
    assert max(map(len, lines)) < MAX_LINE_BYTES // 2
    before = http.get(f"/users/{fat}", params={"last": 200}).json()
    renamed = [json.loads(line) | {"user_id": "fat again"} for line in lines]
    body = "".join(json.dumps(line) + "\n" for line in renamed)
    report = http.post("/import/users", content=body, headers={"Content-Type": "application/x-ndjson"}).json()
    assert (report["refused"], report["duplicates"]) == (0, 0)
    after = http.get("/users/fat again", params={"last": 200}).json()
    for part in ("excluded_total", "excluded", "timestamps"):
        assert after[part] == before[part], part


def test_lines_hold_a_purchase_and_its_entry_together() -> None:
    history = [HistoryEntry(f"i-{at % 700}" + "x" * 400, float(at)) for at in range(2000)]
    marks = {entry.item_id: ItemMark(bought=entry.timestamp) for entry in history[-700:]}
    marks["gone"] = ItemMark(removed=5.0, disliked=3.0)
    record = NOBODY._replace(history=history, marks=marks)
    lines = list(user_lines("u", record))
    assert len(lines) > 10
    assert max(len(json.dumps(line)) for line in lines) < MAX_LINE_BYTES
    events = [event for line in lines for event in events_of(line)]
    kinds = {(event["item_id"], event["timestamp"]): event["event"] for event in events}
    assert len(kinds) == len(events), "nothing twice"
    assert len(events) == 2000 + 2
    assert all(kinds[entry.item_id, entry.timestamp] == "purchase" for entry in history[-700:])
    assert all(kinds[entry.item_id, entry.timestamp] == "history" for entry in history[:-700])
    assert (kinds["gone", 5.0], kinds["gone", 3.0]) == ("remove", "dislike")
    assert list(user_lines("u", NOBODY._replace(history=history[:3]))) == [
        {
            "user_id": "u",
            "history": [{"item_id": one.item_id, "timestamp": one.timestamp} for one in history[:3]],
            "bought": {},
            "disliked": {},
            "removed": {},
        }
    ]
