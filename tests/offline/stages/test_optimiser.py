"""A large catalogue's id embeddings are updated where a batch has read them, as AdamW updates all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from offline.stages.train import loop, objective
from offline.stages.train import stage as train
from offline.stages.train.build import WEIGHTS_FILE, load_parts, new_model
from offline.stages.train.optimiser import RowAdamW, clip_gradients
from tests.offline.stages.train_inputs import DIM, context, small_config, write_inputs

NUM_ROWS, WIDTH = 12, 3


def trained(*, sparse: bool, batches: list[Tensor], weight_decay: float = 0.1, clip: float = 0.5) -> list[Tensor]:
    """The embeddings and the weights behind them after a step per batch."""
    torch.manual_seed(0)
    table, head = nn.Embedding(NUM_ROWS, WIDTH, sparse=sparse), nn.Linear(WIDTH, 1)
    parameters = [*table.parameters(), *head.parameters()]
    optimiser = RowAdamW(parameters, lr=0.05, weight_decay=weight_decay)
    for rows in batches:
        optimiser.zero_grad(set_to_none=True)
        head(table(rows)).square().sum().backward()
        clip_gradients(parameters, clip)
        optimiser.step()
    return [parameter.detach().clone() for parameter in parameters]


@pytest.mark.parametrize("clip", [0.01, 1000.0])
def test_rows_read_by_every_batch_are_updated_as_by_adamw(clip: float) -> None:
    everything = torch.arange(NUM_ROWS)
    batches = [torch.cat([everything, everything[:5]]), everything.flip(0), everything]
    for one, other in zip(
        *(trained(sparse=sparse, batches=batches, clip=clip) for sparse in (True, False)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_rows_that_no_batch_reads_stay_as_they_are() -> None:
    before = trained(sparse=True, batches=[])[0]
    after = trained(sparse=True, batches=[torch.tensor([1, 4]), torch.tensor([4, 7])])[0]
    changed = (before != after).any(1).nonzero().flatten().tolist()
    assert changed == [1, 4, 7]


def test_without_a_sparse_gradient_every_bit_is_adamws() -> None:
    torch.manual_seed(1)
    models = [nn.Linear(WIDTH, WIDTH) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimisers = RowAdamW(models[0].parameters(), lr=0.05), torch.optim.AdamW(models[1].parameters(), lr=0.05)
    clips: tuple[Callable[..., object], ...] = (clip_gradients, nn.utils.clip_grad_norm_)
    values = torch.randn(4, WIDTH)
    for _ in range(3):
        for model, optimiser, clip in zip(models, optimisers, clips, strict=True):
            optimiser.zero_grad()
            model(values).square().sum().backward()
            clip(model.parameters(), 0.5)
            optimiser.step()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def _sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small catalogue is trained as a large one."""
    for module in (loop, objective):
        monkeypatch.setattr(module, "FULL_SOFTMAX_ITEMS", 10)
    monkeypatch.setattr(loop, "NODE_REFRESH_STEPS", 1)


@pytest.mark.usefixtures("_sampled")
def test_a_killed_run_over_a_sampled_catalogue_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, config = write_inputs(tmp_path), small_config("train.checkpoint_every_s=0", "train.patience=0")
    whole, killed = context(tmp_path, inputs, "whole", config), context(tmp_path, inputs, "killed", config)
    train.run(whole)
    real, done = objective.batch_losses, 0

    def until_killed(*args: Any, **settings: Any) -> objective.Losses:
        nonlocal done
        done += 1
        if done == 6:
            raise KeyboardInterrupt
        return real(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "batch_losses", until_killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(killed)
    train.run(killed)
    assert (killed.out / WEIGHTS_FILE).read_bytes() == (whole.out / WEIGHTS_FILE).read_bytes()


def test_item_vectors_by_blocks_are_those_of_all_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = load_parts(write_inputs(tmp_path))
    model = new_model(small_config(), parts, explicit_dim=DIM, group_dim=DIM)
    inputs, vectors = model.item_inputs(), model.item_vectors()
    monkeypatch.setattr("isrf.nn.model.BLOCK_ITEMS", 7)
    torch.testing.assert_close(model.item_inputs(), inputs)
    torch.testing.assert_close(model.item_vectors(), vectors)
