"""The search of the two learned paths in one graph: encoder, constrained beam search, top of the dense path.

`ConstrainedSearch.forward` has exactly the inputs and outputs of `recommender.onnx` (docs/concepts/bundle.md), and
is also the torch model's own search: the search is exported, not rewritten. A cumulative sum over the leaves tells for
every prefix whether an allowed item lies below it, so a beam is only extended towards an allowed item, and
min(K, allowed items) beams are alive at the end. A beam with a single item below it has no choice left, so from the
third level on the decoder reads only the other beams.

Ties go to the lower leaf in the beams and to the lower item row on the dense path.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isrf.method.trie import TrieTables
from isrf.nn.fused import padded, reshaped, score_all
from isrf.nn.model import Decoded, IsrfModel
from isrf.nn.siblings import Siblings
from isrf.nn.stacks import MASKED, DecoderStack, EncoderStack, Memory, relative_bias, source_bias

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


class SearchTensors(NamedTuple):
    """The graph's outputs, in the graph's order."""

    beam_items: Tensor  # (B, K) int64, best first, −1 where a beam is dead
    beam_log_probs: Tensor  # (B, K) float32, −inf where a beam is dead
    dense_items: Tensor  # (B, M_d) int64, best first, −1 where nothing more is allowed
    dense_log_probs: Tensor  # (B, M_d) float32
    query: Tensor  # (B, D) float32, temperature folded in: an item's score is query · its vector
    dense_all: Tensor  # (B, N) float32 the dense path's log-probability of every item, allowed or not
    explicit_items: Tensor  # (B, M_d) int64, best first by explicit · embedding, −1 where nothing more is allowed
    explicit_all: Tensor  # (B, N) float32 the interaction graph's log-probability of every item, −inf where unknown


class Trie(NamedTuple):
    """The trie tables as tensors (`isrf.method.trie.TrieTables`), with the counts of allowed leaves."""

    code: Tensor  # (M,) int64
    child_start: Tensor  # (M + 1,)
    leaf_start: Tensor  # (M,)
    leaf_stop: Tensor  # (M,)
    leaf_items: Tensor  # (N,)
    places: Tensor  # (L,) the most children that a node of each depth has
    vectors: Tensor  # (M, P + 1) a summary of the items below each node (`IsrfModel.node_vectors`)
    allowed_before: Tensor  # (B, N + 1) int32: number of allowed leaves before each leaf


class _Beams(NamedTuple):
    """K beams of one level, in order of their nodes."""

    nodes: Tensor  # (B, K) int64
    scores: Tensor  # (B, K) float32, −inf where dead
    codes: Tensor  # (B, K) int64 the code on the edge into each node, which the decoder reads next
    parents: Tensor  # (B, K) int64 the row of the decoder's last step that each beam continues


class _Reading(NamedTuple):
    """The W of a request's K beams that the decoder reads at one level."""

    codes: Tensor  # (B, W) int64
    parents: Tensor  # (B, W) int64
    rows: Tensor  # (B, K) int64 row of each beam among the B · W; any row for a beam that is not read


UNDECIDED_FROM = 2
"""The first level at which beams may be left out; before it nearly every prefix has several items below it."""
LEAST_READ = 2
"""Fewest beams that the decoder reads: a product of a single row may run in another kernel with other last bits."""


class ConstrainedSearch(nn.Module):
    """The search of `model`: its `num_beams` best generated items and its `num_dense` best dense items.

    The constructor copies the codes' vectors and the joined matrices: make a new one when the weights have changed.
    """

    encoder_bias: Tensor  # (1, H, S', S') by relative position, query by key
    line_bias: Tensor  # (1, H, 1, L) the decoder's bias of the last step towards each earlier step, oldest first
    all_places: Tensor
    code_vectors: Tensor

    def __init__(self, model: IsrfModel, *, num_beams: int, num_dense: int) -> None:
        super().__init__()
        self.model = model
        self.num_dense = num_dense
        self.num_beams = num_beams
        spec = model.spec
        self.beam_widths = [1]  # per level: a level has at most C times as many prefixes as the level before
        for _ in range(spec.num_levels):
            self.beam_widths.append(min(num_beams, self.beam_widths[-1] * spec.codebook_size))
        longest = spec.num_prompts + 2 + spec.history_length
        positions = torch.arange(longest)
        by_distance = relative_bias(model.encoder, positions[None] - positions[:, None], bidirectional=True)
        self.register_buffer("encoder_bias", by_distance, persistent=False)
        by_distance = relative_bias(model.decoder, torch.arange(1 - spec.num_levels, 1)[None], bidirectional=False)
        self.register_buffer("line_bias", by_distance, persistent=False)
        self.register_buffer("all_places", torch.arange(spec.codebook_size), persistent=False)
        self.register_buffer("code_vectors", model.code_vectors().detach(), persistent=False)
        self.asking = _Asking(model, self.code_vectors)
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
    ) -> SearchTensors:
        """Inputs and outputs of `recommender.onnx`; docs/concepts/bundle.md has shapes and dtypes."""
        model = self.model
        source, mask = model.source(item_inputs[history], history_mask, explicit, group, task)
        length = source.shape[1]
        states = self.encoder(source, mask, self.encoder_bias[:, :, :length, :length])
        # One more column in front: no leaf is allowed before the first one.
        allowed_leaves = padded(allowed[:, leaf_items], 1, 0, value=False)
        allowed_before = torch.cumsum(allowed_leaves.to(torch.int32), dim=1, dtype=torch.int32)
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
        dense_all = torch.log_softmax(score_all(query, item_vectors), dim=1)
        dense_items, dense_log_probs = self._top(dense_all, allowed)
        # An item without training interactions has no embedding, so the interaction graph cannot score it.
        by_graph = torch.where(item_known, score_all(explicit, item_embeddings), MASKED)
        explicit_all = torch.where(item_known, torch.log_softmax(by_graph, dim=1), -torch.inf)
        explicit_items, _ = self._top(explicit_all, allowed)
        return SearchTensors(
            beam_items, beam_log_probs, dense_items, dense_log_probs, query, dense_all, explicit_items, explicit_all
        )

    def tables(self, trie: TrieTables) -> tuple[Tensor, ...]:
        """The inputs from `item_inputs` on, in order: the model's item tables and a trie, on the model's device."""
        model = self.model
        device, vectors = model.part_graph.device, model.item_vectors()
        arrays = (torch.from_numpy(table).to(device) for table in trie)
        with torch.no_grad():
            nodes = model.node_vectors(Siblings.of(trie, device), vectors)
        known = (model.part_graph != 0).any(dim=1)
        return (model.item_inputs(), vectors, model.part_graph, known, *arrays, nodes)

    def _top(self, log_probs: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """The best allowed items by log-probability (B, N): their rows (B, M_d) and log-probabilities (B, M_d)."""
        # Padded so that a catalogue smaller than num_dense still gives num_dense columns.
        usable = padded(torch.where(allowed, log_probs, -torch.inf), 0, self.num_dense, value=-torch.inf)
        best, items = ranked_topk(usable, self.num_dense)
        return torch.where(best == -torch.inf, -1, items), best

    def _generate(self, query: Tensor, cross: list[Memory], cross_bias: Tensor, trie: Trie) -> tuple[Tensor, Tensor]:
        """The beam search: items (B, K) and log-probabilities (B, K), best first. query (B, D)."""
        zeros = trie.allowed_before[:, :1].to(torch.int64)  # (B, 1) of zeros: no leaf lies before the first one
        request = torch.cumsum(zeros + 1, dim=0) - 1
        beams = _Beams(nodes=zeros, scores=zeros.to(torch.float32), codes=zeros, parents=zeros)
        wide = cross_bias + torch.zeros(self.num_beams, 1, device=cross_bias.device)  # a row for each beam
        by_query = self.asking.of_query(query)
        lines: list[Memory] | None = None
        for level in range(self.model.spec.num_levels):
            reading = self._reading(beams, trie, request, level=level)
            states, lines = self.decoder.step(
                self._tokens(query, reading, level=level),
                lines,
                reshaped(reading.parents, -1),
                cross,
                line_bias=self.line_bias[:, :, :, -1 - level :],
                cross_bias=wide[:, :, : reading.codes.shape[1]],
            )
            asked = self.asking(states, by_query, reading.rows, level=level)
            beams = self._advance(beams, asked, reading.rows, trie, level=level)
        dead = beams.scores == -torch.inf
        items = torch.where(dead, -1, trie.leaf_items[trie.leaf_start[beams.nodes]])
        missing = self.num_beams - self.beam_widths[-1]
        if missing:  # fewer semantic IDs than beams
            empty = torch.full((1, missing), -1, device=items.device).expand(items.shape[0], -1)
            items = torch.cat([items, empty], dim=1)
            dead_scores = torch.full((1, missing), -torch.inf, device=items.device).expand(items.shape[0], -1)
            return items, torch.cat([beams.scores, dead_scores], dim=1)
        return items, beams.scores

    def _reading(self, beams: _Beams, trie: Trie, request: Tensor, *, level: int) -> _Reading:
        """The beams that the decoder reads: those with more than one item below, whose next code is not decided yet.

        request (B, 1) int64 is each request's position in the batch.
        """
        count = self.beam_widths[level]
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
        """(B, W, D): the decoder's input, the start vector at level 0, then the vectors of the last codes."""
        if level == 0:
            return self.model.start(query)
        tokens: Tensor = nn.functional.embedding(reading.codes, self.code_vectors[level - 1])
        return tokens

    def _advance(self, beams: _Beams, asked: Decoded, rows: Tensor, trie: Trie, *, level: int) -> _Beams:
        """The best extensions of all beams by one code; `asked` is the decoder's output for each beam.

        A beam that was not read has one child. Its log-softmax is 0, whichever row the beam's output comes from.
        """
        # Deep prefixes have few children. The width is what any node of this depth needs, so that an answer does not
        # depend on the other requests in the batch.
        least = -(-self.beam_widths[level + 1] // self.beam_widths[level])
        num_places = trie.places[level].clamp(min=least)
        children = trie.child_start[beams.nodes][:, :, None] + self.all_places[:num_places]
        exists = children < trie.child_start[beams.nodes + 1][:, :, None]
        children = torch.where(exists, children, 0)  # (B, K, places); the root where there is no child
        codes, flat = trie.code[children], children.flatten(1)
        stop, start = trie.leaf_stop[flat], trie.leaf_start[flat]
        reachable = trie.allowed_before.gather(1, stop) > trie.allowed_before.gather(1, start)
        # A code competes with the codes that the trie has after the same prefix (`isrf.nn.siblings`).
        by_code = asked.codes.gather(2, codes)
        by_content = (trie.vectors[children] @ asked.content[..., None])[..., 0]
        usable = torch.where(exists, by_code + by_content, MASKED)
        scores = (beams.scores[:, :, None] + torch.log_softmax(usable, dim=-1)).flatten(1)
        scores = torch.where(exists.flatten(1) & reachable, scores, -torch.inf)
        best, picked = ranked_topk(scores, self.beam_widths[level + 1])
        last = level + 1 == self.model.spec.num_levels
        if not last:  # in order of the nodes, so that the next level's ties go to the lower leaf again
            picked = torch.topk(picked, self.beam_widths[level + 1], dim=1, largest=False).values
            best = scores.gather(1, picked)
        parents = torch.div(picked, num_places, rounding_mode="trunc")
        return _Beams(
            nodes=flat.gather(1, picked),
            scores=best,
            codes=codes.flatten(1).gather(1, picked),
            parents=rows.gather(1, parents),
        )


class _Asking(nn.Module):
    """The decoder's code logits and content query (`IsrfModel.code_logits`, `.content_query`) in one product."""

    heads: Tensor  # (L, D, C + P + 1)
    biases: Tensor  # (L, C + P + 1)
    projection: Tensor  # (D, P + 1) of the dense query, zeros in the last column
    gains: Tensor  # (L, 1)

    def __init__(self, model: IsrfModel, code_vectors: Tensor) -> None:
        super().__init__()
        adapters, gains = model.node_adapters.detach(), model.node_gains.detach()[:, None]
        by_code = code_vectors.transpose(1, 2) * float(model.spec.width) ** -0.5
        no_size = torch.zeros_like(adapters[:, :, :1])
        self.register_buffer("heads", torch.cat([by_code, adapters, no_size], dim=2), persistent=False)
        no_content = torch.zeros_like(adapters[:, 0])
        size = model.size_gains.detach()[:, None]
        self.register_buffer("biases", torch.cat([model.code_bias.detach(), no_content, size], dim=1), persistent=False)
        projection = model.node_projection.detach().T
        self.register_buffer("projection", torch.cat([projection, no_size[0]], dim=1), persistent=False)
        self.register_buffer("gains", gains.clone(), persistent=False)
        self.widths = [by_code.shape[2], projection.shape[1] + 1]

    def of_query(self, query: Tensor) -> Tensor:
        """(B, 1, P + 1): the dense query's part of the content query, from the dense query (B, D)."""
        return (query @ self.projection)[:, None]

    def forward(self, states: Tensor, by_query: Tensor, rows: Tensor, *, level: int) -> Decoded:
        """Code logits (B, K, C) and content query (B, K, P + 1) of each beam.

        Args:
            states: (B, W, D) the decoder's states of the rows that were read.
            by_query: the result of `of_query`.
            rows: (B, K) the row of each beam among the B · W rows.
            level: the level of the next code.
        """
        asked = states @ self.heads[level] + self.biases[level]
        if level >= UNDECIDED_FROM:
            asked = nn.functional.embedding(rows, reshaped(asked, -1, sum(self.widths)))
        codes, content = torch.split(asked, self.widths, dim=-1)
        return Decoded(codes, content + by_query * self.gains[level])


def ranked_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of scores (B, M) float32, best first, ties to the lower column: values and columns (B, k).

    ONNX's TopK guarantees this order of ties, torch's does not. So outside an export the column is part of the key.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.topk(scores, k, dim=1)
    bits = (scores.float() + 0.0).view(torch.int32)  # adding 0 turns −0 into 0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # signed integers in the floats' order
    columns = torch.arange(scores.shape[1], device=scores.device)
    keys = (ordered.to(torch.int64) << 32) - columns
    picked = torch.topk(keys, k, dim=1).indices
    return scores.gather(1, picked), picked
