"""How a release reads a new item's text, from the outputs of the stages that make it."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from isrf.contract.manifest import ITEM_READER_DIR, TEXT_ENCODER_DIR, ItemReaderSpec
from isrf.method.goldens.items import TextReading
from isrf.method.item_reader import ItemReader
from isrf.method.text.encoder import ARRAY_FILES, CONFIG_FILE, VOCABULARY_FILE, check_text_encoder
from offline.config import RunConfig

ITEM_READER_FROM = {"codebooks": "semantic-ids", "code_vectors": "compile", "text_adapter": "compile"}
"""Arrays of the item reader, and the stages that make them; `item_text` comes from `embed` in half precision."""


def item_reader_spec(inputs: Mapping[str, Path], config: RunConfig) -> ItemReaderSpec:
    """How a new item gets its codes; `inputs` holds the output folders by stage name."""
    report = json.loads((inputs["semantic-ids"] / "report.json").read_text())
    return ItemReaderSpec(
        text_share=config.semantic_ids.text_share,
        codes_trained=tuple(level["codes_trained"] for level in report["levels"]),
    )


def text_reading(inputs: Mapping[str, Path], config: RunConfig) -> TextReading | None:
    """The encoder and the item reader; None where the encoder knows no word."""
    folder = inputs["embed"] / TEXT_ENCODER_DIR
    settings, vocabulary = (json.loads((folder / name).read_text("utf-8")) for name in (CONFIG_FILE, VOCABULARY_FILE))
    encoder = check_text_encoder(settings, vocabulary, {name: np.load(folder / name) for name in ARRAY_FILES})
    if not encoder.vocabulary:
        return None
    arrays = {
        "item_vectors.npy": np.load(inputs["compile"] / "item_vectors.npy"),
        "semantic_ids.npy": np.load(inputs["semantic-ids"] / "semantic_ids.npy"),
        "item_embeddings.npy": np.load(inputs["graph"] / "item_embeddings.npy"),
        f"{ITEM_READER_DIR}/item_text.npy": np.load(inputs["embed"] / "item_text.npy").astype(np.float16),
        **{
            f"{ITEM_READER_DIR}/{name}.npy": np.load(inputs[stage] / f"{name}.npy")
            for name, stage in ITEM_READER_FROM.items()
        },
    }
    return TextReading(encoder, ItemReader.of(item_reader_spec(inputs, config), arrays))
