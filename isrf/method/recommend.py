"""A request from history to ranked items; `offline evaluate` and the service call this same code.

    history → interest graph → nearest base users → group vector          (`Recommender.read`, cacheable per user)
            → search graph → candidates of every channel → fusion, ranker → top n  (`Recommender.rank`)

Graphs and neighbour index are handed in as callables; it knows neither ONNX Runtime nor FAISS nor torch.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import Decoding, FusionWeights, GroupSearch
from isrf.method.evidence import (
    ITEM_CHANNELS,
    Evidence,
    SparseLists,
    group_evidence,
    item_evidence,
    last_item_evidence,
    lists_from_arrays,
)
from isrf.method.interest import (
    BoolArray,
    FloatArray,
    HistoryInterest,
    IntArray,
    Neighbours,
    NeighbourSearch,
    group_interest,
    pad_histories,
    select_neighbours,
)
from isrf.method.ranking.fusion import Candidates, Fused, fuse, gather
from isrf.method.ranking.ranker import Ranker, rerank
from isrf.method.trie import TrieTables, build_trie

Graph: TypeAlias = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]
"""Runs an exported graph: inputs by name → outputs by name (ARCHITECTURE.md, "The graphs")."""

Task = Literal["sequential", "direct"]
_TASK_CODES: dict[Task, int] = {"sequential": 0, "direct": 1}

REQUEST_INPUTS = frozenset({"history", "history_mask", "explicit", "group", "task", "allowed"})
"""Inputs of the search graph that are a request's own; the others are tables over all items, the same in every call."""

CHANNEL_LIMIT = 200
"""Candidates that the explicit channel and each evidence channel may bring."""

POPULAR_BLOCK = 4096
"""Items that are looked at together where popularity fills a list."""


@dataclass(frozen=True, kw_only=True)
class RecommenderTables:
    """What a release holds beside its graphs."""

    trie: TrieTables
    item_inputs: FloatArray  # (N, D)
    item_vectors: FloatArray  # (N, D)
    item_embeddings: FloatArray  # (N, E) LightGCN's, temperature folded in; zero without training interactions
    node_vectors: FloatArray  # (M, P + 1) what lies below each of the trie's nodes
    group_layers: NDArray[np.float16]  # (U, G)
    popularity: FloatArray  # (N,)
    item_lists: dict[str, SparseLists]  # one per item channel, a row per item
    user_items: SparseLists  # a row per base user

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, codebook_size: int) -> "RecommenderTables":
        """From a bundle's arrays by file name (`isrf.contract.manifest.ARRAYS`)."""
        trie = build_trie(arrays["semantic_ids.npy"], codebook_size)
        if len(arrays["node_vectors.npy"]) != len(trie.trie_code):
            raise BundleError(
                "bundle.array_mismatch",
                f"node_vectors.npy has {len(arrays['node_vectors.npy'])} rows, the semantic IDs make "
                f"{len(trie.trie_code)} nodes.",
                fix="Publish the release again; its parts come from different runs.",
            )
        return cls(
            trie=trie,
            item_inputs=arrays["item_inputs.npy"],
            item_vectors=arrays["item_vectors.npy"],
            item_embeddings=arrays["item_embeddings.npy"],
            node_vectors=arrays["node_vectors.npy"],
            group_layers=arrays["group_layers.npy"],
            popularity=arrays["popularity.npy"],
            item_lists={name: lists_from_arrays(name, arrays) for name in ITEM_CHANNELS},
            user_items=lists_from_arrays("user_items", arrays),
        )


class AddedItems(NamedTuple):
    """x items that came since the release, known by their text alone; their rows follow the release's."""

    item_inputs: FloatArray  # (x, D)
    item_vectors: FloatArray  # (x, D)
    stand_ins: IntArray  # (x,) the release's item that each is to the interaction graph, −1 for none
    content: SparseLists  # a row per added item: the release's items that are like it
    content_places: FloatArray  # (entries of `content`,) what the added item weighs in the list of each of those


class Interests(NamedTuple):
    """What B histories say of their users, before any item is scored."""

    explicit: FloatArray  # (B, E)
    neighbours: Neighbours
    group: FloatArray  # (B, G)

    def rows(self, queries: Sequence[int]) -> "Interests":
        """The part of some of the queries, in the given order."""
        kept, near = list(queries), self.neighbours
        part = Neighbours(near.users[kept], near.similarity[kept], near.weak[kept])
        return Interests(self.explicit[kept], part, self.group[kept])

    @classmethod
    def together(cls, parts: "Sequence[Interests]") -> "Interests":
        """Those of one recommender, one after the other."""
        if len(parts) == 1:
            return parts[0]
        neighbours = Neighbours(
            *(np.concatenate(column) for column in zip(*(p.neighbours for p in parts), strict=True))
        )
        explicit = np.concatenate([part.explicit for part in parts])
        return cls(explicit, neighbours, np.concatenate([part.group for part in parts]))


@dataclass(frozen=True, kw_only=True)
class RankRequest:
    """One list to make.

    Attributes:
        history: item rows, oldest first.
        n: how many items are wanted.
        allowed: (N,) bool, the items that may be answered: not seen, not hidden, inside the filter or candidate set.
    """

    history: Sequence[int]
    n: int
    allowed: BoolArray
    task: Task = "sequential"


class RankedItem(NamedTuple):
    item_index: int
    score: float
    source: str  # a channel of `isrf.method.ranking.fusion.CHANNELS`, or "popular"


class Ranked(NamedTuple):
    """One request's answer, best first: n items, or every allowed item where those are fewer."""

    items: list[RankedItem]
    fused: Fused | None  # the scored candidates, of the first n each channel's contribution; None: popularity answered
    evidence: dict[str, Evidence]


SCORE_DIGITS = 4
"""Of a score as it is shown; the order was made from all of them."""


class SearchOutput(NamedTuple):
    """The search graph's answer to B requests (ARCHITECTURE.md names shapes and meaning)."""

    beam_items: IntArray
    beam_log_probs: FloatArray
    dense_items: IntArray
    dense_log_probs: FloatArray
    query: FloatArray
    dense_all: FloatArray
    explicit_items: IntArray
    explicit_all: FloatArray


class Recommender:
    """Answers requests from one release's tables and graphs; keeps no state between calls, threads may share it."""

    def __init__(
        self,
        tables: RecommenderTables,
        *,
        decoding: Decoding,
        group_search: GroupSearch,
        fusion: FusionWeights,
        interest_graph: Graph,
        search_graph: Graph,
        nearest_users: NeighbourSearch,
        ranker: Ranker | None = None,
    ) -> None:
        self._take_tables(tables)
        self._decoding, self._group_search = decoding, group_search
        self._fusion, self._ranker = fusion, ranker
        self._interest_graph, self._search_graph, self._nearest_users = interest_graph, search_graph, nearest_users
        self._stand_ins: IntArray | None = None

    def _take_tables(self, tables: RecommenderTables) -> None:
        self.tables = tables
        self._constant_inputs: dict[str, NDArray[Any]] = {
            "item_inputs": tables.item_inputs,
            "item_vectors": tables.item_vectors,
            "item_embeddings": tables.item_embeddings,
            "item_known": np.any(tables.item_embeddings != 0, axis=1),
            "node_vectors": tables.node_vectors,
            **tables.trie._asdict(),
        }
        self._by_popularity = np.lexsort((np.arange(len(tables.popularity)), -tables.popularity))

    def read(self, histories: Sequence[Sequence[int]], own: Sequence[int]) -> Interests:
        """Explicit vectors, similar users and group vectors of B histories.

        Args:
            histories: item rows, oldest first.
            own: the base user row of each query, −1 where it has none; that row is no neighbour of its own.
        """
        return self.group(histories, self.interest(histories), own)

    def group(self, histories: Sequence[Sequence[int]], interest: HistoryInterest, own: Sequence[int]) -> Interests:
        """The part of `read` that looks for similar users, for what `interest` said of the same histories."""
        # One more than the cap, since the query's own row may be among them.
        cosine, users = self._nearest_users(interest.feature, self._group_search.max_neighbours + 1)
        # An empty history is like nobody.
        users[[not history for history in self._known(histories)]] = -1
        neighbours = select_neighbours(self._group_search, cosine, users, np.asarray(own, dtype=np.int64))
        return Interests(interest.explicit, neighbours, group_interest(neighbours, self.tables.group_layers))

    def interest(self, histories: Sequence[Sequence[int]]) -> HistoryInterest:
        """Explicit vectors and query features of B histories (item rows, oldest first)."""
        history, mask = pad_histories(self._known(histories), self._decoding.interest_length)
        outputs = self._interest_graph({"history": history, "history_mask": mask})
        return HistoryInterest(outputs["explicit"], outputs["feature"])

    def with_users(
        self, *, group_layers: NDArray[np.float16], user_items: SparseLists, nearest_users: NeighbourSearch
    ) -> "Recommender":
        """The same recommender among other people: their rows replace the base users' in all three.

        For serving, where the base users are followed by those who came since, and some of them are gone.
        `Interests` belong to the recommender that read them: rows of another one are other people.
        """
        changed = copy.copy(self)
        changed.tables = replace(self.tables, group_layers=group_layers, user_items=user_items)
        changed._nearest_users = nearest_users
        return changed

    def searching_with(self, search_graph: Graph) -> "Recommender":
        """The same recommender with another form of its search graph."""
        changed = copy.copy(self)
        changed._search_graph = search_graph
        return changed

    def among(self, nearest_users: NeighbourSearch) -> "Recommender":
        """The same recommender and people, its neighbours found by another search."""
        changed = copy.copy(self)
        changed._nearest_users = nearest_users
        return changed

    def with_items(self, added: AddedItems) -> "Recommender":
        """The same recommender and people, with more items on offer, on the dense path and in what it brings.

        To be asked of the release's own recommender. What the interaction graph says of an added item's stand-in, it
        says of the item: the interest graph carries the release's items inside. Of the evidence channels, content alone
        leads to it.
        """
        changed = copy.copy(self)
        tables, count = self.tables, len(added.item_inputs)
        lists: dict[str, SparseLists] = {
            name: _with_empty_rows(tables.item_lists[name], count) for name in ITEM_CHANNELS
        }
        by_graph = np.where(added.stand_ins[:, None] >= 0, tables.item_embeddings[added.stand_ins], 0.0)
        lists["content"] = _with_rows(_with_entries(tables.item_lists["content"], added), added.content)
        changed._take_tables(
            replace(
                tables,
                item_inputs=np.concatenate([tables.item_inputs, added.item_inputs]),
                item_vectors=np.concatenate([tables.item_vectors, added.item_vectors]),
                item_embeddings=np.concatenate([tables.item_embeddings, by_graph.astype(np.float32)]),
                popularity=_with_zeros(tables.popularity, count),
                item_lists=lists,
            )
        )
        changed._stand_ins = np.concatenate([np.arange(len(tables.item_inputs)), added.stand_ins])
        return changed

    def with_items_of(self, other: "Recommender") -> "Recommender":
        """These people, and the items of another recommender of the same release."""
        return other.with_users(
            group_layers=self.tables.group_layers,
            user_items=self.tables.user_items,
            nearest_users=self._nearest_users,
        )

    def _known(self, histories: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """Histories of the release's items alone: added ones are stood in for."""
        stand_ins = self._stand_ins
        if stand_ins is None:
            return histories
        return [[row for row in stand_ins[list(history)].tolist() if row >= 0] for history in histories]

    def search(self, requests: Sequence[RankRequest], interests: Interests) -> SearchOutput:
        """One run of the search graph for B requests."""
        history, mask = pad_histories([r.history for r in requests], self._decoding.history_length)
        outputs = self._search_graph(
            {
                "history": history,
                "history_mask": mask,
                "explicit": interests.explicit,
                "group": interests.group,
                "task": np.array([_TASK_CODES[r.task] for r in requests], dtype=np.int64),
                "allowed": np.stack([r.allowed for r in requests]),
                **self._constant_inputs,
            }
        )
        return SearchOutput(**{name: outputs[name] for name in SearchOutput._fields})

    def rank(self, requests: Sequence[RankRequest], interests: Interests) -> list[Ranked]:
        """The top n of every request. An empty history is answered by popularity."""
        ranked: list[Ranked | None] = [None if r.history else self._popular(r) for r in requests]
        reading = [b for b, done in enumerate(ranked) if done is None]
        if reading:
            some = [requests[b] for b in reading]
            part = interests.rows(reading)
            output = self.search(some, part)
            for place, b in enumerate(reading):
                ranked[b] = self.ranked(some[place], part, output, place)
        return [one for one in ranked if one is not None]

    def ranked(self, request: RankRequest, interests: Interests, output: SearchOutput, b: int) -> Ranked:
        """The top n of a request with a history, from what the search found.

        Args:
            request: query b.
            interests: of the batch.
            output: the search graph's answer to the batch.
            b: its place in the batch.
        """
        evidence = self.evidence(request.history, interests.neighbours, b)
        return self._fused(request, self.candidates(request, output, evidence, b), evidence)

    def evidence(self, history: Sequence[int], neighbours: Neighbours, b: int) -> dict[str, Evidence]:
        """Every evidence channel's distribution for query b."""
        found: dict[str, Evidence] = {
            name: item_evidence(self.tables.item_lists[name], history, limit=CHANNEL_LIMIT) for name in ITEM_CHANNELS
        }
        group = group_evidence(
            self.tables.user_items, neighbours.users[b], neighbours.similarity[b], limit=CHANNEL_LIMIT
        )
        return {"group": group, **found}

    def candidates(
        self,
        request: RankRequest,
        output: SearchOutput,
        evidence: dict[str, Evidence],
        b: int,
    ) -> Candidates:
        """The union of every channel's items, allowed ones only, with what each channel says of each.

        Args:
            request: query b.
            output: the search graph's answer to the batch.
            evidence: of query b.
            b: its place in the batch.
        """
        others = np.concatenate(
            [
                output.dense_items[b],
                output.explicit_items[b, :CHANNEL_LIMIT],
                *(channel.items for channel in evidence.values()),
                # Given candidates are all wanted in their order, however many no channel brings by itself.
                *([np.flatnonzero(request.allowed)] if request.task == "direct" else ()),
            ]
        )
        # Beams come last: the first place of an item tells whether anything else brought it.
        union, first = np.unique(np.concatenate([others, output.beam_items[b]]), return_index=True)
        answerable = (union >= 0) & request.allowed[union]
        items, first = union[answerable], first[answerable]
        last = int(request.history[-1])
        by_graph = output.explicit_all[b, items]
        # An item without training interactions counts as the least likely of the others.
        known = np.isfinite(by_graph)
        by_graph[~known] = by_graph.min(where=known, initial=0)
        return gather(
            items,
            (output.beam_items[b], output.beam_log_probs[b]),
            dense=output.dense_all[b, items],
            explicit=by_graph,
            evidence=evidence,
            last_item={
                name: last_item_evidence(self.tables.item_lists[name], last, limit=CHANNEL_LIMIT)
                for name in ITEM_CHANNELS
            },
            beams_only=first >= len(others),
            history_length=len(request.history),
            last_popularity=float(self.tables.popularity[last]),
        )

    def _fused(self, request: RankRequest, candidates: Candidates, evidence: dict[str, Evidence]) -> Ranked:
        if self._ranker is None or request.task == "direct":  # it was fitted on whole-catalogue requests
            fused = fuse(candidates, self._fusion, explained=request.n)
        else:
            fused = rerank(
                candidates, self._fusion, self._ranker, popularity=self.tables.popularity, explained=request.n
            )
        items, scores = fused.items[: request.n].tolist(), fused.scores[: request.n].tolist()
        top = [
            RankedItem(item, round(score, SCORE_DIGITS), source)
            for item, score, source in zip(items, scores, fused.sources, strict=True)
        ]
        if len(top) < request.n:
            top += self._fill(request, fused.items, top[-1].score if top else 0.0, request.n - len(top))
        return Ranked(top, fused, evidence)

    def _popular(self, request: RankRequest) -> Ranked:
        return Ranked(self._fill(request, np.zeros(0, np.int64), 0.0, request.n), None, {})

    def _fill(self, request: RankRequest, taken: IntArray, below: float, count: int) -> list[RankedItem]:
        """The most popular allowed items that are not taken, scored below `below` in their order."""
        order = first_allowed(self._by_popularity, request.allowed, taken, count)
        return [RankedItem(item, below - 1.0 - place, "popular") for place, item in enumerate(order)]


def first_allowed(order: IntArray, allowed: BoolArray, taken: IntArray, count: int) -> list[int]:
    """The first `count` rows of `order` (N,) that are allowed (N,) and not taken."""
    found: list[int] = []
    for start in range(0, len(order), POPULAR_BLOCK):  # mostly one: no pass over a large catalogue
        block = order[start : start + POPULAR_BLOCK]
        found += block[allowed[block] & ~np.isin(block, taken)].tolist()
        if len(found) >= count:
            break
    return found[:count]


def _with_zeros(rows: FloatArray, count: int) -> FloatArray:
    return np.concatenate([rows, np.zeros((count, *rows.shape[1:]), dtype=rows.dtype)])


def _with_empty_rows(lists: SparseLists, count: int) -> SparseLists:
    return lists._replace(indptr=np.concatenate([lists.indptr, np.full(count, lists.indptr[-1])]))


def _with_rows(lists: SparseLists, more: SparseLists) -> SparseLists:
    return SparseLists(
        np.concatenate([lists.indptr, lists.indptr[-1] + more.indptr[1:]]),
        np.concatenate([lists.indices, more.indices]),
        np.concatenate([lists.weights, more.weights]),
    )


def _with_entries(lists: SparseLists, added: AddedItems) -> SparseLists:
    """The release's content lists with the added items in them; a list still sums to 1."""
    num_rows = len(lists.indptr) - 1
    kept = added.content_places > 0
    rows = added.content.indices[kept].astype(np.int64)
    counts = np.diff(added.content.indptr)
    items = np.repeat(num_rows + np.arange(len(counts)), counts)[kept]
    weights = added.content_places[kept]
    scale = 1.0 / (1.0 + np.bincount(rows, weights=weights, minlength=num_rows))
    before = lists.weights.copy()
    for row in np.unique(rows):  # a few of many
        before[lists.row(row)] *= scale[row]
    order = np.argsort(rows, kind="stable")
    at = lists.indptr[rows[order] + 1]
    return SparseLists(
        lists.indptr + np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))]),
        np.insert(lists.indices, at, items[order].astype(np.int32)),
        np.insert(before, at, (weights * scale[rows])[order].astype(np.float32)),
    )
