"""The whole answer of the two learned paths in one graph: encoder, constrained beam search, dense top.

`ConstrainedSearch.forward` takes and gives exactly what `recommender.onnx` does (ARCHITECTURE.md, "The graphs"), and
is the torch model's own answer as well: one search, exported, not rewritten. `allowed` is carried up to the prefixes
before decoding (a cumulative sum over the leaves), so a beam is only ever extended towards an allowed item:
min(K, allowed items) beams are alive at the end. A beam below which one item is left has nothing to choose any more,
whatever the decoder would say: from the third level on the decoder reads only the others.

Ties go to the lower leaf in the beams and to the lower item row on the dense path.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isrf.nn.model import Decoded, IsrfModel
from isrf.nn.siblings import Siblings
from isrf.nn.stacks import MASKED, DecoderStack, EncoderStack, Memory, relative_buckets, source_bias
from isrf.trie import TrieTables

INPUT_NAMES = (
    "history",
    "history_mask",
    "explicit",
    "group",
    "task",
    "allowed",
    "item_inputs",
    "item_vectors",
    "item_embeddings",
    "item_known",
    "trie_code",
    "trie_child_start",
    "trie_leaf_start",
    "trie_leaf_stop",
    "leaf_items",
    "trie_places",
    "node_vectors",
)


class SearchOutput(NamedTuple):
    """The graph's outputs, in its order."""

    beam_items: Tensor  # (B, K) int64, best first, −1 where a beam is dead
    beam_log_probs: Tensor  # (B, K) float32, −inf where a beam is dead
    dense_items: Tensor  # (B, M_d) int64, best first, −1 where nothing more is allowed
    dense_log_probs: Tensor  # (B, M_d) float32
    query: Tensor  # (B, D) float32
    log_partition: Tensor  # (B,) float32
    explicit_items: Tensor  # (B, M_d) int64, best first by explicit · embedding, −1 where nothing more is allowed
    explicit_log_partition: Tensor  # (B,) float32


class Trie(NamedTuple):
    """The trie tables as tensors (`isrf.trie.TrieTables`) with what is allowed below every leaf boundary."""

    code: Tensor  # (M,) int64
    child_start: Tensor  # (M + 1,)
    leaf_start: Tensor  # (M,)
    leaf_stop: Tensor  # (M,)
    leaf_items: Tensor  # (N,)
    places: Tensor  # (L,) the most children that a node of each depth has
    vectors: Tensor  # (M, P + 1) what lies below each node (`IsrfModel.node_vectors`)
    allowed_before: Tensor  # (B, N + 1) int32: allowed leaves before each leaf


class _Beams(NamedTuple):
    """K beams of one level, in order of their nodes."""

    nodes: Tensor  # (B, K) int64
    scores: Tensor  # (B, K) float32, −inf where dead
    codes: Tensor  # (B, K) int64 on the edge into each: what the decoder reads next
    parents: Tensor  # (B, K) int64 the row of the decoder's last step that each comes from


class _Reading(NamedTuple):
    """The W of a request's K beams that the decoder reads at one level."""

    codes: Tensor  # (B, W) int64
    parents: Tensor  # (B, W) int64
    rows: Tensor  # (B, K) int64 where each beam is among the B · W; any row where it is not read


UNDECIDED_FROM = 2
"""The first level at which beams may be left out; before it nearly every prefix has several items below."""
LEAST_READ = 2
"""A product of one row alone may run in another kernel, whose sums differ in their last bits."""


class ConstrainedSearch(nn.Module):
    """`model`, asked for its `num_beams` best generated and its `num_dense` best dense items.

    Codes' vectors and joined matrices are made with it: make another one when the weights have changed.
    """

    encoder_buckets: Tensor
    decoder_buckets: Tensor
    all_places: Tensor
    code_vectors: Tensor

    def __init__(self, model: IsrfModel, *, num_beams: int, num_dense: int) -> None:
        super().__init__()
        self.model = model
        self.num_dense = num_dense
        self.num_beams = num_beams
        spec = model.spec
        self.beam_widths = [1]  # per level: there are no more prefixes than C times the level's before
        for _ in range(spec.num_levels):
            self.beam_widths.append(min(num_beams, self.beam_widths[-1] * spec.codebook_size))
        longest = spec.num_prompts + 2 + spec.history_length
        positions = torch.arange(longest)
        attention = model.encoder.block[0].layer[0].SelfAttention
        buckets = relative_buckets(attention, positions[None] - positions[:, None], bidirectional=True)
        self.register_buffer("encoder_buckets", buckets, persistent=False)
        attention = model.decoder.block[0].layer[0].SelfAttention
        buckets = relative_buckets(attention, torch.arange(1 - spec.num_levels, 1), bidirectional=False)
        self.register_buffer("decoder_buckets", buckets, persistent=False)
        self.register_buffer("all_places", torch.arange(spec.codebook_size), persistent=False)
        self.register_buffer("code_vectors", model.code_vectors().detach(), persistent=False)
        self.encoder, self.decoder = EncoderStack(model.encoder), DecoderStack(model.decoder)

    def forward(
        self,
        history: Tensor,
        history_mask: Tensor,
        explicit: Tensor,
        group: Tensor,
        task: Tensor,
        allowed: Tensor,
        item_inputs: Tensor,
        item_vectors: Tensor,
        item_embeddings: Tensor,
        item_known: Tensor,
        trie_code: Tensor,
        trie_child_start: Tensor,
        trie_leaf_start: Tensor,
        trie_leaf_stop: Tensor,
        leaf_items: Tensor,
        trie_places: Tensor,
        node_vectors: Tensor,
    ) -> SearchOutput:
        """Inputs and outputs of `recommender.onnx`; shapes and dtypes stand in ARCHITECTURE.md."""
        model = self.model
        source, mask = model.source(item_inputs[history], history_mask, explicit, group, task)
        length = source.shape[1]
        attention = model.encoder.block[0].layer[0].SelfAttention
        bias = attention.relative_attention_bias(self.encoder_buckets[:length, :length]).permute(2, 0, 1)
        states = self.encoder(source, mask, bias)
        allowed_leaves = torch.cumsum(allowed[:, leaf_items].to(torch.int32), dim=1, dtype=torch.int32)
        allowed_before = torch.cat([torch.zeros_like(allowed_leaves[:, :1]), allowed_leaves], dim=1)
        trie = Trie(
            trie_code,
            trie_child_start,
            trie_leaf_start,
            trie_leaf_stop,
            leaf_items,
            trie_places,
            node_vectors,
            allowed_before,
        )
        query = model.query(states, history_mask)
        cross = self.decoder.read(states)
        beam_items, beam_log_probs = self._generate(query, cross, source_bias(mask), trie)
        dense_items, dense_log_probs, log_partition = self._top(_scores(query, item_vectors), allowed)
        # An item without training interactions has no embedding, and the graph nothing to say of it.
        by_graph = torch.where(item_known, _scores(explicit, item_embeddings), -torch.inf)
        explicit_items, _, explicit_log_partition = self._top(by_graph, allowed)
        return SearchOutput(
            beam_items,
            beam_log_probs,
            dense_items,
            dense_log_probs,
            query,
            log_partition,
            explicit_items,
            explicit_log_partition,
        )

    def tables(self, trie: TrieTables) -> tuple[Tensor, ...]:
        """The inputs from `item_inputs` on, in order: the model's own item tables and a trie, on the model's device."""
        model = self.model
        device, vectors = model.part_graph.device, model.item_vectors()
        arrays = (torch.from_numpy(table).to(device) for table in trie)
        with torch.no_grad():
            nodes = model.node_vectors(Siblings.of(trie, device), vectors)
        known = (model.part_graph != 0).any(dim=1)
        return (model.item_inputs(), vectors, model.part_graph, known, *arrays, nodes)

    def _top(self, scores: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best allowed items by scores (B, N): rows (B, M_d), log-probabilities (B, M_d), log partition (B,)."""
        log_partition = torch.logsumexp(scores, dim=1)
        dead = torch.full((1, self.num_dense), -torch.inf, device=scores.device)
        usable = torch.where(allowed, scores, -torch.inf)
        # Padded so that a catalogue smaller than num_dense still gives num_dense columns.
        best, items = ranked_topk(torch.cat([usable, dead.expand(scores.shape[0], -1)], dim=1), self.num_dense)
        return torch.where(best == -torch.inf, -1, items), best - log_partition[:, None], log_partition

    def _generate(self, query: Tensor, cross: list[Memory], cross_bias: Tensor, trie: Trie) -> tuple[Tensor, Tensor]:
        """Items (B, K) and log-probabilities (B, K) of the beams, best first. query (B, D)."""
        zeros = trie.allowed_before[:, :1].to(torch.int64) * 0  # (B, 1): they carry the batch's size
        beams = _Beams(nodes=zeros, scores=zeros.to(torch.float32), codes=zeros, parents=zeros)
        lines: list[Memory] | None = None
        for level in range(self.model.spec.num_levels):
            reading = self._reading(beams, trie, level=level)
            states, lines = self.decoder.step(
                self._tokens(query, reading, level=level),
                lines,
                reading.parents.flatten(),
                cross,
                line_bias=self._line_bias(level),
                cross_bias=cross_bias,
            )
            asked = Decoded(
                self.model.code_logits(states, self.code_vectors[level], level=level),
                self.model.content_query(query[:, None], states, level=level),
            )
            beams = self._advance(beams, asked, reading.rows, trie, level=level)
        dead = beams.scores == -torch.inf
        items = torch.where(dead, -1, trie.leaf_items[trie.leaf_start[beams.nodes]])
        missing = self.num_beams - self.beam_widths[-1]
        if missing:  # fewer codes in all than beams asked for
            empty = torch.full((1, missing), -1, device=items.device).expand(items.shape[0], -1)
            items = torch.cat([items, empty], dim=1)
            dead_scores = torch.full((1, missing), -torch.inf, device=items.device).expand(items.shape[0], -1)
            return items, torch.cat([beams.scores, dead_scores], dim=1)
        return items, beams.scores

    def _reading(self, beams: _Beams, trie: Trie, *, level: int) -> _Reading:
        """The beams whose next code is open. One that has a single item below has all its codes decided."""
        count = self.beam_widths[level]
        request = torch.cumsum(torch.ones_like(beams.nodes[:, :1]), dim=0) - 1  # (B, 1)
        if level < UNDECIDED_FROM or count <= LEAST_READ:
            places = torch.arange(count, device=beams.nodes.device)
            return _Reading(beams.codes, beams.parents, request * count + places)
        below = trie.leaf_stop[beams.nodes] - trie.leaf_start[beams.nodes]
        undecided = ((below > 1) & (beams.scores > -torch.inf)).to(torch.int64)
        width = undecided.sum(1).amax().clamp(min=LEAST_READ)
        _, order = ranked_topk(undecided.to(torch.float32), count)
        read = order[:, :width]
        places = (torch.cumsum(undecided, dim=1) - 1).clamp(min=0)
        return _Reading(beams.codes.gather(1, read), beams.parents.gather(1, read), request * read.shape[1] + places)

    def _tokens(self, query: Tensor, reading: _Reading, *, level: int) -> Tensor:
        """(B, W, D) what the decoder reads: the start, then the codes chosen last."""
        if level == 0:
            return self.model.start(query)
        tokens: Tensor = nn.functional.embedding(reading.codes, self.code_vectors[level - 1])
        return tokens

    def _line_bias(self, level: int) -> Tensor:
        """(1, H, 1, level + 1): the relative position bias of this step's rows to each step of their line."""
        attention = self.model.decoder.block[0].layer[0].SelfAttention
        # Oldest first, (level + 1, H).
        along: Tensor = attention.relative_attention_bias(self.decoder_buckets[-1 - level :])
        return along.T[None, :, None]

    def _advance(self, beams: _Beams, asked: Decoded, rows: Tensor, trie: Trie, *, level: int) -> _Beams:
        """The best extensions of all beams by one code; `asked` by the decoder's W rows of each request.

        A beam that was not read has one child: of that its log-softmax is 0, whatever row stands in for it.
        """
        # Deep prefixes have few children: as many places as any node of this depth needs, whoever shares the batch.
        least = -(-self.beam_widths[level + 1] // self.beam_widths[level])
        places = self.all_places[: trie.places[level].clamp(min=least)]
        children = trie.child_start[beams.nodes][:, :, None] + places
        exists = children < trie.child_start[beams.nodes + 1][:, :, None]
        children = torch.where(exists, children, 0).flatten(1)  # (B, K · places); the root stands in for no child
        codes = trie.code[children]
        below = trie.allowed_before.gather(1, trie.leaf_stop[children])
        below = below - trie.allowed_before.gather(1, trie.leaf_start[children])
        # A code competes with those that the trie has after the same prefix (`isrf.nn.siblings`).
        if level >= UNDECIDED_FROM:
            asked = Decoded(*(nn.functional.embedding(rows, part.flatten(0, 1)) for part in asked))
        by_code = asked.codes.gather(2, codes.view(exists.shape))
        below_each = nn.functional.embedding(children.view(exists.shape), trie.vectors)  # (B, K, places, P + 1)
        by_content = (below_each @ asked.content[..., None])[..., 0]
        usable = torch.where(exists, by_code + by_content, MASKED)
        scores = beams.scores[:, :, None] + torch.log_softmax(usable, dim=-1)
        scores = torch.where(exists.flatten(1) & (below > 0), scores.flatten(1), -torch.inf)
        best, picked = ranked_topk(scores, self.beam_widths[level + 1])
        last = level + 1 == self.model.spec.num_levels
        if not last:  # in order of the nodes, so that the next level's ties go to the lower leaf again
            picked = torch.sort(picked, dim=1).values
            best = scores.gather(1, picked)
        parents = torch.div(picked, places.shape[0], rounding_mode="trunc")
        return _Beams(
            nodes=children.gather(1, picked),
            scores=best,
            codes=codes.gather(1, picked),
            parents=rows.gather(1, parents),
        )


def _scores(queries: Tensor, vectors: Tensor) -> Tensor:
    """queries (B, D) · vectors (N, D) → (B, N), of two rows at least: one row alone is multiplied by another kernel,
    whose sums differ in their last bits, and an answer would depend on who shares the batch."""
    pair = torch.cat([queries, queries[:1]], dim=0)
    return (pair @ vectors.transpose(0, 1))[:-1]


def ranked_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of (B, M) float32, best first, ties to the lower column: values and columns (B, k).

    ONNX's TopK promises this order of ties, torch's does not: outside an export the order is made part of the key.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.topk(scores, k, dim=1)
    bits = (scores.float() + 0.0).view(torch.int32)  # adding 0 makes −0 a 0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # signed integers in the floats' order
    columns = torch.arange(scores.shape[1], device=scores.device)
    keys = (ordered.to(torch.int64) << 32) - columns
    picked = torch.topk(keys, k, dim=1).indices
    return scores.gather(1, picked), picked
