"""`inspect`: what it says of a folder, its status, and that it changes nothing."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isrf.contract.errors import DataError
from offline.__main__ import app
from tests.offline.stages.ingest.ingest_command import write
from tests.offline.stages.ingest.test_real_exports import EXPORTS


def inspect(folder: Path, options: str = "") -> tuple[str, BaseException | None]:
    """What it prints on standard output, and the error that ends it."""
    command = ["inspect", str(folder), *shlex.split(options)]
    result = CliRunner().invoke(app, command, terminal_width=300, env={"COLUMNS": "300"})
    return result.stdout, result.exception


@pytest.mark.parametrize("name", EXPORTS)
def test_a_folder_that_works_is_shown_as_it_is_read(tmp_path: Path, name: str) -> None:
    export = EXPORTS[name]
    data = write(tmp_path / "shop", export.files)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    said, error = inspect(data, export.options)
    assert error is None, (said, error)
    assert "A run would work: " in said
    user, item, _, kind = export.events[0]
    assert any({user, item, kind} <= set(line.split()) for line in said.splitlines()), said
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before, "nothing is changed"
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_a_folder_that_is_refused_is_shown_as_far_as_it_is_understood(tmp_path: Path) -> None:
    data = write(tmp_path / "shop", EXPORTS["Online Retail"].files)
    options = EXPORTS["Online Retail"].options.partition("--time-format")[0]
    said, error = inspect(data, options)
    assert isinstance(error, DataError)
    assert error.code == "data.time_format"
    assert "interactions.csv: UTF-8, separated by commas" in said
    read = {tuple(line.split()[:3]) for line in said.splitlines()}
    assert {("InvoiceDate", "timestamp", "12/1/2010"), ("Country", "not", "used")} <= read
    assert "A run would work" not in said


def test_columns_that_are_not_understood_are_shown_with_their_first_value(tmp_path: Path) -> None:
    said, error = inspect(write(tmp_path / "shop", EXPORTS["RetailRocket"].files))
    assert isinstance(error, DataError)
    assert any(line.split() == ["visitorid", "user_id?", "257597"] for line in said.splitlines())
    assert "may be these, which only you can know: --column user_id=visitorid; --column item_id=itemid." in said


def test_fields_of_json_are_shown_as_they_are_read_by_their_exact_names(tmp_path: Path) -> None:
    record = {"id": "1", "item_id": "x", "Title": "no title", "brand": "Tassen"}
    files = EXPORTS["Parquet with whole numbers as ids"].files
    items = "\n".join(json.dumps(record | {"id": str(row)}) for row in (1, 2, 3, 4))
    data = write(tmp_path / "shop", {"interactions.parquet": files["interactions.parquet"], "items.jsonl": items})
    said, error = inspect(data, "--column item_id=id")
    assert error is None, (said, error)
    read = [tuple(line.split()) for line in said.splitlines()]
    assert {("id", "item_id", "1"), ("item_id", "not", "used", "x"), ("Title", "attribute", "no", "title")} <= {*read}
    assert ("brand", "brand", "Tassen") in read


def test_a_shop_that_is_too_small_for_a_run_is_refused_as_the_run_refuses_it(tmp_path: Path) -> None:
    files = {
        "interactions.csv": "user_id,item_id,position\nu,a,1\nu,b,2\nu,c,3\nu,a,4\n",
        "items.csv": "item_id\na\nb\nc\n",
    }
    _, error = inspect(write(tmp_path / "shop", files))
    assert isinstance(error, DataError)
    assert error.code == "data.too_few_users"
