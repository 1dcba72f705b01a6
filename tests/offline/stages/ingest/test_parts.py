"""A table larger than memory is worked through in parts, and gives the same bytes as one part."""

import io
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from rich.progress import Progress

from isrf.contract.errors import DataError
from offline.cli import configured
from offline.context import StageContext
from offline.stages.ingest.parts.spool import Spool, divided
from offline.stages.ingest.stage import read_folder, write_outputs
from tests.offline.stages.ingest.ingest_command import Files, write

TABLES = ("items", "users", "train", "heldout", "excluded")


def rows_of_a_shop(seed: int) -> list[dict[str, Any]]:
    """Rows with ties, repetitions, removes, dislikes, sessions before logins, unknown items and mistakes."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for _ in range(400):
        user = f"u{int(rng.random() ** 2 * 30)}"
        row: dict[str, Any] = {
            "user_id": user,
            "session_id": f"s{rng.randrange(9)}" if rng.random() < 0.5 else None,
            "item_id": f"i{rng.randrange(22)}",  # the catalogue has 20
            "timestamp": str(1_700_000_000 + rng.randrange(40)),
            "event": rng.choice([*["view"] * 9, "purchase", "dislike", "remove", "cart", None]),
            "weight": rng.choice([*["1", "2.5", None] * 5, "-1"]),
        }
        if row["session_id"] and rng.random() < 0.5:
            row["user_id"] = None
        if rng.random() < 0.05:
            row[rng.choice(["user_id", "timestamp", "weight"])] = "\x07"
        rows += [row] * (2 if rng.random() < 0.1 else 1)
    return rows


def shop_of(form: str, seed: int) -> Files:
    rows = pl.DataFrame(rows_of_a_shop(seed), infer_schema_length=None)
    items = {"items.csv": "item_id,title,brand\n" + "".join(f"i{row},cup {row % 3},b{row % 2}\n" for row in range(20))}
    if form == "parquet":
        return {**items, "interactions.parquet": rows}
    return {**items, "interactions/a.csv": rows[:150].write_csv(), "interactions/b.csv": rows[150:].write_csv()}


def made(data: Path, out: Path, part_rows: int, options: list[str]) -> tuple[dict[str, pl.DataFrame], Any, str]:
    """The stage's tables, its report, and what it says."""
    out.mkdir(parents=True)
    config = configured("demo", None, options, {})
    console = Console(record=True, file=io.StringIO(), width=200)
    ctx = StageContext(data=data, inputs={}, out=out, scratch=out, config=config, progress=Progress(console=console))
    write_outputs(ctx, read_folder(data, config, part_rows=part_rows))
    tables = {name: pl.read_parquet(out / f"{name}.parquet") for name in TABLES}
    return tables, json.loads((out / "report.json").read_text()), console.export_text()


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("parquet", []),
        ("csv", []),
        ("csv", ["ingest.shuffle_ties=7", "ingest.unknown_items=create", "events.weights.view=0.1"]),
        ("parquet", ["fit=all", "ingest.unknown_items=drop"]),
    ],
)
@pytest.mark.parametrize("part_rows", [17, 150])
def test_parts_give_what_one_table_gives(tmp_path: Path, form: str, options: list[str], part_rows: int) -> None:
    options = [*options, "ingest.max_bad_rows=0.5", "ingest.max_unknown_items=0.5"]
    data = write(tmp_path / "shop", shop_of(form, seed=part_rows))
    whole, report, said = made(data, tmp_path / "whole", 10_000, options)
    assert len(whole["train"]) > 100
    assert report["bad_rows"]["interactions" + (".parquet" if form == "parquet" else "")]
    parted, parted_report, parted_said = made(data, tmp_path / "parted", part_rows, options)
    for name in TABLES:
        assert whole[name].equals(parted[name]), name
    assert parted_report == report
    assert parted_said == said


def test_parts_name_the_same_rows_in_an_error(tmp_path: Path) -> None:
    data = write(tmp_path / "shop", shop_of("csv", seed=3))
    errors = []
    for part_rows in (10_000, 20):
        with pytest.raises(DataError) as refused:
            made(data, tmp_path / f"{part_rows}", part_rows, [])
        errors.append((refused.value.code, str(refused.value), refused.value.fix))
    assert errors[0] == errors[1]
    assert "b.csv line" in errors[0][1]


def test_a_spool_gives_back_its_tables_from_disk_and_memory(tmp_path: Path) -> None:
    tables = [pl.DataFrame({"user_id": ["a", "b"], "place": [0, 1]}), pl.DataFrame({"user_id": ["c"], "place": [2]})]
    for memory_rows in (0, 2, 3):
        spool = Spool(memory_rows)
        for table in tables:
            spool.add(table)
        assert (spool.height, len(spool)) == (3, 2)
        assert spool.joined().equals(pl.concat(tables))
        spool.mapped(lambda table: table.with_columns(pl.col("place") * 2)).write(tmp_path / "out.parquet")
        assert pl.read_parquet(tmp_path / "out.parquet")["place"].to_list() == [0, 2, 4]
        parts = divided(spool.tables(), lambda table: table["place"] % 2, parts=2, rows=0)
        assert [table["user_id"].to_list() for table in parts.tables()] == [["a", "c"], ["b"]]
