"""Proper releases made from a trained one: other items, other rows, other names; and broken ones."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from isrf.contract.manifest_seal import made_from, release_id_of, seal_of

MARK = "~b"
"""Ends the ids of `r-b`'s items."""


def change_manifest(
    folder: Path, change: Callable[[dict[str, Any]], None], *, sealed: bool = True, bound: bool = True
) -> None:
    """Changes the manifest, and with `sealed` makes its id and its seal true again.

    With `bound` the goldens count as made from what is there now, so that only their answers can tell.
    """
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if sealed and bound and manifest.get("goldens"):
        manifest["goldens"]["made_from"] = made_from(manifest)
    if sealed:
        manifest["release_id"] = release_id_of(manifest)
        manifest["sha256"] = seal_of(manifest)
    path.write_text(json.dumps(manifest))


def id_of(folder: Path) -> str:
    """What the release in a folder is called."""
    release_id: str = json.loads((folder / "manifest.json").read_text())["release_id"]
    return release_id


def seal(folder: Path) -> None:
    """Makes all hashes true again: what is left must be found by looking inside."""

    def change(manifest: dict[str, Any]) -> None:
        for name, entry in manifest["files"].items():
            content = (folder / name).read_bytes()
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    change_manifest(folder, change)


def named_copy(source: Path, releases: Path, name: str) -> Path:
    """The same release in a folder of that name, and with an id of its own (`id_of`); `current` is left alone."""
    folder = releases / name
    shutil.copytree(source.resolve(), folder)
    change_manifest(folder, lambda manifest: manifest["evaluation"].update(copy=name))
    return folder


def with_other_items(source: Path, releases: Path, name: str, mark: str) -> Path:
    """A proper release of items that are all called otherwise: their ids end in `mark`."""
    folder = named_copy(source, releases, name)
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    renamed = "".join(json.dumps(line | {"item_id": line["item_id"] + mark}) + "\n" for line in lines)
    (folder / "items.jsonl").write_text(renamed)
    goldens = [json.loads(line) for line in (folder / "golden_items.jsonl").read_text().splitlines()]
    renamed = "".join(json.dumps(one | {"item_id": one["item_id"] + mark}) + "\n" for one in goldens)
    (folder / "golden_items.jsonl").write_text(renamed)
    marked = [pl.col(name).list.eval(pl.element() + mark) for name in ("item_ids", "disliked_item_ids")]
    histories = pl.read_parquet(folder / "histories.parquet").with_columns(marked)
    histories.write_parquet(folder / "histories.parquet")
    seal(folder)
    return folder


def change_items(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replaces each item of a release by what `change` makes of it; the hashes are true again."""
    lines = [change(json.loads(line)) for line in (folder / "items.jsonl").read_text().splitlines()]
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    seal(folder)


def with_text_everywhere(source: Path, releases: Path, text: str) -> Path:
    """`releases` with one release, whose items all have a text as their title, brand and category."""
    folder = named_copy(source, releases, "r-text")
    change_items(folder, lambda item: item | {"title": text, "brand": text, "categories": [text]})
    point(releases, "r-text")
    return releases


def with_other_rows(source: Path, releases: Path, name: str) -> Path:
    """A proper release that gives every user the row, and the past, of the one before."""
    folder = named_copy(source, releases, name)
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


def point(releases: Path, name: str) -> None:
    """Points `current` at a release in one step, as publishing does."""
    link = releases / ".next"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(releases / "current")


def truncated(folder: Path) -> None:
    """A file as a full disk leaves it."""
    content = (folder / "item_vectors.npy").read_bytes()
    (folder / "item_vectors.npy").write_bytes(content[: len(content) // 2])


def some_users(release: Path) -> list[str]:
    """About thirty."""
    users: list[str] = pl.read_parquet(release / "users.parquet")["user_id"].to_list()
    return users[:: max(1, len(users) // 30)]


def shopper_of(release: Path) -> str:
    """A user with a history."""
    row = pl.read_parquet(release / "histories.parquet").filter(pl.col("item_ids").list.len() > 4)["user_index"][0]
    user_id: str = pl.read_parquet(release / "users.parquet")["user_id"][row]
    return user_id


def endless(folder: Path, *, from_batch: int = 1) -> None:
    """A search that is the published one in all it says of itself, and never answers batches of that size or larger."""
    import onnx  # of the offline job: what only serves has none

    path = folder / "recommender.onnx"
    model = onnx.load_model(str(path))
    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == "query":
                node.output[place] = "query_found"
        for place, name in enumerate(node.input):
            if name == "query":
                node.input[place] = "query_found"
    float_, bool_, int_ = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL, onnx.TensorProto.INT64
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["go"], ["on"]), onnx.helper.make_node("Identity", ["q"], ["q_on"])],
        "body",
        [value("turn", int_, []), value("go", bool_, []), value("q", float_, None)],
        [value("on", bool_, []), value("q_on", float_, None)],
    )
    graph.initializer.extend([onnx.helper.make_tensor("smallest", int_, [1], [from_batch])])
    graph.node.extend(
        [
            onnx.helper.make_node("Shape", ["history"], ["sizes"], start=0, end=1),
            onnx.helper.make_node("GreaterOrEqual", ["sizes", "smallest"], ["begins"]),
            onnx.helper.make_node("Squeeze", ["begins"], ["begin"]),
            onnx.helper.make_node("Loop", ["", "begin", "query_found"], ["query"], body=body),
        ]
    )
    onnx.save_model(model, str(path))
    seal(folder)
