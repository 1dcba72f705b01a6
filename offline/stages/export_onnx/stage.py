"""The stage `compile`: exports the trained model as two ONNX graphs and the tables that they read.

`recommender.onnx` is `isrf.nn.search.ConstrainedSearch`. `lightgcn.onnx` is `isrf.method.interest.read_history` with
its tables inside. docs/concepts/bundle.md has the names and shapes. Exporting twice gives the same bytes.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from isrf.contract.manifest import INTEREST_GRAPH_FILE, SEARCH_GRAPH_FILE, SEARCH_GRAPHS
from isrf.method.interest import InterestTables
from isrf.method.trie import TrieTables, build_trie
from isrf.nn.fused import DOMAIN
from isrf.nn.search import ConstrainedSearch, SearchTensors
from isrf.runtime.onnx_tables import aligned_tables
from offline.config import variants_of
from offline.context import StageContext
from offline.stages.export_onnx.fp16 import halved
from offline.stages.export_onnx.int8 import quantised
from offline.stages.export_onnx.item_hnsw import index_items
from offline.stages.train.build import load_model
from offline.stages.train.stage import load_interests

VERSION = 12
OPSET = 17

_SEARCH_AXES = {
    "history": {0: "B", 1: "S"},
    "history_mask": {0: "B", 1: "S"},
    "explicit": {0: "B"},
    "group": {0: "B"},
    "task": {0: "B"},
    "item_inputs": {0: "N"},
    "open_nodes": {0: "B", 1: "M"},
    "trie_code": {0: "M"},
    "trie_child_start": {0: "M_plus_1"},
    "trie_leaf_start": {0: "M"},
    "trie_leaf_stop": {0: "M"},
    # Not N: items added since the release have rows but no leaves.
    "leaf_items": {0: "N_leaves"},
    "node_vectors": {0: "M"},
    **{name: {0: "B"} for name in SearchTensors._fields},
}
_INTEREST_AXES = {
    "history": {0: "B", 1: "H"},
    "history_mask": {0: "B", 1: "H"},
    "explicit": {0: "B"},
    "feature": {0: "B"},
}


class InterestReader(nn.Module):
    """`isrf.method.interest.read_history` as a torch module; a test checks that both agree."""

    item_text: Tensor
    item_layers: Tensor
    feature_map: Tensor
    weights: Tensor

    def __init__(self, tables: InterestTables, *, interest_length: int) -> None:
        super().__init__()
        self.text_share = tables.text_share
        for name in ("item_text", "item_layers", "feature_map"):
            self.register_buffer(name, torch.from_numpy(getattr(tables, name)))
        ages = np.arange(interest_length, dtype=np.float32)
        self.register_buffer("weights", torch.from_numpy(np.float32(tables.recency) ** ages))

    def forward(self, history: Tensor, history_mask: Tensor) -> tuple[Tensor, Tensor]:
        """history (B, H) int64, history_mask (B, H) bool → explicit (B, E), feature (B, F)."""
        weights = (history_mask.to(torch.float32) * self.weights[: history.shape[1]])[:, None]  # (B, 1, H)
        explicit = _unit_rows((weights @ self.item_layers[history])[:, 0])
        semantic = _unit_rows((weights @ self.item_text[history])[:, 0] @ self.feature_map)
        parts = [self.text_share**0.5 * semantic, (1.0 - self.text_share) ** 0.5 * explicit]
        return explicit, _unit_rows(torch.cat(parts, dim=1))


def run(ctx: StageContext) -> None:
    """Runs the stage: writes both graphs, `.npy` files of item inputs, item and node vectors, and new-item arrays.

    Of a large catalogue also the items' cells.
    """
    config = ctx.config
    model = load_model(ctx.inputs)
    trie = build_trie(np.load(ctx.inputs["semantic-ids"] / "semantic_ids.npy"), config.semantic_ids.codebook_size)
    search = ConstrainedSearch(model, num_beams=config.search.num_beams)
    export_search(search, trie, ctx.out / SEARCH_GRAPH_FILE)
    converters = {"int8": quantised, "fp16": halved}
    for name in variants_of(config.search):
        exact = onnx.load_model(os.fspath(ctx.out / SEARCH_GRAPH_FILE))
        onnx.save_model(converters[name](exact), os.fspath(ctx.out / SEARCH_GRAPHS[name]))
    interests = load_interests(ctx)
    reader = InterestReader(interests.tables, interest_length=config.model.interest_length)
    export_interest(reader, ctx.out / INTEREST_GRAPH_FILE)
    np.save(ctx.out / "item_inputs.npy", model.item_inputs().numpy())
    np.save(ctx.out / "item_vectors.npy", model.item_vectors().numpy())
    np.save(ctx.out / "node_vectors.npy", search.node_vectors(trie).numpy())
    np.save(ctx.out / "code_vectors.npy", model.code_vectors().detach().numpy())
    np.save(ctx.out / "text_adapter.npy", model.text_adapter.weight.detach().numpy().T.copy())
    if model.spec.num_items >= config.search.hnsw_from:
        index_items(ctx, model, interests.tables)


def search_inputs(
    search: ConstrainedSearch,
    trie: TrieTables,
    *,
    history: Tensor,
    mask: Tensor,
    explicit: Tensor,
    group: Tensor,
    task: Tensor,
    open_nodes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The search's inputs in the order of `input_names`, with the model's own tables.

    Args:
        open_nodes: (B, M) bool; None: every item is allowed.
    """
    if open_nodes is None:
        open_nodes = torch.ones(len(history), len(trie.trie_code), dtype=torch.bool)
    named = {"history": history, "history_mask": mask, "explicit": explicit, "group": group, "task": task}
    named |= {"open_nodes": open_nodes, **search.tables(trie)}
    return tuple(named[name] for name in search.input_names)


def export_search(search: ConstrainedSearch, trie: TrieTables, path: Path) -> None:
    """Exports the search as one graph; all sizes are dynamic, except those of beams, codes and widths."""
    spec = search.model.spec
    batch, length = 2, min(2, spec.history_length)  # the exporter may treat an axis of size 1 as constant
    example = search_inputs(
        search.eval(),
        trie,
        history=torch.zeros(batch, length, dtype=torch.int64),
        mask=torch.ones(batch, length, dtype=torch.bool),
        explicit=torch.zeros(batch, spec.explicit_dim),
        group=torch.zeros(batch, spec.group_dim),
        task=torch.zeros(batch, dtype=torch.int64),
    )
    _export(search, example, path, search.input_names, search.output_names, _SEARCH_AXES, (DOMAIN,))


def export_interest(reader: InterestReader, path: Path) -> None:
    """Exports `read_history` as a graph."""
    example = (torch.zeros(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.bool))
    _export(reader, example, path, ("history", "history_mask"), ("explicit", "feature"), _INTEREST_AXES)
    # Processes can then read the tables where the file is mapped.
    path.write_bytes(aligned_tables(path.read_bytes()))


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    axes: dict[str, dict[int, str]],
    domains: tuple[str, ...] = (),
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        # The TorchScript exporter is deprecated, but needs a tenth of the new exporter's time and makes smaller graphs.
        for message in ("You are using the legacy TorchScript", "The feature will be removed"):
            warnings.filterwarnings("ignore", message, DeprecationWarning)
        answer = module(*example)
        torch.onnx.export(
            module,
            example,
            os.fspath(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            custom_opsets=dict.fromkeys(domains, 1),
            dynamo=False,
        )
    model = onnx.load_model(os.fspath(path))
    for value, tensor in zip(model.graph.output, answer, strict=True):
        for axis, size in enumerate(tensor.shape):  # the exporter loses fixed sizes after a gather
            if axis not in axes[value.name]:
                value.type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save_model(model, os.fspath(path))


def _unit_rows(rows: Tensor) -> Tensor:
    """Rows scaled to length 1; rows of length 0 stay 0."""
    norms = torch.sqrt((rows * rows).sum(dim=1, keepdim=True))
    return rows / torch.clamp(norms, min=1e-12)
