"""Computes the losses of a batch: both learned paths, and the alignment in the direction of the batch's task."""

from typing import NamedTuple

import torch
from torch import Tensor

from isrf.nn.losses import alignment_loss, candidate_loss, dense_loss, generation_loss, sampled_dense_loss
from isrf.nn.model import DIRECT, Decoded, Encoded, IsrfModel, ItemVectors
from isrf.nn.siblings import Choices, Siblings
from offline.config import TrainConfig
from offline.stages.train.batches import TrainingBatch

FULL_SOFTMAX_ITEMS = 100_000
"""Training scores all items of catalogues up to this size, and a sample of larger ones."""

NUM_SAMPLED_ITEMS = 8192


class Losses(NamedTuple):
    total: Tensor
    generation: Tensor
    dense: Tensor
    alignment: Tensor


def choice_logits(decoded: Decoded, choices: Choices, nodes: Tensor) -> Tensor:
    """Every choice's logit, (B, L, C), from its code and its node vector (`nodes`, the model's `node_vectors`)."""
    by_code = decoded.codes.gather(2, choices.codes)
    sample, level, place = choices.exists.nonzero(as_tuple=True)  # few positions hold a choice
    by_content = (decoded.content[sample, level] * nodes[choices.nodes[sample, level, place]]).sum(1)
    return by_code.index_put((sample, level, place), by_content.to(by_code.dtype), accumulate=True)


class _Catalogue(NamedTuple):
    """The items whose vectors a batch needs: all items, or a sample with the batch's own."""

    items: ItemVectors  # R items
    vectors: Tensor  # (R, D) dense-path vectors, with some identities dropped
    history: Tensor  # (B, S) rows into `items`
    target: Tensor  # (B,)
    pool: Tensor | None  # (P,) rows of the uniformly drawn items; None where all items are used


def batch_losses(
    model: IsrfModel,
    batch: TrainingBatch,
    siblings: Siblings,
    config: TrainConfig,
    generator: torch.Generator,
    *,
    nodes: Tensor | None = None,
) -> Losses:
    """The generation, dense and alignment losses of one batch; `generator` draws dropped identities and negatives.

    The first two weigh a sample as its target; alignment has no target and weighs all alike.

    `nodes` are the model's `node_vectors` from some steps ago, for a sampled catalogue; for a smaller catalogue they
    are computed for every batch.
    """
    catalogue = _catalogue(model, batch, generator)
    encoded = model.encode(
        _history_vectors(model, catalogue, generator), batch.mask, batch.explicit, batch.group, batch.task
    )
    codes = model.part_semantic_ids[batch.target]
    direct = int(batch.task[0]) == DIRECT
    choices = siblings.choices(batch.target, model.spec.codebook_size)
    if nodes is None:
        nodes = model.node_vectors(siblings, catalogue.vectors.detach())
    scores = None if direct or catalogue.pool is not None else encoded.query @ catalogue.vectors.T
    taught = None
    if scores is not None and config.distillation:
        # The target gives one code per level; the dense path's distribution tells how the other codes compare.
        taught = siblings.conditionals(choices, scores.detach().float().softmax(1))
    generation = generation_loss(
        choice_logits(model.decode(encoded, codes), choices, nodes),
        choices.own,
        choices.exists,
        taught=taught,
        distillation=config.distillation,
        weight=batch.weight,
    )
    if scores is not None:
        dense = dense_loss(scores, batch.target, weight=batch.weight)
    elif direct:
        dense = _direct(catalogue, encoded, batch, config, generator)
    else:
        dense = _sampled(model, catalogue, encoded, batch.weight)
    alignment = alignment_loss(
        encoded.group if direct else encoded.individual,
        encoded.individual if direct else encoded.group,
        valid=(encoded.group != 0).any(dim=1),
        users=batch.users,
        temperature=config.alignment_temperature,
    )
    total = config.generation_weight * generation + config.dense_weight * dense + config.alignment_weight * alignment
    return Losses(total, generation, dense, alignment)


def _catalogue(model: IsrfModel, batch: TrainingBatch, generator: torch.Generator) -> _Catalogue:
    num_items = model.spec.num_items
    if num_items <= FULL_SOFTMAX_ITEMS:
        items = model.items()
        return _Catalogue(items, _dropped_vectors(model, items, generator), batch.history, batch.target, None)
    pool = torch.randint(num_items, (NUM_SAMPLED_ITEMS,), generator=generator).to(batch.target.device)
    needed = torch.cat([pool, batch.target, batch.history.flatten()])
    rows, places = torch.unique(needed, return_inverse=True)
    items = model.items(rows)
    pool_rows, target, history = places.split([len(pool), len(batch.target), batch.history.numel()])
    vectors = _dropped_vectors(model, items, generator)
    return _Catalogue(items, vectors, history.view_as(batch.history), target, pool_rows)


def _dropped_vectors(model: IsrfModel, items: ItemVectors, generator: torch.Generator) -> Tensor:
    has_identity = model.draw_identity(items, (len(items.text),), generator)
    return model.vectors_of(items._replace(identity=items.identity * has_identity))


def _history_vectors(model: IsrfModel, catalogue: _Catalogue, generator: torch.Generator) -> Tensor:
    """The encoder's inputs for the histories, (B, S, D); the identity is dropped independently at each position."""
    items = ItemVectors(*(torch.nn.functional.embedding(catalogue.history, part) for part in catalogue.items))
    has_identity = model.draw_identity(items, tuple(catalogue.history.shape), generator)
    return model.inputs_of(items._replace(identity=items.identity * has_identity))


def _sampled(model: IsrfModel, catalogue: _Catalogue, encoded: Encoded, weight: Tensor | None) -> Tensor:
    assert catalogue.pool is not None
    return sampled_dense_loss(
        encoded.query,
        catalogue.vectors[catalogue.target],
        catalogue.vectors[catalogue.pool],
        collision=catalogue.pool[None] == catalogue.target[:, None],
        num_items=model.spec.num_items,
        weight=weight,
    )


def _direct(
    catalogue: _Catalogue, encoded: Encoded, batch: TrainingBatch, config: TrainConfig, generator: torch.Generator
) -> Tensor:
    """The loss of the target among `num_direct_negatives` other items, drawn uniformly for each sample."""
    shape = (len(batch.target), config.num_direct_negatives)
    if catalogue.pool is None:
        negatives = torch.randint(len(catalogue.vectors), shape, generator=generator).to(batch.target.device)
    else:
        drawn = torch.randint(len(catalogue.pool), shape, generator=generator).to(batch.target.device)
        negatives = catalogue.pool[drawn]
    candidates = torch.cat([catalogue.target[:, None], negatives], dim=1)
    collision = candidates == catalogue.target[:, None]
    collision[:, 0] = False
    vectors = torch.nn.functional.embedding(candidates, catalogue.vectors)
    return candidate_loss(encoded.query, vectors, collision, weight=batch.weight)
