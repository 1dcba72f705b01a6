"""A file in another form than ours is read, and never changed: neither by events of the service nor by an erasure."""

import gzip
import math
from pathlib import Path

import polars as pl
import pytest

from isrf.contract.errors import ConfigError, DataError
from offline.commands.forget import forget
from offline.commands.loop_back.item_rows import write_items
from offline.commands.loop_back.own_form import changeable_file
from offline.commands.loop_back.rows import NewRow, holds_forgotten, write_interactions
from tests.offline.stages.ingest.ingest_command import ingest, write

GOOD = "user_id,item_id,timestamp\nu,a,1\nv,b,2\n"
ROW = NewRow("w", "a", "view", 3.0)
OTHER_FORMS: dict[str, str | bytes | pl.DataFrame] = {
    "semicolons": GOOD.replace(",", ";"),
    "another encoding": GOOD.replace("u,a", "ü,a").encode("cp1252"),
    "UTF-16": GOOD.encode("utf-16"),
    "old line ends": GOOD.replace("\n", "\r"),
    "names in capitals": GOOD.replace("user_id", "USER_ID"),
    "a row of two lines": GOOD.replace("timestamp", "timestamp,note").replace("u,a,1", 'u,a,1,"x\ny"') + "w,a,1,z\n",
    "milliseconds": GOOD.replace(",1\n", ",1700000000000\n").replace(",2\n", ",1700000000001\n"),
    "dates": GOOD.replace(",1\n", ",2024-05-01\n").replace(",2\n", ",2024-05-02\n"),
    "milliseconds in Parquet": pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1_700_000_000_000]}),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_a_file_in_another_form_is_not_changed(tmp_path: Path, form: str) -> None:
    content = OTHER_FORMS[form]
    name = "interactions.parquet" if isinstance(content, pl.DataFrame) else "interactions.csv"
    path = write(tmp_path, {name: content}) / name
    before = path.read_bytes()
    for change in (
        lambda: write_interactions(path, tmp_path / "new", [ROW]),
        lambda: write_interactions(path, tmp_path / "new", [], forgets={"u": math.inf}.get),
        lambda: holds_forgotten(path, {"u": 1.5}.get),
        lambda: forget("u", tmp_path, tmp_path / "releases"),
    ):
        with pytest.raises(DataError) as caught:
            change()
        assert caught.value.code == "data.not_changeable"
        assert "our own form" in caught.value.fix
    assert path.read_bytes() == before


def test_a_file_in_our_form_is_changed(tmp_path: Path) -> None:
    path = write(tmp_path, {"interactions.csv": GOOD.replace("timestamp", "timestamp,shop").replace("\nv", ",x\nv")})
    assert write_interactions(path / "interactions.csv", tmp_path / "new", [ROW], forgets={"u": math.inf}.get) == 1
    assert (tmp_path / "new").read_text().splitlines()[-1] == "w,a,3.0,,view"


@pytest.mark.parametrize("name", ["interactions.csv.gz", "interactions.tsv", "interactions/part-0.csv", "items.csv"])
def test_packed_files_and_parts_are_not_changed(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: gzip.compress(GOOD.encode())})
    with pytest.raises(DataError) as caught:
        changeable_file(tmp_path, name.partition(".")[0].partition("/")[0])
    assert caught.value.code == "data.not_changeable"


def test_items_without_an_item_id_are_not_changed(tmp_path: Path) -> None:
    write(tmp_path, {"items.jsonl": '{"sku": "a"}\n', "items.parquet": pl.DataFrame({"sku": ["a"]})})
    for name in ("items.jsonl", "items.parquet"):
        with pytest.raises(DataError) as caught:
            write_items(tmp_path / name, tmp_path / "new", {"a": {}})
        assert caught.value.code == "data.not_changeable"


def test_the_services_events_are_not_merged_into_files_that_options_describe(tmp_path: Path) -> None:
    data = write(
        tmp_path / "shop", {"interactions.csv": GOOD.replace("user_id", "who"), "items.csv": "item_id\na\nb\n"}
    )
    with pytest.raises(ConfigError) as caught:
        ingest(data, tmp_path / "r", "--column user_id=who --from-redis redis://127.0.0.1:1")
    assert caught.value.code == "config.from_redis"
