"""A release that is not exactly what was published is refused, with the file's name and what to do."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from isrf.contract.errors import BundleError
from isrf.contract.manifest import VariantName
from isrf.method.recommend.request import RankingRequest
from isrf.runtime.bundle.manifests import find_release
from service.release.opening import open_release
from tests.service.releases import change_manifest, seal


@pytest.fixture
def folder(tiny_release: Path, tmp_path: Path) -> Path:
    """A copy of the release that the test may break."""
    copy = tmp_path / "release"
    shutil.copytree((tiny_release / "current").resolve(), copy)
    return copy


def refusal(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as refused:
        open_release(folder)
    assert refused.value.fix
    return refused.value


def files_of(folder: Path) -> list[str]:
    return sorted(json.loads((folder / "manifest.json").read_text())["files"])


def test_a_published_release_opens_and_says_what_it_holds(tiny_release: Path) -> None:
    release = open_release(tiny_release)
    counts = release.manifest.counts
    assert (len(release.catalogue), len(release.users)) == (counts.num_items, counts.num_users)
    assert open_release(tiny_release / "current").manifest == release.manifest


@pytest.mark.parametrize("name", ["int8", "fp16"])
def test_another_form_of_the_search_is_served_where_it_is_asked_for(tiny_release: Path, name: VariantName) -> None:
    exact, coarse = open_release(tiny_release), open_release(tiny_release, name)
    variant = exact.manifest.variants[name]
    assert variant.loss["users"] > 0
    assert abs(variant.loss["relative_loss"]["mean"]) < 0.05
    assert 0 < variant.tolerance.log_prob < 0.5
    history = [3, 14, 15]
    interests = exact.recommender.read([history], [-1])
    request = RankingRequest(history=history, n=10, allowed=np.ones(len(exact.catalogue), dtype=np.bool_))
    outputs = [opened.recommender.search([request], interests) for opened in (exact, coarse)]
    assert not np.array_equal(outputs[0].query, outputs[1].query)
    lists = [opened.recommender.rank([request], interests)[0].items for opened in (exact, coarse)]
    first, second = ({item.item_index for item in items} for items in lists)
    assert len(first & second) >= 8


def test_a_release_without_the_variant_says_how_to_get_it(folder: Path) -> None:
    change_manifest(folder, lambda manifest: manifest.update(variants={}))
    with pytest.raises(BundleError) as refused:
        open_release(folder, "int8")
    assert refused.value.code == "bundle.no_variant"
    assert "search.int8=true" in refused.value.fix
    open_release(folder)


def test_a_variant_further_off_its_goldens_than_its_manifest_allows_is_refused(folder: Path) -> None:
    """As on a processor that adds up 8-bit products otherwise."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["variants"]["int8"]["tolerance"]["log_prob"] /= 1000

    change_manifest(folder, change)
    with pytest.raises(BundleError) as refused:
        open_release(folder, "int8")
    assert refused.value.code == "bundle.golden_mismatch"
    assert "recommender.int8.onnx" in refused.value.message
    assert "ISRF_VARIANT=fp32" in refused.value.fix
    open_release(folder)


def test_histories_hold_what_the_users_took(demo_release: Path, demo_shop: Path) -> None:
    """Against the shop's own file: items stand with the right users, in order of time."""
    release = open_release(demo_release)
    rows = pl.read_csv(demo_shop / "interactions.csv", schema_overrides={"user_id": pl.String, "item_id": pl.String})
    if "event" in rows.columns:
        rows = rows.filter(~pl.col("event").is_in(["dislike", "remove"]).fill_null(False))
    for (user_id,), theirs in rows.group_by("user_id"):
        history = release.users.past(str(user_id), lambda _: True).history
        assert sorted(entry.item_id for entry in history) == sorted(theirs["item_id"].to_list())
        times = [entry.timestamp for entry in history if entry.timestamp is not None]
        assert times == sorted(times)
        assert len(times) == len(history)
        moments = dict(zip(theirs["timestamp"].cast(pl.Float64), theirs["item_id"], strict=True))
        if len(moments) == len(history):
            assert [entry.item_id for entry in history] == [moments[moment] for moment in times]


def test_event_types_and_dislikes_come_with_the_histories(folder: Path) -> None:
    table = pl.read_parquet(folder / "histories.parquet")
    first = table.row(0, named=True)
    kinds = ["view", " Purchase", None, *["cart"] * len(first["item_ids"])][: len(first["item_ids"])]
    changed = [kinds, *table["events"].to_list()[1:]]
    disliked = [[first["item_ids"][0]], *[[]] * (len(table) - 1)]
    table.with_columns(
        events=pl.Series(changed, dtype=pl.List(pl.String)),
        disliked_item_ids=pl.Series(disliked, dtype=pl.List(pl.String)),
    ).write_parquet(folder / "histories.parquet")
    seal(folder)
    release = open_release(folder)
    user_id = pl.read_parquet(folder / "users.parquet")["user_id"][first["user_index"]]
    past = release.users.past(user_id, {"", "purchase"}.__contains__)
    assert list(past.bought) == [False, True, True, *[False] * len(kinds)][: len(kinds)]
    assert list(past.disliked) == first["item_ids"][:1]
    assert [entry.item_id for entry in past.history] == first["item_ids"]


def test_nothing_to_serve_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no release") as refused:
        find_release(tmp_path)
    assert "python -m offline run" in refused.value.fix
    (tmp_path / "current").symlink_to("gone")
    assert refusal(tmp_path).code == "bundle.no_release"


def test_one_flipped_byte_in_any_file_is_found(folder: Path) -> None:
    for name in files_of(folder):
        path = folder / name
        content = path.read_bytes()
        if not content:
            continue
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        refused = refusal(folder)
        assert (refused.code, name in refused.message) == ("bundle.hash_mismatch", True)
        path.write_bytes(content)
    open_release(folder)


def test_a_truncated_and_a_missing_file_are_found(folder: Path) -> None:
    for name in files_of(folder):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        assert refusal(folder).code == "bundle.hash_mismatch"
        path.unlink()
        refused = refusal(folder)
        assert (refused.code, name in refused.message) == ("bundle.missing_file", True)
        path.write_bytes(content)


@pytest.mark.parametrize("version", [0, 1, 6, "3", None, True, 3.0])
def test_an_unknown_schema_version_is_refused(folder: Path, version: Any) -> None:
    change_manifest(folder, lambda manifest: manifest.update(schema_version=version))
    refused = refusal(folder)
    assert (refused.code, repr(version) in refused.message) == ("bundle.schema_version", True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"schema_version": 2}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    assert refusal(folder).code in {"bundle.manifest", "bundle.schema_version"}


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname"])
def test_a_manifest_that_points_outside_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_text("x")

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}

    change_manifest(folder, change)
    assert "outside the release" in refusal(folder).message


def unlist(manifest: dict[str, Any], *, name: str) -> None:
    del manifest["files"][name]


def test_a_file_that_the_manifest_does_not_vouch_for_is_not_opened(folder: Path) -> None:
    for name in ("golden.jsonl", "recommender.onnx", "recommender.int8.onnx", "popularity.npy"):
        kept = (folder / "manifest.json").read_text()
        change_manifest(folder, partial(unlist, name=name))
        assert name in refusal(folder).message
        (folder / "manifest.json").write_text(kept)


def shorter(folder: Path) -> None:
    np.save(folder / "item_vectors.npy", np.load(folder / "item_vectors.npy")[:-1])


def wider(folder: Path) -> None:
    np.save(folder / "popularity.npy", np.load(folder / "popularity.npy").astype(np.float64))


def no_array(folder: Path) -> None:
    (folder / "group_layers.npy").write_bytes(b"no array")


def pickled(folder: Path) -> None:
    np.save(folder / "popularity.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def two_of_one_id(folder: Path) -> None:
    codes = np.load(folder / "semantic_ids.npy")
    codes[1] = codes[0]
    np.save(folder / "semantic_ids.npy", codes)


def fewer_items(folder: Path) -> None:
    lines = (folder / "items.jsonl").read_text().splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join(lines[:-1]))


def an_item_twice(folder: Path) -> None:
    lines = (folder / "items.jsonl").read_text().splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join([*lines[:-1], lines[0]]))


def no_json(folder: Path) -> None:
    lines = (folder / "items.jsonl").read_text().splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join(["nonsense\n", *lines[1:]]))


def fewer_users(folder: Path) -> None:
    users = pl.read_parquet(folder / "users.parquet")
    users[:-1].write_parquet(folder / "users.parquet")


def a_user_twice(folder: Path) -> None:
    users = pl.read_parquet(folder / "users.parquet")
    pl.concat([users[:-1], users[:1]]).write_parquet(folder / "users.parquet")


def a_history_of_other_items(folder: Path) -> None:
    table = pl.read_parquet(folder / "histories.parquet")
    renamed = table.with_columns(pl.col("item_ids").list.eval(pl.element() + "-of-another-shop"))
    renamed.write_parquet(folder / "histories.parquet")


def a_history_of_nobody(folder: Path) -> None:
    table = pl.read_parquet(folder / "histories.parquet")
    table.with_columns(pl.col("user_index") + 1).write_parquet(folder / "histories.parquet")


def a_history_twice(folder: Path) -> None:
    table = pl.read_parquet(folder / "histories.parquet")
    pl.concat([table, table[:1]]).write_parquet(folder / "histories.parquet")


def no_table(folder: Path) -> None:
    (folder / "histories.parquet").write_bytes(b"PAR1 no table")


def other_columns(folder: Path) -> None:
    pl.DataFrame({"user_index": [0]}).write_parquet(folder / "histories.parquet")


def no_graph(folder: Path) -> None:
    (folder / "recommender.onnx").write_bytes(b"no graph")


def graphs_swapped(folder: Path) -> None:
    content = (folder / "recommender.onnx").read_bytes()
    (folder / "recommender.onnx").write_bytes((folder / "lightgcn.onnx").read_bytes())
    (folder / "lightgcn.onnx").write_bytes(content)


def vectors_of_another_run(folder: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = np.load(folder / "item_vectors.npy")
    np.save(folder / "item_vectors.npy", rng.permutation(vectors))


def another_answer(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "golden.jsonl").read_text().splitlines()]
    lines[-1]["beam_items"][:2] = lines[-1]["beam_items"][1::-1]
    (folder / "golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def no_goldens(folder: Path) -> None:
    (folder / "golden.jsonl").write_text("")


def goldens_of_another_catalogue(folder: Path) -> None:
    line = json.loads((folder / "golden.jsonl").read_text().splitlines()[0])
    (folder / "golden.jsonl").write_text(json.dumps(line | {"history": [10**6]}) + "\n")


@pytest.mark.parametrize(
    ("damage", "code", "named"),
    [
        (shorter, "bundle.array_mismatch", "item_vectors.npy"),
        (wider, "bundle.array_mismatch", "popularity.npy"),
        (no_array, "bundle.array_mismatch", "group_layers.npy"),
        (pickled, "bundle.array_mismatch", "popularity.npy"),
        (two_of_one_id, "bundle.semantic_ids", "semantic_ids.npy"),
        (fewer_items, "bundle.array_mismatch", "items.jsonl"),
        (an_item_twice, "bundle.items", "items.jsonl"),
        (no_json, "bundle.items", "items.jsonl line 1"),
        (fewer_users, "bundle.array_mismatch", "users.parquet"),
        (a_user_twice, "bundle.users", "users.parquet"),
        (a_history_of_other_items, "bundle.histories", "-of-another-shop"),
        (a_history_of_nobody, "bundle.histories", "histories.parquet"),
        (a_history_twice, "bundle.array_mismatch", "histories.parquet"),
        (no_table, "bundle.table", "histories.parquet"),
        (other_columns, "bundle.table", "histories.parquet"),
        (no_graph, "bundle.graph_unreadable", "recommender.onnx"),
        (graphs_swapped, "bundle.graph_mismatch", "onnx"),
        (vectors_of_another_run, "bundle.golden_mismatch", "golden.jsonl"),
        (another_answer, "bundle.golden_mismatch", "golden.jsonl"),
        (no_goldens, "bundle.golden_missing", "golden.jsonl"),
        (goldens_of_another_catalogue, "bundle.golden", "golden.jsonl"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_found_though_every_hash_is_right(
    folder: Path, damage: Callable[[Path], None], code: str, named: str
) -> None:
    damage(folder)
    seal(folder)
    refused = refusal(folder)
    assert refused.code == code
    assert named in refused.message
