"""The encoder-decoder: it reads a history item by item and recommends on two paths, generative and dense.

T5's encoder reads one vector per item. The decoder generates semantic IDs; a dense head scores the pooled history
against every item's vector. Both paths use the same encoder pass. It knows no files, no users and no search:
`isrf.nn.search` decodes under the trie, `offline.stages.train.stage` trains it.

Source order: prompts, explicit vector, group vector, items most recent first.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from transformers import T5Config, T5Model
from transformers.models.t5.modeling_t5 import T5LayerNorm

from isrf.nn.siblings import Siblings

SEQUENTIAL, DIRECT = 0, 1
NUM_TASKS = 2

BLOCK_ITEMS = 100_000
"""Items whose parts are computed at once."""
NODE_WIDTH = 64
"""Upper limit of P, the width of the node vectors: every decoding step gathers C of them for each beam."""


class StackSpec(BaseModel):
    """The settings of `T5Config` that encoder and decoder depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_layers: int
    num_decoder_layers: int
    dropout_rate: float
    feed_forward_proj: str = "relu"
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    @classmethod
    def of(cls, config: T5Config) -> "StackSpec":
        """The settings of a T5 configuration, for example of a pretrained model."""
        return cls(**{name: getattr(config, name) for name in cls.model_fields})

    def build(self) -> T5Model:
        """A T5 encoder and decoder with random weights."""
        return T5Model(T5Config(vocab_size=1, eos_token_id=None, **self.model_dump()))


class ModelSpec(BaseModel):
    """Everything that is needed to build the model again, except the item parts and the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_items: int
    text_dim: int
    graph_dim: int
    explicit_dim: int
    group_dim: int
    num_levels: int
    codebook_size: int
    history_length: int
    num_prompts: int
    item_id_dropout: float
    reads_explicit: bool = True
    reads_group: bool = True
    stacks: StackSpec

    @property
    def width(self) -> int:
        """D, the width of the model."""
        return self.stacks.d_model


class ItemParts(NamedTuple):
    """The parts of every item that the earlier stages computed."""

    text: Tensor  # (N, D_t) float32, rows of length 1 or 0
    graph: Tensor  # (N, E) float32 LightGCN embedding, a zero row without training interactions
    semantic_ids: Tensor  # (N, L) int64
    known: Tensor  # (N,) bool: has training interactions, so that its id embedding and graph part are trained


class ItemVectors(NamedTuple):
    """The parts of R items in the model's width; the identity part may be zero (a new item, or dropped in training)."""

    codes: Tensor  # (R, D) mean of the semantic-ID token embeddings
    text: Tensor  # (R, D)
    identity: Tensor  # (R, D) id embedding and LightGCN part


class Encoded(NamedTuple):
    """The result of one encoder pass over B histories."""

    states: Tensor  # (B, S', D), S' = prompts + 2 + S
    mask: Tensor  # (B, S') bool
    query: Tensor  # (B, D) dense-path query, temperature folded in
    individual: Tensor  # (B, D) the sequence's own representation, for the alignment
    group: Tensor  # (B, D) the group vector in the model's width, for the alignment


class Decoded(NamedTuple):
    """The decoder's output at l levels: the logit of a code is its entry in `codes` plus content · its node vector."""

    codes: Tensor  # (B, l, C) logits of every code, independent of the prefix's node
    content: Tensor  # (B, l, P + 1) query that is multiplied with the node vectors (`node_vectors`)


class IsrfModel(nn.Module):
    """T5 encoder and decoder with item-level input, a generative and a dense path."""

    part_text: Tensor
    part_graph: Tensor
    part_semantic_ids: Tensor
    part_known: Tensor
    code_content: Tensor

    def __init__(self, spec: ModelSpec, parts: ItemParts, *, stacks: Any = None) -> None:
        """Random weights, or the `encoder` and `decoder` of a pretrained T5 model `stacks`."""
        super().__init__()
        self.spec = spec
        width = spec.width
        stacks = spec.stacks.build() if stacks is None else stacks
        self.encoder, self.decoder = stacks.encoder, stacks.decoder
        for stack in (self.encoder, self.decoder):
            stack.set_input_embeddings(nn.Identity())  # both get our own input vectors
        self.start_vector = nn.Parameter(torch.randn(width))
        self.codes = nn.Parameter(torch.randn(spec.num_levels, spec.codebook_size, width) * 0.5)
        self.code_adapter = nn.Linear(spec.text_dim + spec.graph_dim, width, bias=False)
        self.code_bias = nn.Parameter(torch.zeros(spec.num_levels, spec.codebook_size))
        self.item_ids = nn.Embedding(spec.num_items, width)
        self.text_adapter = nn.Linear(spec.text_dim, width, bias=False)
        self.graph_adapter = nn.Linear(spec.graph_dim, width, bias=False)
        self.explicit_adapter = nn.Linear(spec.explicit_dim, width, bias=False)
        self.group_adapter = nn.Linear(spec.group_dim, width, bias=False)
        self.prompts = nn.Parameter(torch.randn(NUM_TASKS, spec.num_prompts, width) * 0.5)
        self.ages = nn.Parameter(torch.randn(spec.history_length, width) * 0.1)
        self.pool = nn.Linear(3 * width, width, bias=False)
        self.query_norm = T5LayerNorm(width)
        self.start_adapter = nn.Linear(width, width, bias=False)
        self.node_projection = nn.Parameter(torch.empty(min(width, NODE_WIDTH), width))
        self.node_adapters = nn.Parameter(torch.zeros(spec.num_levels, width, min(width, NODE_WIDTH)))
        self.node_gains = nn.Parameter(torch.ones(spec.num_levels))
        self.size_gains = nn.Parameter(torch.ones(spec.num_levels))
        nn.init.orthogonal_(self.node_projection)
        nn.init.normal_(self.item_ids.weight, std=0.02)
        self.register_buffer("code_content", _code_content(parts, spec.codebook_size), persistent=False)
        for name, part in parts._asdict().items():
            self.register_buffer(f"part_{name}", part, persistent=False)

    def code_vectors(self) -> Tensor:
        """(L, C, D): every code's vector, the sum of its items' adapted content and a learned part.

        With its items' content a code needs far fewer samples than from a random start.
        """
        vectors: Tensor = self.codes + self.code_adapter(self.code_content)
        return vectors

    def embed_codes(self, codes: Tensor, vectors: Tensor) -> Tensor:
        """(R, l, D): the vectors of `codes` (R, l) int64 at the first l levels; `vectors` is `code_vectors()`."""
        offsets = torch.arange(codes.shape[1], device=codes.device) * self.spec.codebook_size
        return nn.functional.embedding(codes + offsets, vectors.flatten(0, 1))

    def items(self, rows: Tensor | None = None) -> ItemVectors:
        """The parts of the items `rows` (R,) int64, or of all."""
        text, graph, codes, known = self.part_text, self.part_graph, self.part_semantic_ids, self.part_known
        ids = self.item_ids.weight
        if rows is not None:
            text, graph, codes, known, ids = text[rows], graph[rows], codes[rows], known[rows], self.item_ids(rows)
        return ItemVectors(
            codes=self.embed_codes(codes, self.code_vectors()).mean(1),
            text=self.text_adapter(text),
            identity=(ids + self.graph_adapter(graph)) * known[:, None],
        )

    def inputs_of(self, items: ItemVectors) -> Tensor:
        """(R, D): the encoder's input for each item; input and output share the item's vector, as in SASRec."""
        inputs: Tensor = float(self.spec.width) ** 0.5 * self.vectors_of(items)
        return inputs

    def vectors_of(self, items: ItemVectors) -> Tensor:
        """(R, D): the item vectors of the dense path.

        They include the codes' embeddings, so that the softmax over all items trains these too. Generation alone learns
        them far more slowly.
        """
        vectors: Tensor = float(self.spec.width) ** -0.5 * items.codes + items.text + items.identity
        return vectors

    @torch.no_grad()
    def item_inputs(self) -> Tensor:
        """(N, D) float32: the bundle's `item_inputs.npy`."""
        return torch.cat([self.inputs_of(items) for items in self._blocks_of_items()])

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """(N, D) float32: the bundle's `item_vectors.npy`."""
        return torch.cat([self.vectors_of(items) for items in self._blocks_of_items()])

    def _blocks_of_items(self) -> Iterator[ItemVectors]:
        """The parts of all items; of a large catalogue in blocks, as they are several times as large as the vectors."""
        if self.spec.num_items <= BLOCK_ITEMS:
            yield self.items()
            return
        for first in range(0, self.spec.num_items, BLOCK_ITEMS):
            last = min(first + BLOCK_ITEMS, self.spec.num_items)
            yield self.items(torch.arange(first, last, device=self.part_text.device))

    def draw_identity(self, items: ItemVectors, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws which items keep their identity part in this batch: 1 or 0, (*shape, 1)."""
        mask = torch.rand((*shape, 1), generator=generator) >= self.spec.item_id_dropout
        return mask.to(items.identity)

    def source(
        self, item_inputs: Tensor, mask: Tensor, explicit: Tensor, group: Tensor, task: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The encoder's input and its mask.

        Args:
            item_inputs: (B, S, D) the history's items, most recent first.
            mask: (B, S) bool.
            explicit: (B, E) float32.
            group: (B, G) float32.
            task: (B,) int64, `SEQUENTIAL` or `DIRECT`.

        Returns:
            (B, S', D) float32 and (B, S') bool, S' = prompts + 2 + S.
        """
        interests = torch.stack([self.read_explicit(explicit), self.read_group(group)], dim=1)
        aged = item_inputs + self.ages[: item_inputs.shape[1]]
        always = torch.ones_like(task[:, None].expand(-1, self.spec.num_prompts + 2), dtype=torch.bool)
        return torch.cat([self.prompts[task], interests, aged], dim=1), torch.cat([always, mask], dim=1)

    def read_explicit(self, explicit: Tensor) -> Tensor:
        """The explicit vector in the model's width, (B, E) → (B, D); zeros where `reads_explicit` is False."""
        read: Tensor = self.explicit_adapter(explicit)
        return read if self.spec.reads_explicit else read * 0.0

    def read_group(self, group: Tensor) -> Tensor:
        """The group vector in the model's width, (B, G) → (B, D); zeros where `reads_group` is False."""
        read: Tensor = self.group_adapter(group)
        return read if self.spec.reads_group else read * 0.0

    def query(self, states: Tensor, mask: Tensor) -> Tensor:
        """The dense path's query (B, D) from the encoder's states (B, S', D) and the history's mask (B, S) bool."""
        items, present = states[:, self.spec.num_prompts + 2 :], mask.to(states.dtype)
        # A product, not a sum: ONNX Runtime sums the rows of a single request in another order than those of a batch.
        mean = (present[:, None] @ items)[:, 0] / present.sum(1, keepdim=True).clamp(min=1)
        prompt = states[:, self.spec.num_prompts - 1]
        pooled: Tensor = self.query_norm(self.pool(torch.cat([prompt, items[:, 0] * present[:, :1], mean], dim=1)))
        return pooled

    def encode(self, item_inputs: Tensor, mask: Tensor, explicit: Tensor, group: Tensor, task: Tensor) -> Encoded:
        """Runs the encoder once; the arguments are those of `source`."""
        source, source_mask = self.source(item_inputs, mask, explicit, group, task)
        states = self.encoder(inputs_embeds=source, attention_mask=source_mask).last_hidden_state
        history = states[:, self.spec.num_prompts + 2 :] * mask[:, :, None].to(states.dtype)
        return Encoded(
            states=states,
            mask=source_mask,
            query=self.query(states, mask),
            individual=history.sum(1) / mask.sum(1, keepdim=True).clamp(min=1),
            group=self.read_group(group),
        )

    def decode(self, encoded: Encoded, codes: Tensor) -> Decoded:
        """The decoder's output at each level of the semantic IDs `codes` (B, L) int64, with teacher forcing."""
        vectors = self.code_vectors()
        states = self.decoder(
            inputs_embeds=torch.cat([self.start(encoded.query), self.embed_codes(codes[:, :-1], vectors)], dim=1),
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=encoded.mask,
            use_cache=False,
        ).last_hidden_state
        levels = range(codes.shape[1])
        logits = [self.code_logits(states[:, at], vectors[at], level=at) for at in levels]
        content = [self.content_query(encoded.query, states[:, at], level=at) for at in levels]
        return Decoded(torch.stack(logits, dim=1), torch.stack(content, dim=1))

    def node_vectors(self, siblings: Siblings, item_vectors: Tensor) -> Tensor:
        """(M, P + 1): a summary of the items below each node, for the decoder.

        It is the projected mean of the items' dense vectors (N, D), and the log of their number. A code's embedding is
        the same after every prefix; with the node's vector the decoder knows which items the code leads to.
        """
        below = siblings.means(item_vectors @ self.node_projection.transpose(0, 1))
        return torch.cat([below, siblings.leaf_counts().log()[:, None]], dim=1)

    def content_query(self, query: Tensor, states: Tensor, *, level: int) -> Tensor:
        """(…, P + 1): the query that is multiplied with `node_vectors` at one level.

        At the start of training it is the dense path's query, so that decoding walks towards the dense path's best
        items; training adds the influence of the prefix. query (…, D), states (…, D).
        """
        node_query = query @ self.node_projection.transpose(0, 1) * self.node_gains[level]
        node_query = node_query + states @ self.node_adapters[level]
        size = (node_query[..., :1] * 0 + self.size_gains[level]).expand(*node_query.shape[:-1], 1)
        return torch.cat([node_query, size], dim=-1)

    def start(self, query: Tensor) -> Tensor:
        """(B, 1, D): the decoder's first input, a learned vector plus the adapted dense query (B, D)."""
        started: Tensor = self.start_vector + self.start_adapter(query)
        return started[:, None]

    def code_logits(self, states: Tensor, heads: Tensor, *, level: int) -> Tensor:
        """Logits (…, C) of one level's codes from the decoder's states (…, D); `heads` (C, D): the codes' vectors."""
        logits: Tensor = states @ heads.transpose(0, 1) * float(self.spec.width) ** -0.5 + self.code_bias[level]
        return logits


def _code_content(parts: ItemParts, codebook_size: int) -> Tensor:
    """(L, C, D_t + E): the mean of each code's items, minus the earlier levels' means; each level scaled alike."""
    residual = torch.cat([parts.text, parts.graph], dim=1)
    residual = residual - residual.mean(0)
    levels = []
    for codes in parts.semantic_ids.T:
        sums = torch.zeros(codebook_size, residual.shape[1]).index_add_(0, codes, residual)
        means = sums / torch.bincount(codes, minlength=codebook_size).clamp(min=1)[:, None]
        residual = residual - means[codes]
        scale = means.square().sum(1).mean().sqrt().clamp(min=1e-6)
        levels.append(means / scale * means.shape[1] ** 0.5)
    return torch.stack(levels)
