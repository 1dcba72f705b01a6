"""The tables that a recommender reads, and how new items are added to them (arrays in, arrays out)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import FIRST_VARIANTS_FILE, LiveEvidenceSpec
from isrf.method.evidence import (
    ITEM_CHANNELS,
    ItemLists,
    SparseLists,
    lists_from_arrays,
)
from isrf.method.interest import (
    FloatArray,
    IntArray,
)
from isrf.method.recommend.live.live_counts import LiveCounts
from isrf.method.recommend.live.live_evidence import LiveEvidence
from isrf.method.recommend.live.live_lists import BaseCounts, LiveLists
from isrf.method.recommend.live.recent_popularity import RecentPopularity
from isrf.method.recommend.product_groups import ProductLists, Products
from isrf.method.trie import TrieTables, build_trie


@dataclass(frozen=True, kw_only=True)
class RecommenderTables:
    """A release's tables, everything except its graphs."""

    trie: TrieTables
    item_inputs: FloatArray  # (N, D)
    item_vectors: FloatArray  # (N, D)
    item_embeddings: FloatArray  # (N, E) LightGCN's, temperature folded in; zero without training interactions
    node_vectors: FloatArray  # (M, P + 1) a summary of the items below each node of the trie
    group_layers: NDArray[np.float16]  # (U, G)
    popularity: FloatArray  # (N,)
    item_lists: Mapping[str, ItemLists]  # one per item channel, a row per item
    user_items: SparseLists  # a row per base user
    live_base: "LiveBase | None" = None  # what live counts are added to; None in a release of before them
    recent: RecentPopularity | None = None  # None where nobody counted when the events were
    newcomers: RecentPopularity | None = None  # the same of users' first items, for users without a history
    live: LiveCounts | None = None  # events since the release; None: there are none
    products: Products | None = None  # None where no item has a variant

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], *, codebook_size: int, live_evidence: LiveEvidenceSpec | None = None
    ) -> "RecommenderTables":
        """The tables from a bundle's arrays by file name (`isrf.contract.manifest.ARRAYS`, `LIVE_ARRAYS`)."""
        live_base = None if live_evidence is None else LiveBase.from_arrays(live_evidence, arrays)
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
            live_base=live_base,
            recent=None if live_base is None else live_base.popularity(live_base.recent),
            newcomers=None if live_base is None else live_base.popularity(live_base.newcomers),
            products=Products.of_release(arrays[FIRST_VARIANTS_FILE]) if FIRST_VARIANTS_FILE in arrays else None,
        )

    @property
    def content(self) -> SparseLists:
        """The lists of similar items by content, to which no event adds anything."""
        lists = self.item_lists["content"]
        assert isinstance(lists, SparseLists)
        return lists

    @property
    def counts(self) -> NDArray[np.float64]:
        """(N, 1 or 5): users who took each item; where live counts are added to something, also to what."""
        base = self.live_base
        columns = [self.popularity, *([] if base is None else base[1:])]
        return np.stack(columns, axis=1).astype(np.float64)

    def num_takers(self, items: IntArray) -> FloatArray:
        """(c,) item rows → (c,) float32: users who took each in the training interactions, and the weights of the live
        events on it."""
        base = self.popularity[items]
        return base if self.live is None else (base + self.live.takers(items)).astype(np.float32)

    def recent_shares(self) -> FloatArray:
        """(N,) each item's share of recent events; of all users' takings where nobody counted when they were."""
        if self.recent is None:
            shares: FloatArray = self.popularity / max(float(self.popularity.sum()), 1.0)
            return shares
        return self.recent.shares(np.arange(len(self.popularity)))

    def live_evidence(self, memory_bytes: int) -> LiveEvidence | None:
        """New live evidence on a release's own tables, which has counted nothing; None where the release allows none.

        Args:
            memory_bytes: that the events take at most; the oldest fall out.
        """
        base = self.live_base
        if base is None:
            return None
        lists = {name: found for name, found in self.item_lists.items() if isinstance(found, SparseLists)}
        degrees = self.popularity
        return LiveEvidence(
            base.spec,
            transition=BaseCounts(lists["transition"], base.transition_totals, degrees),
            cooccurrence=BaseCounts(lists["cooccurrence"], base.cooccurrence_totals, degrees),
            popularity=base.popularity(base.recent),
            newcomers=base.popularity(base.newcomers),
            memory_bytes=memory_bytes,
            products=self.products,
        )

    def with_live(self, live: LiveEvidence) -> "RecommenderTables":
        """The same tables, read together with live evidence, which may count on meanwhile."""
        lists = {**self.item_lists, "transition": live.transition, "cooccurrence": live.cooccurrence}
        return replace(self, item_lists=lists, recent=live.popularity, newcomers=live.newcomers, live=live.counts)

    def with_products(self, products: Products) -> "RecommenderTables":
        """The same tables for the variants that the catalogue has now; call it once, after `with_items`."""
        lists = dict(self.item_lists)
        for name in ("transition", "cooccurrence"):
            found = lists[name]
            lists[name] = (
                found.with_products(products) if isinstance(found, LiveLists) else ProductLists(found, products)
            )
        return replace(self, item_lists=lists, products=products)

    def with_items(self, added: "AddedItems") -> "RecommenderTables":
        """The same users, and added items after the release's items.

        An added item gets the interaction-graph embedding of its stand-in. Of the evidence channels, content can find
        it, and those that live events give a row.
        """
        count = len(added.item_inputs)
        lists: dict[str, ItemLists] = {name: self.item_lists[name].with_rows(count) for name in ITEM_CHANNELS}
        by_graph = np.where(added.stand_ins[:, None] >= 0, self.item_embeddings[added.stand_ins], 0.0)
        lists["content"] = _with_rows(_with_entries(self.content, added), added.content)
        return replace(
            self,
            item_inputs=np.concatenate([self.item_inputs, added.item_inputs]),
            item_vectors=np.concatenate([self.item_vectors, added.item_vectors]),
            item_embeddings=np.concatenate([self.item_embeddings, by_graph.astype(np.float32)]),
            popularity=_with_zeros(self.popularity, count),
            item_lists=lists,
        )


class LiveBase(NamedTuple):
    """A release's own counts, as far as live counts are added to them."""

    spec: LiveEvidenceSpec
    transition_totals: FloatArray  # (N,)
    cooccurrence_totals: FloatArray  # (N,)
    recent: NDArray[np.float64]  # (N,) weights of recent events as of the reference time
    newcomers: NDArray[np.float64]  # (N,) the same of newcomers' events

    @classmethod
    def from_arrays(cls, spec: LiveEvidenceSpec, arrays: Mapping[str, NDArray[Any]]) -> "LiveBase":
        return cls(spec, *(arrays[f"evidence/{name}.npy"] for name in cls._fields[1:]))

    def popularity(self, weights: NDArray[np.float64]) -> RecentPopularity:
        """New recent popularity from `recent` or `newcomers`; whoever counts events into it needs one of their own."""
        spec = self.spec
        return RecentPopularity(weights, reference_s=spec.reference_s, half_life_s=spec.popularity_half_life_s)


class AddedItems(NamedTuple):
    """x items added since the release, known by their text alone; their rows follow the release's."""

    item_inputs: FloatArray  # (x, D)
    item_vectors: FloatArray  # (x, D)
    stand_ins: IntArray  # (x,) the release's item that the interaction graph uses in its place, −1 for none
    content: SparseLists  # a row per added item: the release's items with similar content
    content_places: FloatArray  # (entries of `content`,) the added item's weight in the content list of each of these


def _with_zeros(rows: FloatArray, count: int) -> FloatArray:
    return np.concatenate([rows, np.zeros((count, *rows.shape[1:]), dtype=rows.dtype)])


def _with_rows(lists: SparseLists, more: SparseLists) -> SparseLists:
    return SparseLists(
        np.concatenate([lists.indptr, lists.indptr[-1] + more.indptr[1:]]),
        np.concatenate([lists.indices, more.indices]),
        np.concatenate([lists.weights, more.weights]),
    )


def _with_entries(lists: SparseLists, added: AddedItems) -> SparseLists:
    """The release's content lists with the added items inserted; a list still sums to 1."""
    num_rows = len(lists.indptr) - 1
    inserted = added.content_places > 0
    rows = added.content.indices[inserted].astype(np.int64)
    counts = np.diff(added.content.indptr)
    items = np.repeat(num_rows + np.arange(len(counts)), counts)[inserted]
    weights = added.content_places[inserted]
    scale = 1.0 / (1.0 + np.bincount(rows, weights=weights, minlength=num_rows))
    before = lists.weights.copy()
    for row in np.unique(rows):  # few of all rows
        before[lists.row(row)] *= scale[row]
    order = np.argsort(rows, kind="stable")
    at = lists.indptr[rows[order] + 1]
    return SparseLists(
        lists.indptr + np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))]),
        np.insert(lists.indices, at, items[order].astype(np.int32)),
        np.insert(before, at, (weights * scale[rows])[order].astype(np.float32)),
    )
