"""A small shop's ingest tables, written directly, and a context to run `reason` and `embed` on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import Progress

from offline.config import build_config
from offline.context import StageContext

CATEGORIES = (("Beauty", "Hair Care", "Shampoos"), ("Beauty", "Makeup", "Eyes", "Mascara"))


def shop_items(number: int) -> list[dict[str, Any]]:
    """Two kinds of item in turn, each with the words of its kind and one of its own."""
    return [
        {
            "title": f"{('Argan Oil Volume Shampoo', 'Waterproof Black Mascara')[row % 2]} number{row // 2}",
            "brand": ("Giovanni", "Maybelline")[row % 2],
            "categories": list(CATEGORIES[row % 2]),
            "description": None,
            "price": 5.0 + row,
        }
        for row in range(number)
    ]


def write_ingest(
    folder: Path,
    items: Sequence[dict[str, Any]],
    histories: Sequence[Sequence[int]],
    held_out: Sequence[tuple[int, int]] = (),
) -> Path:
    """`items.parquet`, `users.parquet`, `train.parquet`, and where given `heldout.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "item_id": pl.String, "title": pl.String, "brand": pl.String, "categories": pl.List(pl.String),
        "description": pl.String, "price": pl.Float64,
    }  # fmt: skip
    pl.DataFrame([{"item_id": f"item-{row}", **item} for row, item in enumerate(items)], schema=schema).write_parquet(
        folder / "items.parquet"
    )
    pl.DataFrame({"user_id": [f"user-{row}" for row in range(len(histories))]}).write_parquet(folder / "users.parquet")
    events = [(user, item, float(age)) for user, history in enumerate(histories) for age, item in enumerate(history)]
    columns = {"user_index": pl.Int32, "item_index": pl.Int32, "timestamp": pl.Float64}
    pl.DataFrame(events, schema=columns, orient="row").write_parquet(folder / "train.parquet")
    if held_out:
        pl.DataFrame([(*pair, 0.0) for pair in held_out], schema=columns, orient="row").write_parquet(
            folder / "heldout.parquet"
        )
    return folder


def stage_context(folder: Path, inputs: dict[str, Path], *assignments: str, name: str = "out") -> StageContext:
    """A context whose output is `folder/<name>`; scratch and so the ledger are shared by all of a folder's contexts."""
    out, scratch = folder / name, folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    return StageContext(
        data=folder / "no-data",
        inputs=inputs,
        out=out,
        scratch=scratch,
        config=build_config("demo", None, assignments),
        progress=Progress(console=Console(quiet=True)),
    )
