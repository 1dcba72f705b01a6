"""What real files have too much of: repeated files and headers, deleted items, returns, visitors without an account."""

from pathlib import Path

import polars as pl
import pytest

from isrf.contract.errors import ConfigError, DataError
from offline.reading.bad_rows import BadRows
from offline.reading.files import single
from offline.stages.ingest.interactions import read_interactions
from tests.offline.stages.ingest.ingest_command import Files, events_of, ingest, report_of, write

ITEMS = "item_id,title\na,A\nb,B\nc,C\nd,D\n"
ROWS = ["u,a,1", "u,b,2", "u,c,3", "u,d,4", "v,a,5"]
EVENTS = "user_id,item_id,timestamp\n" + "\n".join(ROWS) + "\n"
TABLES = ("items", "users", "train", "heldout")


def test_a_file_that_was_written_twice_gives_the_same_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = ingest(write(tmp_path / "once", {"interactions.csv": EVENTS, "items.csv": ITEMS}), tmp_path / "r")
    capsys.readouterr()
    twice = ingest(write(tmp_path / "twice", {"interactions.csv": EVENTS * 2, "items.csv": ITEMS * 2}), tmp_path / "r")
    assert once != twice
    assert all((once / f"{name}.parquet").read_bytes() == (twice / f"{name}.parquet").read_bytes() for name in TABLES)
    report = report_of(twice)
    assert report["fingerprint"] == report_of(once)["fingerprint"]
    assert (report["duplicate_interactions"], report["duplicate_items"]) == (5, 4)
    assert [read["repeated_headers"] for read in report["read"].values()] == [1, 1]


def unknown(tmp_path: Path, options: str = "") -> Path:
    files = {"interactions.csv": EVENTS + "u,gone,6\nv,gone,7\nv,old,8\n", "items.csv": ITEMS}
    return ingest(write(tmp_path / "shop", dict(files)), tmp_path / "r", options)


def test_unknown_items_are_refused_dropped_or_created(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        unknown(tmp_path)
    assert caught.value.code == "data.too_many_unknown_items"
    assert 'line 7: "gone", line 8: "gone", line 9: "old"' in caught.value.message
    assert "3 of 8 rows are of 2 items" in caught.value.message
    for option in ("--unknown-items drop", "--unknown-items create"):
        assert option in caught.value.fix
    dropped = unknown(tmp_path, "--unknown-items drop")
    assert [event[1] for event in events_of(dropped)] == ["a", "b", "c", "d"]
    assert report_of(dropped)["unknown_items"]["rows"] == 3
    assert unknown(tmp_path, "--set ingest.max_unknown_items=0.4")
    with pytest.raises(DataError, match=r"allowed share of 0\.3"):
        unknown(tmp_path, "--set ingest.max_unknown_items=0.3")
    created = unknown(tmp_path, "--unknown-items create")
    assert [event[1] for event in events_of(created)] == ["a", "b", "c", "d", "gone"]
    items = pl.read_parquet(created / "items.parquet")
    assert items.filter(pl.col("item_id").is_in(["gone", "old"]))["title"].to_list() == [None, None]
    assert report_of(created)["items_available"] == 6


def test_unknown_items_are_no_bad_rows(tmp_path: Path) -> None:
    out = unknown(tmp_path, "--unknown-items drop --max-bad-rows 0")
    assert report_of(out)["bad_rows"]["interactions.csv"] == {}


def test_a_rule_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        unknown(tmp_path, "--unknown-items keep")
    assert caught.value.code == "config.invalid"


def test_a_negative_weight_is_a_return(tmp_path: Path) -> None:
    events = (
        "user_id,item_id,timestamp,Quantity\n"
        + "\n".join(f"{row},2" for row in ROWS)
        + "\nu,c,8,1\nu,a,9,-2\nu,b,9,0\n"
    )
    data = write(tmp_path / "shop", {"interactions.csv": events, "items.csv": ITEMS})
    out = ingest(data, tmp_path / "r", "--column weight=Quantity --max-bad-rows 0.2")
    assert [event[1] for event in events_of(out)] == ["b", "c", "d", "c"]
    report = report_of(out)
    assert report["read"]["interactions.csv"]["negative_weights"] == 1
    assert report["bad_rows"]["interactions.csv"]["bad_weight"]["values"] == ["0"]


def test_visitors_without_an_account_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guests = "".join(f",{'abcd'[row % 4]},{row},s{row}\n" for row in range(20))
    events = "user_id,item_id,timestamp,session_id\n" + "\n".join(f"{row},s" for row in ROWS) + f"\n{guests},a,9,\n"
    data = write(tmp_path / "shop", {"interactions.csv": events, "items.csv": ITEMS})
    with pytest.raises(DataError, match=r"missing_user_id 1 \(line 27;"):
        ingest(data, tmp_path / "r")
    capsys.readouterr()
    out = ingest(data, tmp_path / "r", "--max-bad-rows 0.05")
    assert report_of(out)["sessions"] == {"interactions": 20, "train": 20, "valid": 0, "test": 0}
    assert [event[1] for event in events_of(out)] == ["a", "b", "c", "d"]


def test_ids_of_a_table_with_gaps_are_whole_numbers(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"user_id": [7.0, 7.0, 7.0, 7.0, 8.0, None], "item_id": [1.0, 2.0, 3.0, 4.0, 1.0, 1.0], "timestamp": range(6)}
    )
    items = '{"item_id": 1}\n{"item_id": "2"}\n{"item_id": 3}\n{"item_id": 4}\n'
    files: Files = {"interactions.parquet": table, "interactions.csv": table.write_csv()}
    for name, content in files.items():
        data = write(tmp_path / name, {name: content, "items.jsonl": items})
        out = ingest(data, tmp_path / "r", "--max-bad-rows 0.2")
        assert [event[:2] for event in events_of(out)] == [("7", item) for item in "1234"]
        assert report_of(out)["bad_rows"][name]["missing_user_id"]["rows"] == 1
    odd = table.with_columns(item_id=pl.col("item_id") + 0.5)
    with pytest.raises(DataError, match=r"the column item_id holds Float64, such as \[1\.5\]"):
        ingest(write(tmp_path / "odd", {"interactions.parquet": odd, "items.jsonl": items}), tmp_path / "r")


def test_ids_of_items_that_end_in_point_zero_stay_where_the_catalogue_has_them(tmp_path: Path) -> None:
    rows = "".join(f"u,{item}.0,{item}\n" for item in range(1, 5)) + "v,1.0,1\n"
    items = "".join(f'{{"item_id": "{item}.0"}}\n' for item in range(1, 5))
    data = write(tmp_path / "shop", {"interactions.csv": f"user_id,item_id,timestamp\n{rows}", "items.jsonl": items})
    assert [event[1] for event in events_of(ingest(data, tmp_path / "r"))] == ["1.0", "2.0", "3.0", "4.0"]


@pytest.mark.parametrize(("owner", "noted"), [("ann@x.example,", True), (",ann@x.example", True), ("ann,s1", False)])
def test_addresses_in_the_place_of_ids_are_noted(tmp_path: Path, owner: str, noted: bool) -> None:
    data = write(tmp_path, {"interactions.csv": f"item_id,timestamp,user_id,session_id\na,1,{owner}\n"})
    read = read_interactions(single(data / "interactions.csv"), BadRows("interactions.csv"))
    assert any("e-mail addresses" in remark for remark in read.notes.remarks) == noted


def test_an_id_that_only_looks_like_a_number_with_a_point_stays_as_it_is(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp\n" + "".join(
        f"u,{item},{row}\n" for row, item in enumerate(["1.0", "2.0", "x"])
    )
    items = "item_id\n1.0\n2.0\nx\n"
    data = write(tmp_path / "s", {"interactions.csv": events + "v,x,1\nw,x,1\n", "items.csv": items})
    out = ingest(data, tmp_path / "r", "--set fit=all")
    assert [event[1] for event in events_of(out)] == ["1.0", "2.0", "x"]


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("--column user_id", "config.column"),
        ("--column usr_id=x", "config.invalid"),
        ("--column user_id=nobody", "data.unknown_column"),
        ("--time-format soon", "config.invalid"),
        ("--time-format %d.%m.%Y", "data.time_format"),
        ("--set ingest.separator=ab", "config.invalid"),
        ("--set ingest.encoding=nothing", "config.invalid"),
    ],
)
def test_an_option_that_cannot_be_right_is_refused(tmp_path: Path, option: str, code: str) -> None:
    data = write(tmp_path / "shop", {"interactions.csv": EVENTS, "items.csv": ITEMS})
    with pytest.raises((ConfigError, DataError)) as caught:
        ingest(data, tmp_path / "r", option)
    assert caught.value.code == code
    assert caught.value.fix


def test_options_are_saved_as_settings_and_a_file_of_settings_gives_the_same(tmp_path: Path) -> None:
    data = write(tmp_path / "shop", {"interactions.csv": EVENTS.replace("user_id", "who"), "items.csv": ITEMS})
    settings = tmp_path / "settings.toml"
    settings.write_text('[ingest.columns]\nuser_id = "who"\n')
    assert ingest(data, tmp_path / "r", "--column user_id=who") == ingest(
        data, tmp_path / "r", f"--config {settings}"
    ), "the same key, so the same settings"
