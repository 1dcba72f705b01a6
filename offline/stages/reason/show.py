"""`python -m offline reason show ID`: prints the reasoning steps of one item or user.

It reads the output of a reason stage, or a release. A release's steps are in its `reasoning/` folder; without that
folder, the module finds the stage's output below the releases folder's `.work` by its features.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isrf.contract.errors import DataError
from isrf.contract.manifest import ITEMS_FILE, REASONING_DIR, USERS_FILE
from offline.context import WORK_DIR
from offline.stages.reason.tables import ITEM_FIELDS, USER_FIELDS

ITEM_TABLE, USER_TABLE = "item_features.parquet", "user_features.parquet"


class _Found(NamedTuple):
    """One item or user with the id."""

    kind: str  # item or user
    row: int
    title: str  # empty for a user


def show(folder: Path, shop_id: str, *, ingest: Path | None = None) -> RenderableType:
    """Returns the steps of the item or user with this id; of both where both have it.

    Args:
        folder: a release, or the output of a reason stage.
        shop_id: the shop's own id.
        ingest: the output of the ingest stage that the reason stage read; a release holds the ids itself.

    Raises:
        DataError: `data.unknown_id`, or `data.no_reasoning` if the folder has no reasoning to show.
    """
    is_stage = (folder / ITEM_TABLE).exists()
    matches = list(_find_in_ingest(ingest, shop_id) if is_stage and ingest else _find_in_release(folder, shop_id))
    if not matches:
        raise DataError(
            "data.unknown_id", f"{folder} has neither an item nor a user with the id {shop_id!r}.", fix="Check the id."
        )
    reasoning = folder if is_stage else _reasoning_folder(folder)
    return Group(*(_panel(reasoning, match, shop_id) for match in matches))


def _find_in_release(folder: Path, shop_id: str) -> Iterator[_Found]:
    for path in (folder / ITEMS_FILE, folder / USERS_FILE):
        if not path.exists():
            raise DataError(
                "data.no_reasoning",
                f"{folder} is neither a release nor the output of a reason stage: {path.name} is missing.",
                fix="Pass a release, which is a folder below the releases folder.",
            )
    with (folder / ITEMS_FILE).open(encoding="utf-8") as lines:
        for row, line in enumerate(lines):
            item = json.loads(line)
            if item["item_id"] == shop_id:
                yield _Found("item", row, item.get("title") or "")
                break
    yield from _find_row("user", pl.read_parquet(folder / USERS_FILE), shop_id)


def _find_in_ingest(ingest: Path, shop_id: str) -> Iterator[_Found]:
    yield from _find_row("item", pl.read_parquet(ingest / "items.parquet", columns=["item_id", "title"]), shop_id)
    yield from _find_row("user", pl.read_parquet(ingest / "users.parquet"), shop_id)


def _find_row(kind: str, table: pl.DataFrame, shop_id: str) -> Iterator[_Found]:
    row = table[f"{kind}_id"].index_of(shop_id)
    if row is not None:
        yield _Found(kind, row, (table["title"][row] or "") if "title" in table.columns else "")


def _reasoning_folder(release: Path) -> Path:
    """Returns the folder with the release's feature tables."""
    if (release / REASONING_DIR / ITEM_TABLE).exists():
        return release / REASONING_DIR
    with (release / ITEMS_FILE).open(encoding="utf-8") as lines:
        features = [json.loads(line).get("feature") for line in lines]
    for folder in sorted((release.resolve().parent / WORK_DIR / "reason").glob("*/")):
        table = folder / ITEM_TABLE
        if table.exists() and pl.read_parquet(table, columns=["feature"])["feature"].to_list() == features:
            return folder
    raise DataError(
        "data.no_reasoning",
        f"the reasoning steps of {release} are not stored here: no output below {WORK_DIR}/reason has its features.",
        fix="Run `python -m offline run` with the same data and settings; it reuses finished stages.",
    )


def _panel(reasoning: Path, found: _Found, shop_id: str) -> Panel:
    fields, file = (ITEM_FIELDS, ITEM_TABLE) if found.kind == "item" else (USER_FIELDS, USER_TABLE)
    values: dict[str, Any] = pl.read_parquet(reasoning / file).row(found.row, named=True)
    steps = Table.grid(padding=(0, 2))
    steps.add_column(style="bold")
    steps.add_column()
    for field in fields:
        steps.add_row(field, Text(values[field] or "–"))
    title = f"{found.kind} {shop_id}{f' · {found.title}' if found.title else ''}"
    return Panel(steps, title=Text(title), subtitle=f"origin: {values['origin'] or 'nothing known'}")
