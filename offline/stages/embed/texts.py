"""Collects the text fields of every item and user from the tables of the stages `ingest` and `reason`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.contract.errors import StageError
from isrf.method.text.encoder import TextFields, item_fields


class Texts(NamedTuple):
    items: list[TextFields]  # row = item_index
    users: list[TextFields]  # row = user_index
    fitted: NDArray[np.bool_]  # (N,) items with a training interaction: what an encoder may be fitted on


def read_texts(ingest: Path, reason: Path) -> Texts:
    """Reads the texts; raises `StageError` where there is nothing to fit an encoder on."""
    columns = ["title", "brand", "categories", "description"]
    items = pl.read_parquet(ingest / "items.parquet", columns=columns)
    features = pl.read_parquet(reason / "item_features.parquet", columns=["item_index", "feature", "positive"])
    features = features.sort("item_index")
    item_texts: list[TextFields] = [
        item_fields(
            title=title,
            brand=brand,
            categories=[category for category in categories or () if category],
            description=description,
            feature=feature,
            positive=positive,
        )
        for (title, brand, categories, description), (feature, positive) in zip(
            items.iter_rows(), features.select("feature", "positive").iter_rows(), strict=True
        )
    ]
    users = pl.read_parquet(reason / "user_features.parquet", columns=["user_index", "likes", "core"])
    user_texts: list[TextFields] = [
        {name: text for name, text in (("likes", likes), ("core", core)) if text}
        for likes, core in users.sort("user_index").select("likes", "core").iter_rows()
    ]
    taken = pl.read_parquet(ingest / "train.parquet", columns=["item_index"])["item_index"].to_numpy()
    fitted = np.bincount(taken, minlength=len(item_texts)) > 0
    if not fitted.any():
        raise StageError(
            "embed.no_training_items",
            "no item has a training interaction, so there is nothing to fit the text encoder on.",
            fix="Provide users with at least three interactions each (two of them are held out).",
        )
    return Texts(item_texts, user_texts, fitted)
