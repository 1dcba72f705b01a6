"""What a release reads new items with gives its own cold items as they stand in it."""

from pathlib import Path

import numpy as np

from isrf.method.item_reader import ItemReader
from isrf.runtime.bundle.manifests import read_manifest

ROUNDING = 0.01
"""`item_text.npy` is float16."""


def test_an_item_without_buyers_is_read_as_the_release_has_it(demo_release: Path) -> None:
    folder = demo_release / "current"
    manifest = read_manifest(folder)
    names = [name for name in manifest.files if name.startswith("item_reader/")]
    assert manifest.item_reader is not None
    names += ["item_vectors.npy", "semantic_ids.npy", "item_embeddings.npy"]
    reader = ItemReader.of(manifest.item_reader, {name: np.load(folder / name) for name in names})
    vectors, ids = reader.item_vectors, reader.semantic_ids.astype(np.int64)
    cold = np.flatnonzero(~reader.trained)
    assert len(cold) > 3
    text = reader.item_text.astype(np.float32)[cold]
    lengths = np.linalg.norm(vectors[cold], axis=1)
    found = reader.vectors(ids[cold], text)
    assert (np.linalg.norm(found - vectors[cold], axis=1) < ROUNDING * lengths).all()
    # A place may have been taken, and then the next one: on the first levels there is room for everybody.
    assert (reader.codes(text)[:, 0] == ids[cold, 0]).mean() > 0.9
    warm = np.setdiff1d(np.arange(len(vectors)), cold)
    far = np.linalg.norm(reader.vectors(ids[warm], reader.item_text.astype(np.float32)[warm]) - vectors[warm], axis=1)
    assert (far > ROUNDING * np.linalg.norm(vectors[warm], axis=1)).all(), "those with buyers have an identity beside"
