"""The release that stands in the repository is a true one, small, and says nothing of the machine that made it."""

import json
import re
from pathlib import Path

import pytest

from isrf.contract.manifest import VariantName
from service.release.opening import open_release
from tests.conftest import TINY_RELEASES


@pytest.mark.parametrize("variant", ["fp32", "int8", "fp16"])
def test_it_opens_as_any_release_does(variant: VariantName) -> None:
    release = open_release(TINY_RELEASES, variant)
    assert len(release.catalogue) == release.manifest.counts.num_items > 100


def test_it_is_well_under_a_megabyte() -> None:
    assert sum(path.stat().st_size for path in TINY_RELEASES.rglob("*") if path.is_file()) < 800_000


def test_its_texts_name_no_folder() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in TINY_RELEASES.glob("r-*/**/*.json*")}
    assert {"manifest.json", "golden.jsonl", "items.jsonl", "config.json"} <= texts.keys()
    assert not [name for name, text in texts.items() if re.search(r'"(/|[A-Za-z]:\\\\)', text)]


@pytest.mark.trained
def test_the_command_makes_what_stands_there(tmp_path: Path) -> None:
    """On another machine the trained numbers may differ in their last bits, so sizes and settings are compared."""
    from tests.tiny_bundle.make import make

    made, stands = (json.loads((one / "manifest.json").read_text()) for one in (make(tmp_path / "releases"), current()))
    same = ("schema_version", "created_at", "learned_until", "config", "counts", "dimensions", "decoding", "graphs")
    assert {name: made[name] for name in same} == {name: stands[name] for name in same}
    assert made["files"].keys() == stands["files"].keys()
    assert made["data_fingerprint"] == stands["data_fingerprint"]


def current() -> Path:
    return TINY_RELEASES / "current"
