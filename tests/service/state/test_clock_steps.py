"""A clock that steps back while the service runs: what is answered 200 counts all the same."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings


@pytest.fixture
def http(tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Of a service whose clock went back years, to before its release's data was read, after it had started."""
    clock = time.time
    with TestClient(create_app(Settings(releases_dir=tiny_release, state_dir=tmp_path, deadline_s=60))) as http:
        monkeypatch.setattr(time, "time", lambda: clock() - 1000 * 86_400)
        yield http


def test_events_come_after_what_the_release_holds(http: TestClient, tiny_release: Path) -> None:
    user_id = str(pl.read_parquet(tiny_release / "current" / "users.parquet")["user_id"][12])

    def history() -> list[str]:
        held: list[str] = http.get(f"/users/{user_id}").json()["history"]
        return held

    item_id = history()[-1]
    for kind, stands in (("remove", False), ("view", True), ("remove", False), ("purchase", True)):
        body = {"events": [{"user_id": user_id, "item_id": item_id, "event": kind}]}
        assert http.post("/interactions", json=body).json()["accepted"] == 1
        assert (item_id in history()) == stands
    assert history()[-1] == item_id


def test_what_is_said_of_items_is_news(http: TestClient, tiny_release: Path) -> None:
    lines = (tiny_release / "current" / "items.jsonl").read_text().splitlines()[:3]
    put, imported, hidden = (json.loads(line)["item_id"] for line in lines)
    assert http.put(f"/items/{put}", json={"price": 7.25}).json()["item"]["price"] == 7.25
    line = json.dumps({"item_id": imported, "price": 8.25})
    assert http.post("/import/items", content=line).json()["accepted"] == 1
    assert http.delete(f"/items/{hidden}").status_code == 204
    assert [http.get(f"/items/{one}").json()["item"]["price"] for one in (put, imported)] == [7.25, 8.25]
    assert http.get(f"/items/{hidden}").status_code == 404
