"""Whose lists are made: all users of a release, or those that a file names."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from isrf.contract.errors import ConfigError, DataError
from isrf.contract.ids import id_problem
from isrf.contract.manifest import USERS_FILE
from isrf.runtime.bundle.manifests import CURRENT, find_release, named_release, read_manifest
from offline.reading.bad_rows import BadRows
from offline.reading.columns import Columns, Wanted, find_columns, unused_mapping
from offline.reading.files import open_bytes, parquet_columns, read_parquet
from offline.reading.names import INTERACTION_NAMES
from offline.reading.settings import IngestConfig
from offline.reading.text_table import read_text_part

ALL = "all"
_TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_WANTED = Wanted(("user_id",), ("user_id",), INTERACTION_NAMES)


def release_users(releases: Path, release_id: str) -> pl.Series:
    """The users of a release; raises `ConfigError` (`config.other_release`) where it is not in the folder."""
    folder = find_release(releases)
    if read_manifest(folder).release_id != release_id:
        if not (releases / release_id).is_dir():
            raise ConfigError(
                "config.other_release",
                f"the service has the release {release_id}, which is not in {releases}.",
                fix=f"Give the folder where the service's releases are, with its link `{CURRENT}`, or name the users "
                "with --users FILE.",
            )
        folder = named_release(releases, release_id)
    return read_parquet(folder / USERS_FILE, ["user_id"])["user_id"]


def read_users(path: Path, column: str | None) -> pl.Series:
    """The ids in a file, each once, in its order.

    Args:
        path: CSV or Parquet with a column `user_id`, by the end of its name in any case; any other name is a text
            file with one id a line.
        column: the file's own name of that column.

    Raises:
        DataError: `data.missing_file`, `data.no_rows`, `data.bad_users`, `data.missing_column`, `data.no_header` and
            other errors of tables.
    """
    if not path.is_file():
        raise DataError(
            "data.missing_file", f"{path} is not a file.", fix=f"Write --users {ALL}, or name a file of user ids."
        )
    mapping = {} if column is None else {"user_id": (column,)}
    name = path.name.lower()
    if name.endswith(_TABLES):
        found = _from_table(path, mapping)
    elif name.endswith(".parquet"):
        found = _from_parquet(path, mapping)
    else:
        found = _from_lines(path)
    if not found:
        raise DataError("data.no_rows", f"{path} names no user.", fix="Write one id a line.")
    for row, user_id in enumerate(found, start=1):
        problem = "is empty" if user_id is None else id_problem(user_id)
        if problem is not None:
            length = len((user_id or "").encode())  # not the id: messages end up in logs
            raise DataError(
                "data.bad_users",
                f"{path}: user {row} of {len(found)} ({length} bytes) {problem}.",
                fix="Correct it, or leave it out.",
            )
    return pl.Series("user_id", list(dict.fromkeys(found)), dtype=pl.String)


def _from_lines(path: Path) -> Sequence[str | None]:
    try:
        with open_bytes(path) as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "data.bad_users",
            f"{path} is not text in UTF-8 (byte {error.start}).",
            fix="Write one id a line, or give CSV or Parquet with a name that ends so.",
        ) from None
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]


def _from_table(path: Path, mapping: dict[str, tuple[str]]) -> Sequence[str | None]:
    bad_rows = BadRows(path.name)
    understood: list[Columns] = []

    def understand(where: str, header: list[str]) -> Columns:
        understood.append(_columns(where, header, mapping))
        return understood[-1]

    part = read_text_part(path, str(path), bad_rows, IngestConfig(), understand)
    ids = pl.concat(list(part.blocks))["user_id"]
    if len(bad_rows):
        raise DataError(
            "data.bad_users",
            f"{path}: {len(bad_rows)} rows cannot be read: {bad_rows.describe()}.",
            fix="Correct these rows.",
        )
    return ids.to_list()


def _from_parquet(path: Path, mapping: dict[str, tuple[str]]) -> Sequence[str | None]:
    names = parquet_columns(path)
    name = names[_columns(str(path), names, mapping).ours["user_id"]]
    ids = read_parquet(path, [name])[name]
    if not (ids.dtype == pl.String or ids.dtype.is_integer()):
        raise DataError(
            "data.bad_column_type",
            f"{path} has user_id as {ids.dtype}.",
            fix="Write it as text, or as whole numbers.",
        )
    return ids.cast(pl.String).to_list()


def _columns(where: str, header: Sequence[str], mapping: dict[str, tuple[str]]) -> Columns:
    unused = unused_mapping(mapping, [header])
    if unused is not None:
        raise unused
    return find_columns(where, header, _WANTED, mapping)
