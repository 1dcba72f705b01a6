"""Files of users, parts of a run, and a disk that is full."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from isrf.contract.errors import DataError, StageError
from offline.commands.recommend.list_client import UserList
from offline.commands.recommend.output import write_lists
from offline.commands.recommend.parts import MOST_AGE_S, ListParts, lock_parts, open_parts, rows_of
from offline.commands.recommend.users import read_users

SETTINGS: dict[str, Any] = {"release": "r-1", "n": None}
UNKNOWN = {"code": "unknown_user", "message": "Nobody knows this user_id."}


def made(user_id: str, *item_ids: str, warnings: tuple[dict[str, str], ...] = ()) -> UserList:
    items = [
        {"item_id": item_id, "rank": rank, "score": -rank / 3, "source": "dense"}
        for rank, item_id in enumerate(item_ids, start=1)
    ]
    return UserList(user_id, items, {"release_id": "r-1", "placement_version": 2}, warnings)


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("users.txt", b"\xef\xbb\xbf7\r\nann lee\r\n\r\n7\r\n", None),
        ("users", b"7\nann lee", None),
        ("users.csv", b"user_id,name\n7,x\nann lee,y\n7,z\n", None),
        ("users.csv", b'Kunde;Ort\n7;"A; B"\n"ann lee";y\n', "Kunde"),
        ("USERS.CSV", b"user_id,name\n7,x\nann lee,y\n", None),
        ("users.tsv", b"name\tUSER_ID\nx\t7\ny\tann lee\n", None),
    ],
)
def test_users_are_read_from_text_and_csv_each_once(
    tmp_path: Path, name: str, content: bytes, column: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_users(tmp_path / name, column).to_list() == ["7", "ann lee"]


def test_users_are_read_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "users.parquet"
    pl.DataFrame({"customer": [7, 9, 7], "spent": [0.5, 1.0, 2.0]}).write_parquet(path)
    assert read_users(path, "customer").to_list() == ["7", "9"]
    for column, code in (
        ("spent", "data.bad_column_type"),
        (None, "data.missing_column"),
        ("x", "data.unknown_column"),
    ):
        with pytest.raises(DataError) as refused:
            read_users(path, column)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("users.txt", b"ann\n" + b"b" * 513, "data.bad_users", "user 2 of 2"),
        ("users.txt", b"ann\nb\x07b\n", "data.bad_users", "user 2 of 2 (3 bytes) holds a control character"),
        ("users.txt", b"ann\n\xff\n", "data.bad_users", "byte 4"),
        ("users.txt", b"\n\n", "data.no_rows", "names no user"),
        ("users.csv", b"user_id,name\nann,x\n,y\n", "data.bad_users", "user 2 of 2 (0 bytes) is empty"),
        ("users.csv", b"user_id,name\nann\n", "data.bad_users", "malformed_row 1 (line 2"),
        ("users.csv", b"customer,name\nann,x\n", "data.missing_column", "has no column user_id"),
    ],
)
def test_a_file_of_users_that_cannot_be_read_says_where(
    tmp_path: Path, name: str, content: bytes, code: str, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_users(tmp_path / name, None)
    assert refused.value.code == code
    assert said in refused.value.message


def test_users_whom_nobody_knows_have_rows_only_where_a_file_names_them() -> None:
    lists = [made("ann", "cup", "pot"), made("gone", "cup", warnings=(UNKNOWN,)), made("bob")]
    rows, report = rows_of(lists, keep_unknown=False)
    assert rows["user_id"].to_list() == ["ann", "ann"]
    assert (report.users, report.left_out, report.empty, report.warnings) == (1, 1, 1, {})
    rows, report = rows_of(lists, keep_unknown=True)
    assert rows["user_id"].to_list() == ["ann", "ann", "gone"]
    assert (report.users, report.left_out, report.warnings["unknown_user"].users) == (2, 0, 1)
    assert report.plus(report).warnings["unknown_user"].users == 2
    assert report.plus(report).placement_versions == (2,)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 64 bytes, as on a disk without space."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", ["lists.parquet", "lists.csv", "lists.jsonl.gz"])
def test_a_full_disk_loses_nothing(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    users = pl.Series("user_id", ["ann", "bob"])
    with lock_parts(out) as folder:
        parts = open_parts(folder, SETTINGS, lambda: users)
        with full_disk(), pytest.raises(StageError) as refused:
            parts.add([made("ann", "cup"), made("bob", "pot")], keep_unknown=True)
        assert refused.value.code == "recommend.no_space"
        assert parts.num_users_done == 0
        parts.add([made("ann", "cup"), made("bob", "pot")], keep_unknown=True)
    with lock_parts(out) as folder:
        parts = open_parts(folder, SETTINGS, lambda: pytest.fail("the users are known"))
        assert (parts.num_users_done, parts.report().users) == (2, 2)
        out.write_text("of yesterday")
        with full_disk(), pytest.raises(StageError) as refused:
            write_lists(parts.files, out, {})
        assert refused.value.code == "recommend.no_space"
        assert out.read_text() == "of yesterday"
        write_lists(parts.files, out, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.parts"]


def test_the_end_of_the_name_chooses_the_format(tmp_path: Path) -> None:
    out = tmp_path / "mail.csv.jsonl"
    with lock_parts(out) as folder:
        parts = open_parts(folder, SETTINGS, lambda: pl.Series("user_id", ["ann"]))
        parts.add([made("ann", "cup")], keep_unknown=True)
        write_lists(parts.files, out, {})
    assert pl.read_ndjson(out)["item_id"].to_list() == ["cup"]


def test_a_run_of_yesterday_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = pl.Series("user_id", ["ann"])
    with lock_parts(tmp_path / "a.csv") as folder:
        open_parts(folder, SETTINGS, lambda: users).add([made("ann", "cup")], keep_unknown=True)
        assert open_parts(folder, SETTINGS, lambda: users).num_users_done == 1
        now = time.time()
        monkeypatch.setattr("offline.commands.recommend.parts.time.time", lambda: now + MOST_AGE_S + 60)
        with pytest.raises(StageError) as refused:
            open_parts(folder, SETTINGS, lambda: users)
        assert refused.value.code == "recommend.old_parts"


def test_a_run_that_made_no_part_is_forgotten(tmp_path: Path) -> None:
    users = pl.Series("user_id", ["ann"])
    with lock_parts(tmp_path / "a.csv") as folder:
        open_parts(folder, SETTINGS, lambda: users)
        parts = open_parts(folder, SETTINGS | {"n": 5}, lambda: users)
        parts.add([made("ann", "cup")], keep_unknown=True)
        with pytest.raises(StageError, match="n was 5 and is none"):
            open_parts(folder, SETTINGS, lambda: users)
        assert isinstance(open_parts(folder, SETTINGS | {"n": 5}, lambda: users), ListParts)
