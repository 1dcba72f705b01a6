"""Every file of a real release in every broken form, and every number of its manifest: refused, with the right code."""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from isrf.contract.errors import BundleError
from isrf.contract.manifest import LIVE_ARRAYS, Manifest
from isrf.contract.manifest_seal import made_from, release_id_of, seal_of
from isrf.method.recommend.request import RankingRequest
from service.release.opening import open_release
from tests.conftest import OLDER_RELEASES
from tests.service.releases import change_manifest, seal

OF_ITS_FORM = {".npy": "bundle.array_mismatch", ".onnx": "bundle.graph_unreadable", ".parquet": "bundle.table"}
GOLDENS = ("golden.jsonl", "golden_items.jsonl")
NOT_SERVED = ("recommender.fp16.onnx", "recommender.int8.onnx", "reasoning/item_features.parquet")
"""Nothing but their hashes is looked at."""


@pytest.fixture(scope="module")
def folder(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the release; each test breaks it and mends it again."""
    copy = tmp_path_factory.mktemp("broken") / "release"
    shutil.copytree((tiny_release / "current").resolve(), copy)
    return copy


@pytest.fixture(scope="module")
def trained(demo_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `folder`, of a release where each part of the model has learned something."""
    copy = tmp_path_factory.mktemp("broken") / "release"
    shutil.copytree((demo_release / "current").resolve(), copy)
    return copy


def open_offline(folder: Path) -> Manifest:
    """As the offline job opens a release."""
    from offline.runtime import release

    return release.open_release(folder).manifest


def files_of(folder: Path) -> list[str]:
    return sorted(json.loads((folder / "manifest.json").read_text())["files"])


def code_of(folder: Path, named: str = "") -> str:
    """With what code it is refused; "opens" where it is not. Any other error is the test's."""
    try:
        open_release(folder)
    except BundleError as error:
        refused = error
    else:
        return "opens"
    assert refused.fix
    assert named in refused.message, refused.message
    return refused.code


class Broken:
    """A file that something is done to, and that is whole again in the end, the manifest with it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.path = folder, folder / name
        self.content = self.path.read_bytes()
        self._manifest = (folder / "manifest.json").read_bytes()

    def __enter__(self) -> "Broken":
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rmdir()
        else:
            self.path.unlink(missing_ok=True)
        self.path.write_bytes(self.content)
        (self.folder / "manifest.json").write_bytes(self._manifest)

    def write(self, content: bytes, *, bound: bool = True) -> None:
        """As somebody writes it who makes the hashes true again."""
        self.path.write_bytes(content)
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        name = self.path.relative_to(self.folder).as_posix()
        change_manifest(self.folder, lambda manifest: manifest["files"].update({name: entry}), bound=bound)


@pytest.mark.slow
def test_a_file_that_is_not_the_published_one_is_named_whatever_lies_there(folder: Path) -> None:
    for name in files_of(folder):
        others = [other for other in files_of(folder) if other != name and Path(other).suffix == Path(name).suffix]
        other = folder / (others[0] if others else "manifest.json")
        content = (folder / name).read_bytes()
        puts: list[tuple[str, bytes | Callable[[Path], object] | None, str]] = [
            ("missing", None, "bundle.missing_file"),
            ("empty", b"", "bundle.hash_mismatch"),
            ("truncated", content[: len(content) // 2], "bundle.hash_mismatch"),
            ("longer", content + b"\0", "bundle.hash_mismatch"),
            ("garbage", bytes(len(content)), "bundle.hash_mismatch"),
            ("another's", other.read_bytes(), "bundle.hash_mismatch"),
            ("folder", Path.mkdir, "bundle.not_a_file"),
            ("pipe", os.mkfifo, "bundle.not_a_file"),
            ("link", partial(Path.symlink_to, target=other), "bundle.not_a_file"),
            ("dead link", partial(Path.symlink_to, target="nothing"), "bundle.not_a_file"),
        ]
        for what, put, code in puts:
            with Broken(folder, name) as broken:
                broken.path.unlink()
                if isinstance(put, bytes):
                    broken.path.write_bytes(put)
                elif put is not None:
                    put(broken.path)
                if not (what in {"empty", "truncated"} and not broken.content):
                    assert code_of(folder, Path(name).name) == code, (name, what)
    assert code_of(folder) == "opens"


@pytest.mark.slow
def test_a_file_that_is_listed_as_it_lies_there_and_is_none_of_its_kind_is_named(folder: Path) -> None:
    """Every hash is right: empty, cut, garbage and another kind of file are found by reading them."""
    for name in files_of(folder):
        if name in NOT_SERVED:
            continue
        allowed = {
            OF_ITS_FORM.get(Path(name).suffix),
            {"items.jsonl": "bundle.items", **dict.fromkeys(GOLDENS, "bundle.golden")}.get(name),
        }
        allowed |= {"bundle.array_mismatch"} if name in {"items.jsonl", "users.parquet", "histories.parquet"} else set()
        allowed |= {"bundle.golden_missing"} if name in GOLDENS else set()
        allowed |= {"bundle.text_encoder", "bundle.array_mismatch"} if name.startswith("text_encoder/") else set()
        allowed |= {"bundle.graph_mismatch"} if name.endswith(".onnx") else set()
        with Broken(folder, name) as broken:
            for content in (
                b"",
                broken.content[: len(broken.content) // 2],
                bytes(len(broken.content)),
                b"\xff\xfe" * 100,
                b"[" * 5000,
                b"null\n",
            ):
                if content.strip() == broken.content.strip():
                    continue  # without its last line break it says the same
                broken.write(content)
                assert code_of(folder) in allowed, (name, content[:20])


def arrays_of(folder: Path) -> list[str]:
    return [name for name in files_of(folder) if name.endswith(".npy")]


def other_arrays(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "dtype", array.astype(np.float64 if array.dtype != np.float64 else np.float32)
    yield "complex", array.astype(np.complex64)
    yield "text", np.array(["a", "b"])
    yield "objects", np.array([{"a": 1}], dtype=object)
    yield "one dimension more", array[None]
    yield "big endian", array.astype(array.dtype.newbyteorder(">"))
    yield "nothing", array[:0]
    if array.dtype.kind == "f" and array.size:
        for value in (np.nan, np.inf, -np.inf):
            changed = array.copy()
            changed.flat[array.size // 2] = value
            yield str(value), changed


@pytest.mark.slow
def test_an_array_of_other_numbers_is_named_though_its_hash_is_right(folder: Path, tmp_path: Path) -> None:
    for name in arrays_of(folder):
        with Broken(folder, name) as broken:
            array = np.load(broken.path)
            for what, other in other_arrays(array):
                if what == "nothing" and not len(array):
                    continue
                np.save(tmp_path / "other.npy", other, allow_pickle=True)
                broken.write((tmp_path / "other.npy").read_bytes())
                wanted = "bundle.not_finite" if what in {"nan", "inf", "-inf"} else "bundle.array_mismatch"
                assert code_of(folder) == wanted, (name, what)


def test_arrays_of_the_right_kind_with_other_content_change_a_golden(trained: Path) -> None:
    """Rows in another order, every number another sign: what any list hangs on."""
    caught = {
        "item_inputs.npy", "item_vectors.npy", "item_embeddings.npy", "node_vectors.npy", "semantic_ids.npy",
        "popularity.npy", *LIVE_ARRAYS, "user_features.npy", "group_layers.npy", "text_encoder/idf.npy",
        "text_encoder/components.npy", "text_encoder/mean.npy",
        *(f"item_reader/{part}.npy" for part in ("codebooks", "code_vectors", "text_adapter", "item_text")),
        *(f"evidence/{kind}_{part}.npy" for kind in ("transition", "cooccurrence", "content", "user_items")
          for part in ("indices", "weights")),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    for name in sorted(caught):
        with Broken(trained, name) as broken:
            np.save(broken.path, rng.permutation(np.load(broken.path)))
            broken.write(broken.path.read_bytes())
            found = code_of(trained)
            assert found in {"bundle.golden_mismatch", "bundle.array_mismatch"}, (name, found)


def set_item_reader(manifest: dict[str, Any], *, changed: dict[str, Any]) -> None:
    manifest["item_reader"].update(changed)


def other_texts(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """What reading a new item's text, or naming an item, hangs on, each part of it changed."""
    if name == "items.jsonl":
        lines = content.splitlines(keepends=True)
        ids = [json.loads(line)["item_id"] for line in lines]
        yield "turned round", b"".join(reversed(lines))
        shifted = [json.loads(line) | {"item_id": ids[row - 1]} for row, line in enumerate(lines)]
        yield "each called as the one before", "".join(json.dumps(line) + "\n" for line in shifted).encode()
    elif name == "text_encoder/vocabulary.json":
        yield "turned round", json.dumps(json.loads(content)[::-1]).encode()
    else:
        config = json.loads(content)
        for field in ("title", "brand", "categories"):
            weights = config["field_weights"] | {field: -2 * config["field_weights"][field]}
            yield f"{field} weighs otherwise", json.dumps(config | {"field_weights": weights}).encode()


def test_items_of_another_order_or_read_otherwise_change_a_golden(folder: Path) -> None:
    for name in ("items.jsonl", "text_encoder/vocabulary.json", "text_encoder/config.json"):
        with Broken(folder, name) as broken:
            for what, content in other_texts(name, broken.content):
                broken.write(content)
                assert code_of(folder, "golden_items.jsonl") == "bundle.golden_mismatch", (name, what)
    fields = json.loads((folder / "manifest.json").read_text())
    kept = (folder / "manifest.json").read_bytes()
    try:
        for reader in ({"text_share": 0.1}, {"codes_trained": [1, *fields["item_reader"]["codes_trained"][1:]]}):
            change_manifest(folder, partial(set_item_reader, changed=reader))
            assert code_of(folder, "golden_items.jsonl") == "bundle.golden_mismatch", reader
            (folder / "manifest.json").write_bytes(kept)
    finally:
        (folder / "manifest.json").write_bytes(kept)


def a_little(name: str, content: bytes) -> bytes:
    """The file with as little of it changed as nobody's list may show."""
    if name.endswith(".npy"):
        array = np.load(io.BytesIO(content))
        place = array.size // 3
        array.flat[place] = array.flat[place] + 1 if array.dtype.kind in "iu" else array.flat[place] * 1.001 + 1e-4
        if "indptr" in name:
            array = np.load(io.BytesIO(content))  # an indptr that is another one is no sparse list, or another list
            array[1:-1] = np.sort(np.clip(array[1:-1] + 1, 0, array[-1]))
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()
    if name == "items.jsonl":
        lines = content.splitlines(keepends=True)
        lines[3], lines[4] = lines[4], lines[3]
        return b"".join(lines)
    if name.endswith(".parquet"):
        table, file = pl.read_parquet(io.BytesIO(content)), io.BytesIO()
        table.write_parquet(file, statistics=False, compression="gzip")
        return file.getvalue()
    if name.endswith(".onnx"):
        import onnx  # of the offline job

        model = onnx.load_model_from_string(content)
        model.doc_string = "another"
        changed: bytes = model.SerializeToString()
        return changed
    return content.rstrip() + b" "


@pytest.mark.trained
def test_any_file_changed_after_the_goldens_were_made_is_refused_though_every_seal_is_right(folder: Path) -> None:
    """One number of one array, or two items that change places, show in no golden's answer."""
    for name in files_of(folder):
        if name in GOLDENS:
            continue
        with Broken(folder, name) as broken:
            broken.write(a_little(name, broken.content), bound=False)
            refused = {"bundle.golden_mismatch", "bundle.array_mismatch", "bundle.semantic_ids"}
            assert code_of(folder) in refused, name


def test_goldens_that_the_manifest_counts_cannot_be_left_out(folder: Path) -> None:
    for name, count in (("golden.jsonl", "requests"), ("golden_items.jsonl", "items")):
        with Broken(folder, name) as broken:
            broken.write(b"".join(broken.content.splitlines(keepends=True)[:-1]))
            assert code_of(folder, count) == "bundle.golden_missing"
    with Broken(folder, "golden_items.jsonl") as broken:
        unread = [json.loads(line) | {"new": None} for line in broken.content.splitlines()]
        broken.write("".join(json.dumps(line) + "\n" for line in unread).encode())
        assert code_of(folder, "texts") == "bundle.golden_missing"
        change_manifest(folder, lambda manifest: manifest["files"].pop("golden_items.jsonl"))
        assert code_of(folder) == "bundle.manifest"
        change_manifest(folder, lambda manifest: manifest.update(goldens=None))
        assert code_of(folder) == "bundle.unlisted_file"


@pytest.mark.trained
def test_a_release_made_before_goldens_of_items_is_opened(folder: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(folder, tmp_path / "release"))
    (older / "golden_items.jsonl").unlink()

    def back(manifest: dict[str, Any]) -> None:
        del manifest["goldens"], manifest["files"]["golden_items.jsonl"]

    change_manifest(older, back)
    assert open_release(older).new_items is not None
    assert open_offline(older).goldens is None


def numbers_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all numbers."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from numbers_of(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from numbers_of(inner, (*path, place))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def some_numbers(fields: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """All that decide what is served, and a few of each of the other fields."""
    for name, value in fields.items():
        places = list(numbers_of(value, (name,)))
        yield from places if name in DECIDES else places[:: max(1, len(places) // 3)]


def at(fields: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        fields = fields[part]
    return fields


MISSING = object()


def mutations(value: float) -> Iterator[tuple[str, Any]]:
    yield "sign", -value if value else 1
    yield "zero", 0 if value else 1
    yield "huge", 1e300
    yield "half", value // 2 if isinstance(value, int) else value / 2
    yield "text", str(value)
    yield "list", [value]
    yield "null", None
    yield "missing", MISSING


def changed(fields: dict[str, Any], path: tuple[Any, ...], value: Any) -> bytes:
    copy = json.loads(json.dumps(fields))
    inner = at(copy, path[:-1])
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(copy).encode()


@pytest.mark.slow
def test_a_manifest_with_any_number_changed_is_refused(folder: Path) -> None:
    """Of all numbers, the ones that serving never reads too: the seal is over everything."""
    path = folder / "manifest.json"
    whole = path.read_bytes()
    fields = json.loads(whole)
    try:
        for place in some_numbers(fields):
            for what, value in mutations(at(fields, place)):
                if value == at(fields, place):
                    continue  # half of nothing
                path.write_bytes(changed(fields, place, value))
                with pytest.raises(BundleError) as refused:
                    read(folder)
                known = {"bundle.manifest", "bundle.manifest_changed", "bundle.schema_version"}
                assert refused.value.code in known, (place, what)
        for text in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
            path.write_bytes(whole.replace(b'"beam_gap": 1.0', b'"beam_gap": ' + text))
            with pytest.raises(BundleError) as refused:
                read(folder)
            assert refused.value.code == "bundle.manifest", text
        path.write_bytes(json.dumps({**fields, "surprise": 1}).encode())
        assert code_of(folder) == "bundle.manifest"
    finally:
        path.write_bytes(whole)


def read(folder: Path) -> Manifest:
    from isrf.runtime.bundle.manifests import read_manifest

    return read_manifest(folder)


INERT = {
    ("counts", "num_interactions"),  # for people
    ("counts", "num_sessions"),  # for people
    ("fusion", "beam_gap"),  # the generative channel weighs nothing in this release
}
IN_BOUNDS = {
    ("decoding", "num_dense"),  # half of it still finds what the goldens' lists hold
    ("decoding", "interest_length"),  # of ages that weigh next to nothing
    ("dimensions", "codebook_size"),  # of codes that the release does not use
    ("group_search", "background_cosine"),  # near 0, so that half of it moves no score by a thousandth
    ("group_search", "min_neighbours"),  # of users who have enough near ones
    ("group_search", "max_neighbours"),  # of users who have fewer
}
"""What some mutation changes without an effect in this release; a sign, nothing and what is no number are refused."""
DECIDES = ("counts", "dimensions", "decoding", "group_search", "fusion")


def test_a_number_that_decides_what_is_served_is_refused_or_caught_though_the_seal_is_right(trained: Path) -> None:
    """Whoever edits the manifest and seals it again: the list that is served is a golden, too."""
    path = trained / "manifest.json"
    whole = path.read_bytes()
    fields = json.loads(whole)
    assert fields["fusion"]["weights"]["generative"] == 0
    inert = {*INERT, ("fusion", "weights", "generative")}
    found: dict[tuple[tuple[Any, ...], str], str] = {}
    try:
        for place in numbers_of({name: fields[name] for name in DECIDES}):
            value = at(fields, place)
            for what, other in mutations(value):
                again = json.loads(changed(fields, place, other))
                again["goldens"]["made_from"] = made_from(again)
                again["release_id"] = release_id_of(again)
                again["sha256"] = seal_of(again)
                path.write_bytes(json.dumps(again).encode())
                found[place, what] = code_of(trained)
    finally:
        path.write_bytes(whole)
    opened = {(place, what) for (place, what), code in found.items() if code == "opens"}
    assert {place for place, _ in opened} <= inert | IN_BOUNDS, opened
    try:
        for place, what in opened:
            (other,) = (other for name, other in mutations(at(fields, place)) if name == what)
            if other == at(fields, place):
                continue  # half of nothing
            path.write_bytes(changed(fields, place, other))
            change_manifest(trained, lambda _: None, bound=False)
            assert code_of(trained) == "bundle.golden_mismatch", (place, what)
    finally:
        path.write_bytes(whole)


@pytest.mark.trained
def test_one_fusion_weights_flipped_sign_opens_nowhere(folder: Path, tmp_path: Path) -> None:
    def flip(manifest: dict[str, Any]) -> None:
        manifest["fusion"]["weights"]["dense"] *= -1

    for sealed, code in ((False, "bundle.manifest"), (True, "bundle.manifest")):
        broken = tmp_path / str(sealed)
        shutil.copytree(folder, broken)
        change_manifest(broken, flip, sealed=sealed)
        for opened in (open_release, open_offline):
            with pytest.raises(BundleError) as refused:
                opened(broken)
            assert refused.value.code == code


@pytest.mark.parametrize("variant", ["int8", "fp16"])
def test_other_weights_are_caught_in_every_form_of_the_search(folder: Path, tmp_path: Path, variant: Any) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "release"))

    def swap(manifest: dict[str, Any]) -> None:
        weights = manifest["fusion"]["weights"]
        weights["dense"], weights["group"] = weights["group"], weights["dense"]

    change_manifest(broken, swap)
    with pytest.raises(BundleError) as refused:
        open_release(broken, variant)
    assert refused.value.code == "bundle.golden_mismatch"


def test_the_id_is_the_hash_that_it_is_documented_as(folder: Path, tmp_path: Path) -> None:
    """Written out: the manifest without id, seal and moments, as JSON with sorted keys and no spaces."""
    fields = json.loads((folder / "manifest.json").read_text())
    counted = {k: v for k, v in fields.items() if k not in {"release_id", "sha256", "created_at", "learned_until"}}
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    assert fields["release_id"] == "r-" + hashlib.sha256(text.encode()).hexdigest()[:12]
    del fields["sha256"]
    whole = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert read(folder).sha256 == hashlib.sha256(whole.encode()).hexdigest()
    broken = Path(shutil.copytree(folder, tmp_path / "release"))

    def rename(manifest: dict[str, Any]) -> None:
        manifest["release_id"] = "r-000000000000"
        manifest["sha256"] = seal_of(manifest)

    change_manifest(broken, rename, sealed=False)
    assert code_of(broken) == "bundle.release_id"


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def write_sealed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    seal(path.parent)


@pytest.mark.trained
def test_the_offline_job_refuses_what_the_service_refuses(folder: Path, tmp_path: Path) -> None:
    damages: list[tuple[Callable[[Path], object], str]] = [
        (lambda release: (release / "items.jsonl").unlink(), "bundle.missing_file"),
        (lambda release: (release / "more").touch(), "bundle.unlisted_file"),
        (lambda release: make_pipe(release / "items.jsonl"), "bundle.not_a_file"),
        (lambda release: make_pipe(release / "manifest.json"), "bundle.not_a_file"),
        (lambda release: write_sealed(release / "recommender.onnx", b"x"), "bundle.graph_unreadable"),
        (lambda release: write_sealed(release / "items.jsonl", b"x"), "bundle.items"),
        (lambda release: write_sealed(release / "golden.jsonl", b"\xff"), "bundle.golden"),
    ]
    for number, (damage, code) in enumerate(damages):
        release = Path(shutil.copytree(folder, tmp_path / str(number)))
        damage(release)
        began = time.monotonic()
        with pytest.raises(BundleError) as refused:
            open_offline(release)
        assert (refused.value.code, time.monotonic() - began < 30) == (code, True)


@pytest.mark.parametrize("schema", OLDER_RELEASES)
def test_a_release_of_a_schema_before_answers_as_the_one_of_today(tiny_release: Path, schema: int) -> None:
    """Its search graph passes over all items; opening it replays its golden requests."""
    today, older = (open_release(folder) for folder in (tiny_release, OLDER_RELEASES[schema]))
    assert older.manifest.schema_version == schema < today.manifest.schema_version
    allowed = today.catalogue.allowed()
    allowed[::3] = False
    request = RankingRequest(history=[3, 8, 20], n=10, allowed=allowed)
    found = [one.recommender.search([request], one.recommender.read([request.history], [-1])) for one in (today, older)]
    assert found[0].dense[0].items.tolist() == found[1].dense[0].items.tolist()
    np.testing.assert_array_equal(found[0].beam_items, found[1].beam_items)
    assert allowed[found[1].beam_items].all()


@pytest.mark.trained
def test_a_release_of_schema_2_is_opened(tmp_path: Path) -> None:
    """Its manifest had no seal, its goldens no list, its id was another hash."""
    older = Path(shutil.copytree(OLDER_RELEASES[3] / "current", tmp_path / "release"))
    goldens = [json.loads(line) for line in (older / "golden.jsonl").read_text().splitlines()]
    old = [{k: v for k, v in one.items() if not k.startswith("list_")} for one in goldens if one["history"]]
    (older / "golden.jsonl").write_text("".join(json.dumps(one) + "\n" for one in old))
    seal(older)
    (older / "golden_items.jsonl").unlink()

    def back(manifest: dict[str, Any]) -> None:
        manifest |= {"schema_version": 2, "release_id": "r-058ac8496e39"}
        del manifest["sha256"], manifest["goldens"], manifest["files"]["golden_items.jsonl"]
        for variant in manifest["variants"].values():
            del variant["tolerance"]["list_score"], variant["tolerance"]["list_missing"]

    change_manifest(older, back, sealed=False)
    for variant in ("fp32", "int8", "fp16"):
        assert open_release(older, variant).manifest.sha256 is None
    assert open_offline(older).release_id == "r-058ac8496e39"
