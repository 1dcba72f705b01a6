"""What a release has learned is decided by when its files were read; rows dated later are named."""

import json
import os
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from rich.progress import Progress

from offline.config import build_config
from offline.context import StageContext
from offline.reading.files import single
from offline.stages.ingest import stage as ingest
from offline.stages.ingest.histories import build_histories
from offline.stages.ingest.parts.spool import Spool
from offline.stages.ingest.reading import learned_until, rows_ahead

HOUR, DAY = 3600.0, 86_400.0
ITEMS = [{"item_id": f"i{k}", "title": f"thing {k}"} for k in range(4)]


def shop(folder: Path, rows: list[str]) -> Path:
    folder.mkdir()
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp,event", *rows]) + "\n")
    return folder


def ingested(folder: Path, out: Path) -> tuple[dict[str, Any], str]:
    out.mkdir()
    console = Console(record=True, width=400, force_terminal=False)
    with Progress(console=console, disable=True) as progress:
        config = build_config("demo", None, ())
        ingest.run(StageContext(data=folder, inputs={}, out=out, scratch=out, config=config, progress=progress))
    return json.loads((out / "report.json").read_text()), console.export_text()


def test_learned_until_is_when_files_were_read_whatever_rows_say(tmp_path: Path) -> None:
    before = time.time()
    folder = shop(tmp_path / "data", [f"u,i{k},{k}," for k in range(3)] + ["u,i3,4900000000,"])
    report, _ = ingested(folder, tmp_path / "out")
    assert report["events_through"] == 4_900_000_000
    for moment in report["learned_until"].values():
        assert before - 1 < moment <= time.time()


def test_a_file_holds_nothing_newer_than_itself(tmp_path: Path) -> None:
    folder = shop(tmp_path / "data", [])
    items, interactions = folder / "items.jsonl", folder / "interactions.csv"
    now = time.time()
    os.utime(items, (now - 9 * DAY, now - 9 * DAY))
    os.utime(interactions, (now + DAY, now + DAY))
    found = learned_until(single(items), single(interactions))
    assert found.items == pytest.approx(now - 9 * DAY)
    assert now <= found.events <= time.time(), "no file is read before its time"
    os.utime(items, (0, 0))
    assert now <= learned_until(single(items), single(interactions)).items <= time.time(), "1970 is no time of a file"


def test_one_row_ahead_is_kept_and_named_with_its_line_and_value(tmp_path: Path) -> None:
    folder = shop(tmp_path / "data", [f"u,i{k},{k}," for k in range(3)] + ["u,i3,4900000000,"])
    report, said = ingested(folder, tmp_path / "out")
    assert report["ahead_of_clock"] == {
        "rows": 1,
        "of": 4,
        "beyond_a_day": 1,
        "hours": 0.0,
        "lines": [5],
        "places": ["line 5"],
        "timestamps": [4_900_000_000.0],
        "latest": 4_900_000_000.0,
    }
    assert "1 of 4 rows are dated after they were read" in said
    assert "line 5: 4900000000 (2125-04-10" in said
    assert report["counts"]["interactions"] == 4


def test_a_file_nine_hours_ahead_is_said_loudly(tmp_path: Path) -> None:
    now = time.time()
    folder = shop(tmp_path / "data", [f"u{k % 40},i{k % 4},{now + 9 * HOUR - k:.0f}," for k in range(120)])
    report, said = ingested(folder, tmp_path / "out")
    assert (report["ahead_of_clock"]["rows"], report["ahead_of_clock"]["beyond_a_day"]) == (120, 0)
    assert len(report["ahead_of_clock"]["lines"]) == 10
    assert "120 of 120 rows" in said
    assert "Up to 9 hours ahead: are local times written as UTC?" in said


def test_nothing_is_said_of_rows_in_time(tmp_path: Path) -> None:
    folder = shop(tmp_path / "data", [f"u,i{k},{time.time() - k:.0f}," for k in range(4)])
    report, said = ingested(folder, tmp_path / "out")
    assert report["ahead_of_clock"] == {}
    assert "ahead" not in said


@pytest.mark.parametrize("written", ["20240101", "45292.5", "0"])
def test_times_that_are_days_or_nothing_are_said(tmp_path: Path, written: str) -> None:
    folder = shop(tmp_path / "data", [f"u,i{k},{1_700_000_000 + k}," for k in range(3)] + [f"u,i3,{written},"])
    _, said = ingested(folder, tmp_path / "out")
    assert f"1 of 4 rows are dated before 1990: line 5: {written} (1970-" in said
    assert "name the column `position`" in said


def test_nothing_is_said_of_files_without_times(tmp_path: Path) -> None:
    folder = shop(tmp_path / "data", [f"u,i{k},{1_700_000_000 + k}," for k in range(4)])
    assert "1990" not in ingested(folder, tmp_path / "out")[1]
    rows = (folder / "interactions.csv").read_text().replace("timestamp", "position")
    (folder / "interactions.csv").write_text(rows)
    assert "1990" not in ingested(folder, tmp_path / "other")[1]


def test_rows_without_times_are_not_ahead() -> None:
    events = pl.DataFrame({"line": [2], "timestamp": [None]}, schema={"line": pl.Int64, "timestamp": pl.Float64})
    assert rows_ahead(Spool.of(events), 0.0) == {}


def histories_of(*rows: tuple[str, float, str], read_at: float) -> list[str]:
    table = pl.DataFrame(
        [("u", None, item, timestamp, None, event, 1.0) for item, timestamp, event in rows],
        schema={
            "user_id": pl.String,
            "session": pl.String,
            "item_id": pl.String,
            "timestamp": pl.Float64,
            "position": pl.Int64,
            "event": pl.String,
            "weight": pl.Float64,
        },
        orient="row",
    )
    built = build_histories(Spool.of(table), shuffle_seed=None, hold_out=False, learned_until=read_at)
    return list(built.events.joined()["item_id"])


def test_a_remove_takes_back_what_is_dated_a_century_ahead() -> None:
    ahead = 4_900_000_000.0
    rows = (("a", ahead, "purchase"), ("b", 50.0, "view"), ("a", 60.0, "remove"))
    assert histories_of(*rows, read_at=100.0) == ["b"]
    assert histories_of(*rows, ("a", 70.0, "view"), read_at=100.0) == ["b", "a"], "seen again, in time"
    assert histories_of(*rows[:2], ("b", 60.0, "remove"), read_at=100.0) == ["a"]
    assert histories_of(*rows[:2], ("a", ahead - 1, "remove"), read_at=100.0) == ["b", "a"]
