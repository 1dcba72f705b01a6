"""The model's part of a search in one graph: the encoder, the dense query, and the constrained beam search.

`ConstrainedSearch.forward` has exactly the inputs and outputs of `recommender.onnx` (docs/concepts/bundle.md), and
is also the torch model's own search: the search is exported, not rewritten. The caller says for every node of the trie
whether an allowed item lies below it (`isrf.method.recommend.item_masks`), so a beam is only extended towards an
allowed item, and min(K, allowed items) beams are alive at the end. A beam with a single item below it has no choice
left, so from the third level on the decoder reads only the other beams. Without beams (K = 0) the graph ends at the
query.

It passes over no table of all items: the best items of the dense path are found outside, from the query. Ties go to the
lower leaf.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isrf.method.trie import TrieTables
from isrf.nn.fused import reshaped
from isrf.nn.model import Decoded, IsrfModel
from isrf.nn.siblings import Siblings
from isrf.nn.stacks import MASKED, DecoderStack, EncoderStack, Memory, relative_bias, source_bias

QUERY_INPUTS = ("history", "history_mask", "explicit", "group", "task", "item_inputs")
BEAM_INPUTS = (
    "open_nodes",
    "trie_code",
    "trie_child_start",
    "trie_leaf_start",
    "trie_leaf_stop",
    "leaf_items",
    "trie_places",
    "node_vectors",
)


class SearchTensors(NamedTuple):
    """The outputs of the graph with beams, in its order; without beams it has `query` alone."""

    query: Tensor  # (B, D) float32, temperature folded in: an item's score is query · its vector
    beam_items: Tensor  # (B, K) int64, best first, −1 where a beam is dead
    beam_log_probs: Tensor  # (B, K) float32, −inf where a beam is dead


class Trie(NamedTuple):
    """The trie tables as tensors (`isrf.method.trie.TrieTables`), with what the requests allow."""

    code: Tensor  # (M,) int64
    child_start: Tensor  # (M + 1,)
    leaf_start: Tensor  # (M,)
    leaf_stop: Tensor  # (M,)
    leaf_items: Tensor  # (N,)
    places: Tensor  # (L,) the most children that a node of each depth has
    vectors: Tensor  # (M, P + 1) a summary of the items below each node (`IsrfModel.node_vectors`)
    is_open: Tensor  # (B, M) bool: whether an allowed item lies below each node


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
    """The search of `model`: its dense query and its `num_beams` best generated items.

    The constructor copies the codes' vectors and the joined matrices: make a new one when the weights have changed.
    """

    encoder_bias: Tensor  # (1, H, S', S') by relative position, query by key
    line_bias: Tensor  # (1, H, 1, L) the decoder's bias of the last step towards each earlier step, oldest first
    all_places: Tensor
    code_vectors: Tensor

    def __init__(self, model: IsrfModel, *, num_beams: int) -> None:
        super().__init__()
        self.model = model
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

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs of `forward`, in order."""
        return (*QUERY_INPUTS, *BEAM_INPUTS) if self.num_beams else QUERY_INPUTS

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs of `forward`, in order."""
        return SearchTensors._fields if self.num_beams else SearchTensors._fields[:1]

    def forward(
        self,
        history: Tensor,
        history_mask: Tensor,
        explicit: Tensor,
        group: Tensor,
        task: Tensor,
        item_inputs: Tensor,
        *of_beams: Tensor,
    ) -> tuple[Tensor, ...]:
        """Inputs and outputs of `recommender.onnx`; docs/concepts/bundle.md has shapes and dtypes.

        Args:
            of_beams: the inputs `BEAM_INPUTS`; none without beams.
        """
        model = self.model
        source, mask = model.source(item_inputs[history], history_mask, explicit, group, task)
        length = source.shape[1]
        states = self.encoder(source, mask, self.encoder_bias[:, :, :length, :length])
        query = model.query(states, history_mask)
        if not self.num_beams:
            return (query,)
        open_nodes, code, child_start, leaf_start, leaf_stop, leaf_items, places, vectors = of_beams
        trie = Trie(code, child_start, leaf_start, leaf_stop, leaf_items, places, vectors, open_nodes)
        start = (task * 0)[:, None]
        return (query, *self._generate(query, start, self.decoder.read(states), source_bias(mask), trie))

    def tables(self, trie: TrieTables) -> dict[str, Tensor]:
        """The inputs that are equal for all requests: the model's own tables and a trie, on the model's device."""
        model = self.model
        found = {"item_inputs": model.item_inputs()}
        if self.num_beams:
            device = model.part_graph.device
            found |= {name: torch.from_numpy(table).to(device) for name, table in trie._asdict().items()}
            found["node_vectors"] = self.node_vectors(trie)
        return found

    @torch.no_grad()
    def node_vectors(self, trie: TrieTables) -> Tensor:
        """(M, P + 1) a summary of the items below each node (`IsrfModel.node_vectors`)."""
        model = self.model
        vectors: Tensor = model.node_vectors(Siblings.of(trie, model.part_graph.device), model.item_vectors())
        return vectors

    def _generate(
        self, query: Tensor, zeros: Tensor, cross: list[Memory], cross_bias: Tensor, trie: Trie
    ) -> tuple[Tensor, Tensor]:
        """The beam search: items (B, K) and log-probabilities (B, K), best first.

        Args:
            query: (B, D).
            zeros: (B, 1) int64.
            cross: the decoder's memory of the encoder's states.
            cross_bias: of the encoder's states.
        """
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
        reachable = trie.is_open.gather(1, flat)
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
