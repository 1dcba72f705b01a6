"""One batch's loss: both paths, and the alignment in the direction of the batch's task."""

from typing import NamedTuple

import torch
from torch import Tensor

from isrf.nn.losses import alignment_loss, candidate_loss, dense_loss, generation_loss, sampled_dense_loss
from isrf.nn.model import DIRECT, Decoded, Encoded, IsrfModel, ItemVectors
from isrf.nn.siblings import Choices, Siblings
from offline.config import TrainConfig
from offline.stages.train.batches import TrainingBatch

FULL_SOFTMAX_ITEMS = 100_000
"""Catalogues up to this size are scored whole in training; larger ones are sampled."""

NUM_SAMPLED_ITEMS = 8192


class Losses(NamedTuple):
    total: Tensor
    generation: Tensor
    dense: Tensor
    alignment: Tensor


def choice_logits(decoded: Decoded, choices: Choices, nodes: Tensor) -> Tensor:
    """(B, L, C): every choice's logit, by its code and by what lies below it (`nodes`, the model's `node_vectors`)."""
    by_code = decoded.codes.gather(2, choices.codes)
    sample, level, place = choices.exists.nonzero(as_tuple=True)  # few places hold a choice
    by_content = (decoded.content[sample, level] * nodes[choices.nodes[sample, level, place]]).sum(1)
    return by_code.index_put((sample, level, place), by_content.to(by_code.dtype), accumulate=True)


class _Catalogue(NamedTuple):
    """The items whose vectors this batch computes: all of them, or those it needs."""

    items: ItemVectors  # R items
    vectors: Tensor  # (R, D) dense-path vectors, some identities dropped
    history: Tensor  # (B, S) rows into `items`
    target: Tensor  # (B,)
    pool: Tensor | None  # (P,) rows of the uniformly drawn items, where the catalogue is sampled


def batch_losses(
    model: IsrfModel,
    batch: TrainingBatch,
    siblings: Siblings,
    config: TrainConfig,
    generator: torch.Generator,
    *,
    nodes: Tensor | None = None,
) -> Losses:
    """Generation + dense + alignment of one batch; `generator` decides drops and negatives.

    `nodes` are the model's `node_vectors` of some steps ago, for a catalogue that is sampled; a smaller one's are
    made anew for every batch.
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
        # One target says one code a level; the dense path's beliefs say how the others compare.
        taught = siblings.conditionals(choices, scores.detach().float().softmax(1))
    generation = generation_loss(
        choice_logits(model.decode(encoded, codes), choices, nodes),
        choices.own,
        choices.exists,
        taught=taught,
        distillation=config.distillation,
    )
    if scores is not None:
        dense = dense_loss(scores, batch.target)
    elif direct:
        dense = _direct(catalogue, encoded, batch, config, generator)
    else:
        dense = _sampled(model, catalogue, encoded)
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
    wanted = torch.cat([pool, batch.target, batch.history.flatten()])
    rows, places = torch.unique(wanted, return_inverse=True)
    items = model.items(rows)
    drawn, target, history = places.split([len(pool), len(batch.target), batch.history.numel()])
    vectors = _dropped_vectors(model, items, generator)
    return _Catalogue(items, vectors, history.view_as(batch.history), target, drawn)


def _dropped_vectors(model: IsrfModel, items: ItemVectors, generator: torch.Generator) -> Tensor:
    kept = model.draw_identity(items, (len(items.text),), generator)
    return model.vectors_of(items._replace(identity=items.identity * kept))


def _history_vectors(model: IsrfModel, catalogue: _Catalogue, generator: torch.Generator) -> Tensor:
    """(B, S, D): the identity part is dropped per occurrence."""
    items = ItemVectors(*(torch.nn.functional.embedding(catalogue.history, part) for part in catalogue.items))
    kept = model.draw_identity(items, tuple(catalogue.history.shape), generator)
    return model.inputs_of(items._replace(identity=items.identity * kept))


def _sampled(model: IsrfModel, catalogue: _Catalogue, encoded: Encoded) -> Tensor:
    assert catalogue.pool is not None
    return sampled_dense_loss(
        encoded.query,
        catalogue.vectors[catalogue.target],
        catalogue.vectors[catalogue.pool],
        collision=catalogue.pool[None] == catalogue.target[:, None],
        num_items=model.spec.num_items,
    )


def _direct(
    catalogue: _Catalogue, encoded: Encoded, batch: TrainingBatch, config: TrainConfig, generator: torch.Generator
) -> Tensor:
    """The target among `num_direct_negatives` others, drawn uniformly for each sample."""
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
    return candidate_loss(encoded.query, vectors, collision)
