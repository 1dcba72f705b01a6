"""A request from history to ranked items; `offline evaluate` and the service call this same code.

    history → interest graph → nearest base users → group vector          (`Recommender.read`, cacheable per user)
            → search graph → candidates of every channel → fusion, ranker → top n  (`Recommender.rank`)

Graphs and neighbour index are handed in as callables; it knows neither ONNX Runtime nor FAISS nor torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import Decoding, FusionWeights, GroupSearch
from isrf.method.evidence import (
    ITEM_CHANNELS,
    Evidence,
    SparseLists,
    group_evidence,
    item_evidence,
    last_item_evidence,
)
from isrf.method.interest import (
    BoolArray,
    HistoryInterest,
    IntArray,
    Neighbours,
    NeighbourSearch,
    group_interest,
    pad_histories,
    select_neighbours,
)
from isrf.method.ranking.fusion import Candidates, fuse, gather
from isrf.method.ranking.ranker import Ranker, rerank
from isrf.method.recommend.request import (
    CHANNEL_LIMIT,
    SCORE_DIGITS,
    Ranked,
    RankedItem,
    RankingRequest,
    SearchOutput,
    Task,
    UserInterests,
)
from isrf.method.recommend.tables import AddedItems, RecommenderTables

Graph: TypeAlias = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]
"""Runs an exported graph: inputs by name → outputs by name (docs/concepts/bundle.md)."""

_TASK_CODES: dict[Task, int] = {"sequential": 0, "direct": 1}

REQUEST_INPUTS = frozenset({"history", "history_mask", "explicit", "group", "task", "allowed"})
"""Inputs of the search graph that are a request's own; the others are tables over all items, the same in every call."""

POPULAR_BLOCK = 4096
"""Items that are looked at together where popularity fills a list."""


class OfferedItems(NamedTuple):
    """What follows from the tables of the items on offer, whoever the people are."""

    graph_inputs: Mapping[str, NDArray[Any]]  # of the search graph, the same in every call
    by_popularity: IntArray  # (N,) most popular first, equal ones in row order

    @classmethod
    def of(cls, tables: RecommenderTables) -> "OfferedItems":
        inputs: dict[str, NDArray[Any]] = {
            "item_inputs": tables.item_inputs,
            "item_vectors": tables.item_vectors,
            "item_embeddings": tables.item_embeddings,
            "item_known": np.any(tables.item_embeddings != 0, axis=1),
            "node_vectors": tables.node_vectors,
            **tables.trie._asdict(),
        }
        return cls(inputs, np.lexsort((np.arange(len(tables.popularity)), -tables.popularity)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Recommender:
    """Answers requests from one release's tables and graphs; keeps no state between calls, threads may share it.

    Attributes:
        offered: of the items in `tables`.
        stand_ins: (N,) for each item the release's that the interest graph knows in its place, −1 for none; None where
            all items are the release's.
    """

    tables: RecommenderTables
    offered: OfferedItems
    decoding: Decoding
    group_search: GroupSearch
    fusion: FusionWeights
    interest_graph: Graph
    search_graph: Graph
    nearest_users: NeighbourSearch
    ranker: Ranker | None = None
    stand_ins: IntArray | None = None

    def read(self, histories: Sequence[Sequence[int]], own: Sequence[int]) -> UserInterests:
        """Explicit vectors, similar users and group vectors of B histories.

        Args:
            histories: item rows, oldest first.
            own: the base user row of each query, −1 where it has none; that row is no neighbour of its own.
        """
        return self.group(histories, self.interest(histories), own)

    def group(self, histories: Sequence[Sequence[int]], interest: HistoryInterest, own: Sequence[int]) -> UserInterests:
        """The part of `read` that looks for similar users, for what `interest` said of the same histories."""
        # One more than the cap, since the query's own row may be among them.
        cosine, users = self.nearest_users(interest.feature, self.group_search.max_neighbours + 1)
        # An empty history is like nobody.
        users[[not history for history in self._known(histories)]] = -1
        neighbours = select_neighbours(self.group_search, cosine, users, np.asarray(own, dtype=np.int64))
        return UserInterests(interest.explicit, neighbours, group_interest(neighbours, self.tables.group_layers))

    def interest(self, histories: Sequence[Sequence[int]]) -> HistoryInterest:
        """Explicit vectors and query features of B histories (item rows, oldest first)."""
        history, mask = pad_histories(self._known(histories), self.decoding.interest_length)
        outputs = self.interest_graph({"history": history, "history_mask": mask})
        return HistoryInterest(outputs["explicit"], outputs["feature"])

    def with_users(
        self, *, group_layers: NDArray[np.float16], user_items: SparseLists, nearest_users: NeighbourSearch
    ) -> "Recommender":
        """The same recommender among other people: their rows replace the base users' in all three.

        For serving, where the base users are followed by those who came since, and some of them are gone.
        `UserInterests` belong to the recommender that read them: rows of another one are other people.
        """
        tables = replace(self.tables, group_layers=group_layers, user_items=user_items)
        return replace(self, tables=tables, nearest_users=nearest_users)

    def searching_with(self, search_graph: Graph) -> "Recommender":
        """The same recommender with another form of its search graph."""
        return replace(self, search_graph=search_graph)

    def among(self, nearest_users: NeighbourSearch) -> "Recommender":
        """The same recommender and people, its neighbours found by another search."""
        return replace(self, nearest_users=nearest_users)

    def with_items(self, added: AddedItems) -> "Recommender":
        """The same recommender and people, with more items on offer, on the dense path and in what it brings.

        To be asked of the release's own recommender: the interest graph carries the release's items inside.
        """
        tables = self.tables.with_items(added)
        stand_ins = np.concatenate([np.arange(len(self.tables.item_inputs)), added.stand_ins])
        return replace(self, tables=tables, offered=OfferedItems.of(tables), stand_ins=stand_ins)

    def with_items_of(self, other: "Recommender") -> "Recommender":
        """These people, and the items of another recommender of the same release."""
        return other.with_users(
            group_layers=self.tables.group_layers,
            user_items=self.tables.user_items,
            nearest_users=self.nearest_users,
        )

    def _known(self, histories: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """Histories of the release's items alone: added ones are stood in for."""
        stand_ins = self.stand_ins
        if stand_ins is None:
            return histories
        return [[row for row in stand_ins[list(history)].tolist() if row >= 0] for history in histories]

    def search(self, requests: Sequence[RankingRequest], interests: UserInterests) -> SearchOutput:
        """One run of the search graph for B requests."""
        history, mask = pad_histories([r.history for r in requests], self.decoding.history_length)
        outputs = self.search_graph(
            {
                "history": history,
                "history_mask": mask,
                "explicit": interests.explicit,
                "group": interests.group,
                "task": np.array([_TASK_CODES[r.task] for r in requests], dtype=np.int64),
                "allowed": np.stack([r.allowed for r in requests]),
                **self.offered.graph_inputs,
            }
        )
        return SearchOutput(**{name: outputs[name] for name in SearchOutput._fields})

    def rank(self, requests: Sequence[RankingRequest], interests: UserInterests) -> list[Ranked]:
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

    def ranked(self, request: RankingRequest, interests: UserInterests, output: SearchOutput, b: int) -> Ranked:
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
        request: RankingRequest,
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

    def _fused(self, request: RankingRequest, candidates: Candidates, evidence: dict[str, Evidence]) -> Ranked:
        if self.ranker is None or request.task == "direct":  # it was fitted on whole-catalogue requests
            fused = fuse(candidates, self.fusion, explained=request.n)
        else:
            fused = rerank(candidates, self.fusion, self.ranker, popularity=self.tables.popularity, explained=request.n)
        items, scores = fused.items[: request.n].tolist(), fused.scores[: request.n].tolist()
        top = [
            RankedItem(item, round(score, SCORE_DIGITS), source)
            for item, score, source in zip(items, scores, fused.sources, strict=True)
        ]
        if len(top) < request.n:
            top += self._fill(request, fused.items, top[-1].score if top else 0.0, request.n - len(top))
        return Ranked(top, fused, evidence)

    def _popular(self, request: RankingRequest) -> Ranked:
        return Ranked(self._fill(request, np.zeros(0, np.int64), 0.0, request.n), None, {})

    def _fill(self, request: RankingRequest, taken: IntArray, below: float, count: int) -> list[RankedItem]:
        """The most popular allowed items that are not taken, scored below `below` in their order."""
        order = first_allowed(self.offered.by_popularity, request.allowed, taken, count)
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
