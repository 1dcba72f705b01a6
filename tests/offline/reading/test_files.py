"""Which of a folder's files are read: one of each kind, or a folder of parts with the same columns."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from isrf.contract.errors import DataError
from offline.pipeline import hash_folder
from offline.reading.files import INTERACTION_FORMATS, ITEM_FORMATS, find_source
from tests.offline.stages.ingest.ingest_command import events_of, ingest, report_of, write

HEADER = "user_id,item_id,timestamp\n"
ITEMS = "item_id\na\nb\nc\nd\n"


def refused(folder: Path, stem: str = "interactions") -> DataError:
    with pytest.raises(DataError) as caught:
        find_source(folder, stem, INTERACTION_FORMATS if stem == "interactions" else ITEM_FORMATS)
    return caught.value


@pytest.mark.parametrize(
    ("name", "format_"), [("csv", "csv"), ("csv.gz", "csv"), ("tsv", "csv"), ("tsv.gz", "csv"), ("parquet", "parquet")]
)
def test_every_format_is_found_by_its_name(tmp_path: Path, name: str, format_: str) -> None:
    write(tmp_path, {f"interactions.{name}": "x"})
    source = find_source(tmp_path, "interactions", INTERACTION_FORMATS)
    assert (source.name, source.format, source.parts) == (f"interactions.{name}", format_, ())


def test_events_are_not_read_from_json(tmp_path: Path) -> None:
    write(tmp_path, {"interactions.jsonl": "{}", "items.jsonl.gz": "x"})
    error = refused(tmp_path)
    assert (error.code, "interactions.jsonl" in error.message) == ("data.missing_file", True)
    assert find_source(tmp_path, "items", ITEM_FORMATS).format == "jsonl"


@pytest.mark.parametrize("stem", ["interactions", "items"])
@pytest.mark.parametrize("content", ['{"a": 1}\n{"a": 2}\n', '\n[{"a": 1},\n {"a": 2}]'])
def test_the_command_that_a_refusal_of_json_names_writes_a_table(tmp_path: Path, stem: str, content: str) -> None:
    formats = ITEM_FORMATS if stem == "items" else INTERACTION_FORMATS
    write(tmp_path, {f"{stem}.json": content})
    with pytest.raises(DataError) as caught:
        find_source(tmp_path, stem, formats)
    assert caught.value.code == "data.missing_file"
    program = caught.value.fix.removeprefix('Write it so: python -c "').removesuffix('".')
    subprocess.run([sys.executable, "-c", program], check=True)
    assert find_source(tmp_path, stem, formats).format == ("jsonl" if stem == "items" else "parquet")


def test_a_file_of_another_name_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"orders_export.csv": "x"})
    error = refused(tmp_path)
    assert "It holds orders_export.csv." in error.message
    assert "under one of these names, such as interactions.csv" in error.fix


def test_a_file_and_a_folder_of_one_kind_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"interactions.csv": "x", "interactions/part-0.csv": "x"})
    assert refused(tmp_path).code == "data.ambiguous_file"


@pytest.mark.parametrize("foreign", ["README.txt", "part-1.parquet", "part-1.csv.gz", "more/part-1.csv"])
def test_a_foreign_file_among_parts_is_named(tmp_path: Path, foreign: str) -> None:
    write(tmp_path, {"interactions/part-0.csv": "x", f"interactions/{foreign}": "x"})
    error = refused(tmp_path)
    assert error.code == "data.foreign_part"
    assert foreign.partition("/")[0] in error.message


def test_a_folder_without_parts_and_an_empty_part_are_refused(tmp_path: Path) -> None:
    (tmp_path / "interactions").mkdir()
    assert refused(tmp_path).code == "data.missing_file"
    write(tmp_path, {"interactions/part-0.csv": "x", "interactions/part-1.csv": ""})
    error = refused(tmp_path)
    assert (error.code, "part-1.csv is empty" in error.message) == ("data.empty_file", True)


def test_parts_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Their columns may stand in another order; lines are those of their part."""
    files = {
        "interactions/part-10.csv": f"{HEADER}u,c,5\nu,d,5\nv,a,x\nv,a,1\nv,b,2\n",
        "interactions/part-09.csv": "item_id;timestamp;user_id\na;5;u\nb;5;u\n",
        "items/1.csv": "item_id,Colour\na,red\nb,\n",
        "items/2.csv": "Colour,item_id\n,c\nblue,d\n",
    }
    data = write(tmp_path / "shop", files)
    out = ingest(data, tmp_path / "r", "--max-bad-rows 0.2")
    assert [event[1] for event in events_of(out)] == ["a", "b", "c", "d"]
    bad = report_of(out)["bad_rows"]["interactions"]["bad_timestamp"]
    assert (bad["lines"], bad["places"], bad["values"]) == ([4], ["interactions/part-10.csv line 4"], ["x"])
    read = report_of(out)["read"]["interactions"]
    assert (read["parts"], read["separators"]) == (2, [";", ","])
    with pytest.raises(DataError, match=r"bad_timestamp 1 \(interactions/part-10\.csv line 4: x;"):
        ingest(data, tmp_path / "r")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_part_with_other_columns_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    first = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1], "shop": ["x"]})
    second = first.drop("shop").with_columns(price=1)
    parts = {"0": first, "1": second}
    files = {
        f"interactions/{name}.{kind}": table.write_csv() if kind == "csv" else table for name, table in parts.items()
    }
    data = write(tmp_path / "shop", {**files, "items.csv": ITEMS})
    with pytest.raises(DataError) as caught:
        ingest(data, tmp_path / "r")
    assert caught.value.code == "data.other_columns"
    assert f'1.{kind} does not have the columns of 0.{kind}: it lacks "shop" and has "price".' in caught.value.message


def test_parts_of_parquet_with_types_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    first = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    second = first.with_columns(pl.lit("2024-05-01").str.to_date().alias("timestamp"))
    data = write(
        tmp_path / "s", {"interactions/0.parquet": first, "interactions/1.parquet": second, "items.csv": ITEMS}
    )
    with pytest.raises(DataError) as caught:
        ingest(data, tmp_path / "r")
    assert caught.value.code == "data.bad_column_type"


def test_a_change_of_a_part_makes_another_input(tmp_path: Path) -> None:
    write(tmp_path, {"interactions/0.csv": "a", "items.csv.gz": "b", "other.csv": "c"})
    first = hash_folder(tmp_path)
    write(tmp_path, {"other.csv": "d", "interactions_old.csv": "e"})
    assert hash_folder(tmp_path) == first
    for name in ("interactions/0.csv", "items.csv.gz"):
        write(tmp_path, {name: "changed"})
        assert hash_folder(tmp_path) != first
        first = hash_folder(tmp_path)
