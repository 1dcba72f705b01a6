"""What the model in training would answer: NDCG@10 of each path and of both, seen items excluded.

It asks the very search that is exported. Both paths are joined by the sum of their log-probabilities over the union of
beams and dense top, an item that no beam reached counting as the lowest beam's − `BEAM_GAP`; the evidence channels and
their weights come later (`evaluate`).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isrf.metrics import ndcg, ranks_of
from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch, SearchOutput
from isrf.trie import TrieTables
from offline.train.batches import take
from offline.train.samples import Samples, Sequences

BATCH = 128
NUM_BEAMS = 20
NUM_DENSE = 100
BEAM_GAP = 1.0
CUTOFF = 10


class Scores(NamedTuple):
    """NDCG@10."""

    dense: float
    generative: float
    joint: float

    @property
    def decisive(self) -> float:
        """What early stopping asks for: the mean of both paths, each of which is served as a channel of its own.

        Not the joint list: its equal weights are not those that fusion will choose, and it peaks while the
        generative path still gains.
        """
        return (self.dense + self.generative) / 2


@torch.no_grad()
def validate(
    model: IsrfModel, samples: Samples, sequences: Sequences, trie: TrieTables, device: torch.device
) -> Scores:
    """Scores of the validation samples; the model is left in training mode."""
    model.eval()
    search = ConstrainedSearch(model, num_beams=NUM_BEAMS, num_dense=min(NUM_DENSE, model.spec.num_items)).to(device)
    tables = search.tables(trie)
    tops: list[list[np.ndarray]] = [[], [], []]
    for first in range(0, len(samples.target), BATCH):
        rows = np.arange(first, min(first + BATCH, len(samples.target)))
        batch = take(samples, rows, 0, device)
        allowed = torch.from_numpy(_unseen(sequences, samples.users[rows], model.spec.num_items)).to(device)
        output = search(batch.history, batch.mask, batch.explicit, batch.group, batch.task, allowed, *tables)
        for top, items in zip(
            tops, (output.dense_items, output.beam_items, joint_items(output, tables[1])), strict=True
        ):
            top.append(items[:, :CUTOFF].cpu().numpy())
    model.train()
    return Scores(*(float(ndcg(ranks_of(np.concatenate(top), samples.target), CUTOFF).mean()) for top in tops))


def _unseen(sequences: Sequences, users: np.ndarray, num_items: int) -> np.ndarray:
    """(B, N) bool: everything but what the users bought in training."""
    allowed = np.ones((len(users), num_items), dtype=np.bool_)
    for row, user in enumerate(users.tolist()):
        events = slice(sequences.start[user], sequences.start[user + 1])
        allowed[row, sequences.items[events][sequences.bought[events]]] = False
    return allowed


def joint_items(output: SearchOutput, item_vectors: Tensor) -> Tensor:
    """(B, CUTOFF) items by the sum of both paths' log-probabilities."""
    beams, dense = output.beam_items, output.dense_items
    beam_scores = output.beam_log_probs
    floor = torch.where(beams >= 0, beam_scores, torch.inf).amin(1, keepdim=True) - BEAM_GAP
    of_beams = (item_vectors[beams.clamp(min=0)] @ output.query[:, :, None])[:, :, 0] - output.log_partition[:, None]
    same = dense[:, :, None] == beams[:, None, :]  # (B, M_d, K)
    generated = torch.where(same, beam_scores[:, None, :], -torch.inf).amax(2)
    dense_scores = output.dense_log_probs + torch.maximum(generated, floor)
    # A beam that the dense top holds as well is counted there.
    own = torch.where((beams >= 0) & ~same.any(1), of_beams + beam_scores, -torch.inf)
    dense_scores = torch.where(dense >= 0, dense_scores, -torch.inf)
    scores = torch.cat([dense_scores, own], dim=1)
    order = scores.topk(min(CUTOFF, scores.shape[1]), dim=1).indices
    return torch.cat([dense, beams], dim=1).gather(1, order)
