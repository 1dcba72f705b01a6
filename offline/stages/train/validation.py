"""Validates the model during training: NDCG@10 of both learned paths and of the fused list, on validation users.

It uses the code that serves (`isrf.method.recommend`), with the torch search in place of the exported graph. For every
epoch it chooses the fusion weights as `evaluate` does, on the same users. So the figures are optimistic, but equally
for every epoch: they only serve to compare epochs.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from isrf.method.interest import read_history
from isrf.method.metrics import ndcg, ranks_of
from isrf.method.ranking.fusion import CHANNELS, DEFAULT_FUSION, channel_order, fuse
from isrf.method.ranking.fusion_fit import choose_weights
from isrf.method.recommend.recommender import OfferedItems, Recommender
from isrf.method.recommend.tables import RecommenderTables
from isrf.method.trie import TrieTables
from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch
from isrf.runtime.item_index import ItemIndex
from offline.config import EvidenceConfig
from offline.context import StageContext
from offline.runtime.evidence import count_evidence
from offline.runtime.torch_graph import graph_of
from offline.stages.evaluate.lists import View, candidates_of, read_lists
from offline.stages.evaluate.questions import full_ranking
from offline.stages.evaluate.split import load_owners, sample_rows
from offline.stages.train.samples import SampleInterests

NUM_BEAMS = 20
NUM_DENSE = 100
CUTOFF = 10
PATHS = ("dense", "generative")


class Scores(NamedTuple):
    """NDCG@10 of every validation user (R,)."""

    dense: NDArray[np.float64]
    generative: NDArray[np.float64]
    fused: NDArray[np.float64]

    def means(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self._asdict().items()}


def make_validator(ctx: StageContext, interests: SampleInterests, trie: TrieTables) -> "Validator | None":
    """The validator of a training run; None where no validation interaction is held out."""
    held_out = pl.scan_parquet(ctx.inputs["ingest"] / "heldout.parquet").filter(pl.col("split") == "valid")
    return Validator(ctx, interests, trie) if held_out.select(pl.len()).collect().item() else None


class Validator:
    """Measures a model on validation users; made once for a training run and called after each epoch."""

    def __init__(self, ctx: StageContext, interests: SampleInterests, trie: TrieTables) -> None:
        config = ctx.config
        split = load_owners(ctx.inputs["ingest"], "valid")
        self._split = split.rows(sample_rows(split, config.train.validation_users, config.seed))
        self._interests, self._trie = interests, trie
        self._config, self._progress = config, ctx.progress
        # The default list length, not the configured one: a change of that setting must not require a new training.
        self._counted = count_evidence(ctx.inputs, num_users=len(interests.group_layers), config=EvidenceConfig())

    @torch.no_grad()
    def __call__(self, model: IsrfModel) -> Scores:
        """Measures the model; leaves it in training mode."""
        model.eval()
        question = full_ranking(self._split, model.spec.num_items, tie_seed=None)
        recommender = self._recommender(model)
        source = candidates_of(recommender, self._split, question, progress=self._progress, title="train: validating")
        candidates, targets = list(source), self._split.targets
        model.train()
        fusion = choose_weights(candidates, targets, start=DEFAULT_FUSION).fusion
        views: dict[str, View] = {name: partial(channel_order, channel=CHANNELS.index(name)) for name in PATHS}
        views["fused"] = lambda request: fuse(request, fusion, explained=0).items
        lists = read_lists(candidates, len(candidates), views)
        return Scores(**{name: ndcg(ranks_of(items, targets), CUTOFF) for name, items in lists.items()})

    def _recommender(self, model: IsrfModel) -> Recommender:
        search = ConstrainedSearch(model, num_beams=NUM_BEAMS).eval()
        embeddings, vectors = model.part_graph.cpu().numpy(), model.item_vectors().cpu().numpy()
        tables = RecommenderTables(
            trie=self._trie,
            item_inputs=model.item_inputs().cpu().numpy(),
            item_vectors=vectors,
            item_embeddings=embeddings,
            node_vectors=search.node_vectors(self._trie).cpu().numpy(),
            group_layers=self._interests.group_layers,
            popularity=self._counted.popularity,
            item_lists=self._counted.item_lists,
            user_items=self._counted.lists["user_items"],
        )
        return Recommender(
            tables=tables,
            offered=OfferedItems.of(tables),
            decoding=self._config.decoding.model_copy(update={"num_beams": NUM_BEAMS, "num_dense": NUM_DENSE}),
            group_search=self._interests.search,
            fusion=DEFAULT_FUSION,
            interest_graph=self._read,
            search_graph=graph_of(search.to(model.part_graph.device)),
            nearest_users=self._interests.nearest_users,
            dense_items=ItemIndex(vectors),
            explicit_items=ItemIndex(embeddings, zero_is_unknown=True),
        )

    def _read(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return read_history(self._interests.tables, arrays["history"], arrays["history_mask"])._asdict()
