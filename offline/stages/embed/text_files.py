"""Writes and reads the torch-free text encoder in the format of a bundle's `text_encoder/` folder."""

import json
from pathlib import Path

import numpy as np

from isrf.method.text.encoder import ARRAY_FILES, CONFIG_FILE, VOCABULARY_FILE, TextEncoder, check_text_encoder


def write_text_encoder(folder: Path, encoder: TextEncoder) -> None:
    """Creates `folder` and writes the encoder into it."""
    folder.mkdir(parents=True)
    terms = sorted(encoder.vocabulary, key=lambda term: encoder.vocabulary[term])
    (folder / VOCABULARY_FILE).write_text(json.dumps(terms, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CONFIG_FILE).write_text(encoder.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for name, array in zip(ARRAY_FILES, (encoder.idf, encoder.components, encoder.mean), strict=True):
        np.save(folder / name, np.ascontiguousarray(array))


def read_text_encoder(folder: Path) -> TextEncoder:
    """The encoder in `folder`; raises `BundleError` where its parts do not fit together."""
    return check_text_encoder(
        json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")),
        json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8")),
        {name: np.load(folder / name, allow_pickle=False) for name in ARRAY_FILES},
    )
