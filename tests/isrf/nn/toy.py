"""Small random models, catalogues and requests, shared by the tests of this package."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isrf.method.recommend.item_masks import ItemMasks
from isrf.method.trie import TrieTables, build_trie
from isrf.nn.model import IsrfModel, ItemParts, ModelSpec, StackSpec
from isrf.nn.search import ConstrainedSearch

TEXT_DIM, GRAPH_DIM, GROUP_DIM = 6, 5, 3
EXPLICIT_DIM = GRAPH_DIM  # the explicit vector is scored against the item embeddings


def random_ids(num_items: int, levels: int, codebook_size: int, *, seed: int = 0) -> NDArray[np.int32]:
    """Distinct semantic IDs, (N, L) int32."""
    keys = np.random.default_rng(seed).choice(codebook_size**levels, num_items, replace=False)
    columns = [(keys // codebook_size**place) % codebook_size for place in reversed(range(levels))]
    return np.stack(columns, axis=1).astype(np.int32)


def make_model(
    semantic_ids: NDArray[np.int32],
    codebook_size: int,
    *,
    seed: int = 0,
    num_layers: int = 2,
    history_length: int = 6,
    item_id_dropout: float = 0.1,
    feed_forward_proj: str = "relu",
) -> IsrfModel:
    """A model with random weights, in inference mode; the last item is cold."""
    torch.manual_seed(seed)
    num_items, levels = semantic_ids.shape
    known = torch.arange(num_items) < num_items - 1
    graph = torch.randn(num_items, GRAPH_DIM) * known[:, None]
    spec = ModelSpec(
        num_items=num_items,
        text_dim=TEXT_DIM,
        graph_dim=GRAPH_DIM,
        explicit_dim=EXPLICIT_DIM,
        group_dim=GROUP_DIM,
        num_levels=levels,
        codebook_size=codebook_size,
        history_length=history_length,
        num_prompts=3,
        item_id_dropout=item_id_dropout,
        stacks=StackSpec(
            d_model=16,
            d_kv=4,
            d_ff=24,
            num_heads=4,
            num_layers=2,
            num_decoder_layers=num_layers,
            dropout_rate=0.1,
            feed_forward_proj=feed_forward_proj,
        ),
    )
    parts = ItemParts(torch.randn(num_items, TEXT_DIM), graph, torch.from_numpy(semantic_ids.astype(np.int64)), known)
    model = IsrfModel(spec, parts).eval()
    with torch.no_grad():
        model.code_bias.normal_()
        model.node_adapters.normal_()
        model.size_gains.normal_()
        model.item_ids.weight.normal_()
    return model


def make_request(model: IsrfModel, batch: int, *, seed: int = 0, length: int | None = None) -> dict[str, Tensor]:
    """Random histories of different lengths with random interests."""
    generator = torch.Generator().manual_seed(seed)
    length = model.spec.history_length if length is None else length
    lengths = torch.randint(1, length + 1, (batch, 1), generator=generator)
    mask = torch.arange(length)[None] < lengths
    history = torch.randint(0, model.spec.num_items, (batch, length), generator=generator)
    return {
        "history": torch.where(mask, history, 0),
        "mask": mask,
        "explicit": torch.randn(batch, EXPLICIT_DIM, generator=generator),
        "group": torch.randn(batch, GROUP_DIM, generator=generator),
        "task": torch.randint(0, 2, (batch,), generator=generator),
    }


def search_inputs(search: ConstrainedSearch, semantic_ids: NDArray[np.int32], **request: Tensor) -> tuple[Tensor, ...]:
    """A request and the model's own tables, in the order of the search's inputs; `allowed` (B, N) defaults to all."""
    model = search.model
    trie = build_trie(semantic_ids, model.spec.codebook_size)
    everything = torch.ones(len(request["history"]), model.spec.num_items, dtype=torch.bool)
    open_nodes = open_nodes_of(trie, request.get("allowed", everything).numpy())
    named = {**request, "history_mask": request["mask"], "open_nodes": torch.from_numpy(open_nodes)}
    named |= search.tables(trie)
    return tuple(named[name] for name in search.input_names)


def open_nodes_of(trie: TrieTables, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(B, M): whether an item of each row of `allowed` (B, N) lies below each node."""
    return np.stack([ItemMasks(trie).find(row).open_nodes for row in allowed])
