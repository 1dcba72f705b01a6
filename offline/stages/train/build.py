"""Builds the model from the configuration and earlier stages' outputs, and loads the trained model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

from isrf.contract.errors import ConfigError
from isrf.nn.model import IsrfModel, ItemParts, ModelSpec, StackSpec
from offline.config import RunConfig

WEIGHTS_FILE = "model.safetensors"
SPEC_FILE = "model.json"
UNTRAINED_TEXT = 4.0
"""Length of a text in an untrained model's item vectors; the codes' random part has a length of about 0.25."""


def load_parts(inputs: Mapping[str, Path]) -> ItemParts:
    """The parts of every item, from the stages embed, graph and semantic-ids."""
    graph = np.load(inputs["graph"] / "item_embeddings.npy")
    return ItemParts(
        text=torch.from_numpy(np.load(inputs["embed"] / "item_text.npy")),
        graph=torch.from_numpy(graph),
        semantic_ids=torch.from_numpy(np.load(inputs["semantic-ids"] / "semantic_ids.npy").astype(np.int64)),
        # The graph stage leaves a zero row exactly where an item has no training interaction.
        known=torch.from_numpy(np.any(graph != 0, axis=1)),
    )


def new_model(config: RunConfig, parts: ItemParts, *, explicit_dim: int, group_dim: int) -> IsrfModel:
    """A model with new weights; encoder and decoder come from `model.backbone` if it is set."""
    model = config.model
    stacks = None if model.backbone is None else _pretrained(model.backbone)
    spec = ModelSpec(
        num_items=len(parts.text),
        text_dim=parts.text.shape[1],
        graph_dim=parts.graph.shape[1],
        explicit_dim=explicit_dim,
        group_dim=group_dim,
        num_levels=parts.semantic_ids.shape[1],
        codebook_size=config.semantic_ids.codebook_size,
        history_length=model.history_length,
        num_prompts=model.num_prompts,
        item_id_dropout=model.item_id_dropout,
        reads_explicit=model.explicit_vector,
        reads_group=model.group_vector,
        stacks=_stack_spec(config) if stacks is None else StackSpec.of(stacks.config),
    )
    return IsrfModel(spec, parts, stacks=stacks)


@torch.no_grad()
def untrained_model(config: RunConfig, parts: ItemParts, *, explicit_dim: int, group_dim: int) -> IsrfModel:
    """A model of a shop that has too little to train one: its item vectors say whose texts are alike, and little else.

    The text's directions of largest variance become the width's; so similar items, and new ones, are found by text.
    """
    model = new_model(config, parts, explicit_dim=explicit_dim, group_dim=group_dim)
    directions = torch.linalg.svd(parts.text, full_matrices=False).Vh[: model.spec.width]
    for weight in (model.text_adapter.weight, model.graph_adapter.weight, model.item_ids.weight):
        weight.zero_()
    model.text_adapter.weight[: len(directions)] = UNTRAINED_TEXT * directions
    return model


def load_model(inputs: Mapping[str, Path]) -> IsrfModel:
    """The trained model, in inference mode; `inputs` are the stages' output folders by name."""
    folder = inputs["train"]
    model = IsrfModel(ModelSpec.model_validate_json((folder / SPEC_FILE).read_bytes()), load_parts(inputs))
    model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return model.eval()


def _stack_spec(config: RunConfig) -> StackSpec:
    model = config.model
    if model.width % model.num_heads:
        raise ConfigError(
            "config.heads",
            f"a width of {model.width} cannot be divided among {model.num_heads} heads.",
            fix="Set model.width to a multiple of model.num_heads.",
        )
    return StackSpec(
        d_model=model.width,
        d_kv=model.width // model.num_heads,
        d_ff=model.ff_width,
        num_heads=model.num_heads,
        num_layers=model.num_encoder_layers,
        num_decoder_layers=model.num_decoder_layers,
        dropout_rate=model.dropout,
    )


def _pretrained(name: str) -> Any:
    try:
        return T5ForConditionalGeneration.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "config.backbone",
            f"no T5 model can be loaded from {name!r}: {str(error).splitlines()[0]}",
            fix="Name a T5 model of the hub, or a directory that save_pretrained wrote; without --backbone, "
            "training starts from random weights.",
        ) from error
