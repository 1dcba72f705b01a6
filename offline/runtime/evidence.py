"""Counts the evidence lists of a release from training interactions and texts alone, and stores them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.method.evidence import (
    SparseLists,
    cooccurrence_lists,
    num_takers,
    transition_lists,
    user_item_lists,
)
from isrf.method.interest import FloatArray
from offline.config import EvidenceConfig


class Counted(NamedTuple):
    """Evidence lists and popularity, counted from training interactions and texts."""

    lists: dict[str, SparseLists]  # `isrf.contract.manifest.EVIDENCE_LISTS`
    popularity: FloatArray  # (N,) users who took the item in training

    @property
    def item_lists(self) -> dict[str, SparseLists]:
        """The lists with a row per item."""
        return {name: lists for name, lists in self.lists.items() if name != "user_items"}


def count_evidence(inputs: Mapping[str, Path], *, num_users: int, config: EvidenceConfig) -> Counted:
    """Counts the evidence from the training interactions of `ingest` and the content lists of `embed`.

    `inputs` holds the output folders by stage name.
    """
    train = pl.read_parquet(inputs["ingest"] / "train.parquet")
    content = load_lists(inputs["embed"] / "evidence")["content"]
    users, items = (train[name].to_numpy().astype(np.int64) for name in ("user_index", "item_index"))
    popularity = num_takers(users, items, num_items=len(content.indptr) - 1)
    lists = build_lists(train, content, num_users=num_users, config=config)
    return Counted(lists, popularity.astype(np.float32))


def build_lists(
    train: pl.DataFrame, content: SparseLists, *, num_users: int, config: EvidenceConfig
) -> dict[str, SparseLists]:
    """The four lists of `isrf.contract.manifest.EVIDENCE_LISTS`.

    Args:
        train: `train.parquet`: user_index, item_index, sorted by user, then order.
        content: each item's nearest items by text, from `embed`; N rows.
        num_users: U.
        config: list length and transition window.
    """
    users = train["user_index"].to_numpy().astype(np.int64)
    items = train["item_index"].to_numpy().astype(np.int64)
    num_items = len(content.indptr) - 1
    return {
        "transition": transition_lists(
            users, items, num_items=num_items, window=config.window, length=config.list_length
        ),
        "cooccurrence": cooccurrence_lists(users, items, num_items=num_items, length=config.list_length),
        "content": content,
        "user_items": user_item_lists(users, items, num_users=num_users),
    }


def lists_as_arrays(lists: Mapping[str, SparseLists]) -> dict[str, NDArray[Any]]:
    """The lists' arrays by the file names of a bundle (`isrf.contract.manifest.ARRAYS`)."""
    return {
        f"evidence/{name}_{part}.npy": array
        for name, sparse in lists.items()
        for part, array in sparse._asdict().items()
    }


def save_lists(folder: Path, lists: dict[str, SparseLists]) -> None:
    """Writes `<name>_{indptr,indices,weights}.npy` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sparse in lists.items():
        for part, array in sparse._asdict().items():
            np.save(folder / f"{name}_{part}.npy", array)


def load_lists(folder: Path) -> dict[str, SparseLists]:
    """Reads the lists that `save_lists` wrote, by name."""
    names = {path.name.rsplit("_", 1)[0] for path in folder.glob("*_indptr.npy")}
    return {
        name: SparseLists(*(np.load(folder / f"{name}_{part}.npy") for part in SparseLists._fields)) for name in names
    }
