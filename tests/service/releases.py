"""Proper releases made from a trained one: other items, other rows, other names; and broken ones."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

MARK = "~b"
"""Ends the ids of `r-b`'s items."""


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def seal(folder: Path) -> None:
    """Makes the manifest's hashes true again: what is left must be found by looking inside."""

    def change(manifest: dict[str, Any]) -> None:
        for name, entry in manifest["files"].items():
            content = (folder / name).read_bytes()
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    change_manifest(folder, change)


def named_copy(source: Path, releases: Path, release_id: str) -> Path:
    """The same release under another id; `current` is left alone."""
    folder = releases / release_id
    shutil.copytree(source.resolve(), folder)
    change_manifest(folder, lambda manifest: manifest.update(release_id=release_id))
    return folder


def with_other_items(source: Path, releases: Path, release_id: str, mark: str) -> Path:
    """A proper release of items that are all called otherwise: their ids end in `mark`."""
    folder = named_copy(source, releases, release_id)
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    renamed = "".join(json.dumps(line | {"item_id": line["item_id"] + mark}) + "\n" for line in lines)
    (folder / "items.jsonl").write_text(renamed)
    marked = [pl.col(name).list.eval(pl.element() + mark) for name in ("item_ids", "disliked_item_ids")]
    histories = pl.read_parquet(folder / "histories.parquet").with_columns(marked)
    histories.write_parquet(folder / "histories.parquet")
    seal(folder)
    return folder


def with_other_rows(source: Path, releases: Path, release_id: str) -> Path:
    """A proper release that gives every user the row, and the past, of the one before."""
    folder = named_copy(source, releases, release_id)
    users = pl.read_parquet(folder / "users.parquet")
    users.with_columns(user_id=np.roll(users["user_id"].to_numpy(), 1)).write_parquet(folder / "users.parquet")
    seal(folder)
    return folder


def two_releases(source: Path, releases: Path) -> Path:
    """`r-a` and `r-b`, every item of the latter called otherwise; `current` points to the former."""
    named_copy(source, releases, "r-a")
    with_other_items(source, releases, "r-b", MARK)
    point(releases, "r-a")
    return releases


def point(releases: Path, release_id: str) -> None:
    """Points `current` at a release in one step, as publishing does."""
    link = releases / ".next"
    link.unlink(missing_ok=True)
    link.symlink_to(release_id)
    link.replace(releases / "current")


def truncated(folder: Path) -> None:
    """A file as a full disk leaves it."""
    content = (folder / "item_vectors.npy").read_bytes()
    (folder / "item_vectors.npy").write_bytes(content[: len(content) // 2])


def some_users(release: Path) -> list[str]:
    users: list[str] = pl.read_parquet(release / "users.parquet")["user_id"].to_list()
    return users[::20]


def shopper_of(release: Path) -> str:
    """A user with a history."""
    row = pl.read_parquet(release / "histories.parquet").filter(pl.col("item_ids").list.len() > 4)["user_index"][0]
    user_id: str = pl.read_parquet(release / "users.parquet")["user_id"][row]
    return user_id
