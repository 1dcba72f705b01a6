"""Answers a request: from a history to ranked items. `offline evaluate` and the service call this same code.

    history → interest graph → nearest base users → group vector          (`Recommender.read`, cacheable per user)
            → search graph → best items of every channel → fusion, ranker → top n  (`Recommender.rank`)

Callers pass in the graphs and the searches as callables; it knows neither ONNX Runtime nor FAISS nor torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import Decoding, FusionWeights, GroupSearch
from isrf.method.evidence import (
    ITEM_CHANNELS,
    NOTHING,
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
from isrf.method.recommend.item_masks import ItemMasks
from isrf.method.recommend.item_search import ItemSearch
from isrf.method.recommend.live.live_evidence import LiveEvidence
from isrf.method.recommend.live.recent_popularity import RecentPopularity
from isrf.method.recommend.popular_items import are_allowed, popular_items
from isrf.method.recommend.product_groups import Products
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

REQUEST_INPUTS = frozenset({"history", "history_mask", "explicit", "group", "task", "open_nodes", "allowed"})
"""Inputs of the search graph that belong to a request; the others are tables over all items, equal in every call.
A release of before schema 5 has `allowed`."""


class OfferedItems(NamedTuple):
    """Values derived from the item tables alone, computed once for all users."""

    graph_inputs: Mapping[str, NDArray[Any]]  # inputs of the search graph that are equal in every call
    by_popularity: IntArray  # (N,) item rows, most popular first, ties in row order
    masks: ItemMasks  # of recent requests

    @classmethod
    def of(cls, tables: RecommenderTables) -> "OfferedItems":
        inputs: dict[str, NDArray[Any]] = {
            "item_inputs": tables.item_inputs,
            "node_vectors": tables.node_vectors,
            **tables.trie._asdict(),
        }
        by_popularity = np.lexsort((np.arange(len(tables.popularity)), -tables.popularity))
        return cls(inputs, by_popularity, ItemMasks(tables.trie))


@dataclass(frozen=True, kw_only=True, eq=False)
class Recommender:
    """Answers requests from one release's tables and graphs; earlier calls change no answer, threads may share it.

    Attributes:
        offered: derived from the items in `tables`; it keeps what a search needs of recent requests' masks.
        stand_ins: (N,) for each item the release's item that the interest graph uses in its place, −1 for none; None
            where all items are the release's.
    """

    tables: RecommenderTables
    offered: OfferedItems
    decoding: Decoding
    group_search: GroupSearch
    fusion: FusionWeights
    interest_graph: Graph
    search_graph: Graph
    nearest_users: NeighbourSearch
    dense_items: ItemSearch  # of the item vectors
    explicit_items: ItemSearch  # of the interaction graph's embeddings
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
        """The part of `read` that finds similar users; `interest` belongs to the same histories."""
        # One more than the cap, since the query's own row may be among them.
        cosine, users = self.nearest_users(interest.feature, self.group_search.max_neighbours + 1)
        # An empty history has no similar users.
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
        """The same recommender with other users: the arguments replace the base users' tables and index.

        The service uses it to add users who came since the release and to remove erased ones. `UserInterests` belong to
        the recommender that read them: another recommender's rows are other users.
        """
        tables = replace(self.tables, group_layers=group_layers, user_items=user_items)
        return replace(self, tables=tables, nearest_users=nearest_users)

    def searching_with(self, search_graph: Graph) -> "Recommender":
        """The same recommender with another variant of its search graph."""
        return replace(self, search_graph=search_graph)

    def among(self, nearest_users: NeighbourSearch) -> "Recommender":
        """The same recommender with another neighbour search over the same users."""
        return replace(self, nearest_users=nearest_users)

    def with_items(self, added: AddedItems) -> "Recommender":
        """The same recommender with added items, which the dense path and the content channel can find.

        Call it on the release's own recommender: the interest graph contains only the release's items.
        """
        tables = self.tables.with_items(added)
        stand_ins = np.concatenate([np.arange(len(self.tables.item_inputs)), added.stand_ins])
        return replace(
            self,
            tables=tables,
            offered=OfferedItems.of(tables),
            dense_items=self.dense_items.over(tables.item_vectors),
            explicit_items=self.explicit_items.over(tables.item_embeddings),
            stand_ins=stand_ins,
        )

    def with_products(self, products: Products) -> "Recommender":
        """The same recommender for the variants that the catalogue has now; call it once, after `with_items`."""
        return replace(self, tables=self.tables.with_products(products))

    def with_live(self, live: LiveEvidence) -> "Recommender":
        """The same recommender reading live evidence beside its own; what is counted later counts at once."""
        return replace(self, tables=self.tables.with_live(live))

    def without_recent_popularity(self) -> "Recommender":
        """The same recommender for leave-one-out, where the end of the training period lies after most targets."""
        return replace(self, tables=replace(self.tables, recent=None, newcomers=None))

    def with_items_of(self, other: "Recommender") -> "Recommender":
        """This recommender's users with the items of another recommender of the same release."""
        return other.with_users(
            group_layers=self.tables.group_layers,
            user_items=self.tables.user_items,
            nearest_users=self.nearest_users,
        )

    def _known(self, histories: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """The histories with every added item replaced by its stand-in, or left out where it has none."""
        stand_ins = self.stand_ins
        if stand_ins is None:
            return histories
        return [[row for row in stand_ins[list(history)].tolist() if row >= 0] for history in histories]

    def search(self, requests: Sequence[RankingRequest], interests: UserInterests) -> SearchOutput:
        """Runs the search graph once for B requests, and finds each one's best items by the query and the interest."""
        history, mask = pad_histories([r.history for r in requests], self.decoding.history_length)
        masks = [self.offered.masks.find(r.allowed) for r in requests]
        outputs = self.search_graph(
            {
                "history": history,
                "history_mask": mask,
                "explicit": interests.explicit,
                "group": interests.group,
                "task": np.array([_TASK_CODES[r.task] for r in requests], dtype=np.int64),
                "open_nodes": np.stack([m.open_nodes for m in masks]),
                **self.offered.graph_inputs,
            }
        )
        query, nothing = outputs["query"], np.zeros((len(requests), 0))
        k, explicit = self.decoding.num_dense, interests.explicit
        k_explicit = min(k, CHANNEL_LIMIT)
        return SearchOutput(
            query=query,
            beam_items=outputs.get("beam_items", nothing.astype(np.int64)),
            beam_log_probs=outputs.get("beam_log_probs", nothing.astype(np.float32)),
            dense=[self.dense_items.find(query[b], allowed, k) for b, allowed in enumerate(masks)],
            explicit=[self.explicit_items.find(explicit[b], allowed, k_explicit) for b, allowed in enumerate(masks)],
        )

    def rank(self, requests: Sequence[RankingRequest], interests: UserInterests) -> list[Ranked]:
        """The top n items of every request. A request with an empty history gets popular items."""
        ranked: list[Ranked | None] = [None if r.history else self._popular(r) for r in requests]
        searched = [b for b, answer in enumerate(ranked) if answer is None]
        if searched:
            with_history = [requests[b] for b in searched]
            part = interests.rows(searched)
            output = self.search(with_history, part)
            for place, b in enumerate(searched):
                ranked[b] = self.ranked(with_history[place], part, output, place)
        return [answer for answer in ranked if answer is not None]

    def ranked(self, request: RankingRequest, interests: UserInterests, output: SearchOutput, b: int) -> Ranked:
        """The top n items of a request with a history, from the search graph's output.

        Args:
            request: query b.
            interests: the interests of the batch.
            output: the search graph's output for the batch.
            b: the request's position in the batch.
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
        recent = self.tables.recent
        return {"group": group, **found, "popular": NOTHING if recent is None else recent.most_popular()}

    def candidates(
        self,
        request: RankingRequest,
        output: SearchOutput,
        evidence: dict[str, Evidence],
        b: int,
    ) -> Candidates:
        """The union of all channels' allowed items, with each channel's value for each item.

        Args:
            request: query b.
            output: the search graph's output for the batch.
            evidence: the evidence of query b.
            b: the request's position in the batch.
        """
        others = np.concatenate(
            [
                output.dense[b].items,
                output.explicit[b].items,
                *(channel.items for channel in evidence.values()),
                # A direct request ranks all of its candidates, those that no channel finds too.
                *([np.flatnonzero(request.allowed)] if request.task == "direct" else ()),
                *(() if request.also is None else (request.also,)),
            ]
        )
        # Beams come last: an item's first position tells whether another channel found it.
        union, first = np.unique(np.concatenate([others, output.beam_items[b]]), return_index=True)
        answerable = are_allowed(union, request.allowed)
        items, first = union[answerable], first[answerable]
        last, recent = int(request.history[-1]), self.tables.recent
        by_graph = output.explicit[b].log_probs_of(items)
        # An item without training interactions gets the lowest value of the others.
        known = np.isfinite(by_graph)
        by_graph[~known] = by_graph.min(where=known, initial=0)
        return gather(
            items,
            (output.beam_items[b], output.beam_log_probs[b]),
            dense=output.dense[b].log_probs_of(items),
            explicit=by_graph,
            evidence=evidence,
            popular=None if recent is None else recent.shares(items),
            last_item={
                name: last_item_evidence(self.tables.item_lists[name], last, limit=CHANNEL_LIMIT)
                for name in ITEM_CHANNELS
            },
            beams_only=first >= len(others),
            history_length=len(request.history),
            takers=self.tables.num_takers(items),
            last_takers=float(self.tables.num_takers(np.array([last]))[0]),
        )

    def _fused(self, request: RankingRequest, candidates: Candidates, evidence: dict[str, Evidence]) -> Ranked:
        if self.ranker is None or request.task == "direct":  # it was fitted on whole-catalogue requests
            fused = fuse(candidates, self.fusion, explained=request.n, boost=request.boost)
        else:
            fused = rerank(candidates, self.fusion, self.ranker, explained=request.n, boost=request.boost)
        items, scores = fused.items[: request.n].tolist(), fused.scores[: request.n].tolist()
        top = [
            RankedItem(item, round(score, SCORE_DIGITS), source)
            for item, score, source in zip(items, scores, fused.sources[: request.n], strict=True)
        ]
        if len(top) < request.n:
            top += self._fill(request, fused.items, top[-1].score if top else 0.0, request.n - len(top))
        return Ranked(top, fused, evidence)

    def _popular(self, request: RankingRequest) -> Ranked:
        return Ranked(_falling(self.for_newcomers(request.allowed, request.n), 0.0), None, {})

    def most_popular(self, allowed: BoolArray, taken: IntArray, count: int) -> list[int]:
        """The `count` most popular items that are allowed (N,) and not in `taken`, the most popular first.

        The most recent events decide, then how many users took an item in the training interactions, then the row.
        """
        return self._popular_items(self.tables.recent, allowed, taken, count)

    def for_newcomers(self, allowed: BoolArray, count: int) -> list[int]:
        """The same for users without a history, by what others took as their first items."""
        return self._popular_items(self.tables.newcomers, allowed, _NO_ITEMS, count)

    def _popular_items(
        self, popularity: RecentPopularity | None, allowed: BoolArray, taken: IntArray, count: int
    ) -> list[int]:
        takers, by_takers = self.tables.popularity, self.offered.by_popularity
        return popular_items(popularity, takers, by_takers=by_takers, allowed=allowed, taken=taken, count=count)

    def _fill(self, request: RankingRequest, taken: IntArray, below: float, count: int) -> list[RankedItem]:
        """The most popular allowed items that are not in `taken`."""
        return _falling(self.most_popular(request.allowed, taken, count), below)


_NO_ITEMS = np.zeros(0, np.int64)


def _falling(items: Sequence[int], below: float) -> list[RankedItem]:
    """Popular items in their order, with falling scores below `below`."""
    return [RankedItem(item, below - 1.0 - place, "popular") for place, item in enumerate(items)]
