"""Training predicts heavy events more than light ones, and where all weigh alike it trains as it always has."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from isrf.contract.errors import StageError
from isrf.method.trie import build_trie
from isrf.nn.model import DIRECT, SEQUENTIAL
from isrf.nn.siblings import Siblings
from offline.stages.graph.stage import _edges, _read_interactions
from offline.stages.train import objective
from offline.stages.train import stage as train
from offline.stages.train.batches import take
from offline.stages.train.build import WEIGHTS_FILE, load_parts, new_model
from offline.stages.train.samples import TrainingSamples, read_sequences, training_samples
from tests.offline.stages.train_inputs import DIM, NUM_ITEMS, NUM_USERS, context, small_config, write_inputs


def inputs_of(folder: Path, weights: Any, events: NDArray[np.int64] | None = None) -> dict[str, Path]:
    """The inputs of `train`; weights: of all events in order, or one for all."""
    inputs = write_inputs(folder, events=events)
    path = inputs["ingest"] / "train.parquet"
    table = pl.read_parquet(path)
    column = np.broadcast_to(np.asarray(weights, dtype=np.float64), (table.height,))
    table.with_columns(pl.Series("weight", column)).write_parquet(path)
    return inputs


def samples_of(folder: Path, weights: Any) -> TrainingSamples:
    inputs = inputs_of(folder, weights)
    interests = train.load_interests(context(folder, inputs, "train", small_config()))
    return training_samples(read_sequences(inputs["ingest"], NUM_USERS), interests, history_length=5, interest_length=8)


def test_a_sample_weighs_as_its_target_and_one_of_weight_0_is_none(tmp_path: Path) -> None:
    alike = samples_of(tmp_path / "alike", 0.3)
    assert (alike.weight == 1).all()
    each = np.tile([7.0, 0.5, 0.0, 1.0, 1.0, 2.0, 3.0], NUM_USERS)
    weighed = samples_of(tmp_path / "weighed", each)
    kept = np.tile([True, False, True, True, True, True], NUM_USERS)  # of the targets, which are all but the first
    for name, column in alike._asdict().items():
        if name != "weight":
            np.testing.assert_array_equal(getattr(weighed, name), column[kept])
    np.testing.assert_allclose(weighed.weight, np.tile(np.array([0.5, 1, 1, 2, 3]) / 1.5, NUM_USERS), rtol=1e-6)


def test_only_a_batch_with_other_weights_is_weighed(tmp_path: Path) -> None:
    samples = samples_of(tmp_path, np.tile([1, 1, 1, 1, 1, 1, 2.0], NUM_USERS))
    samples = samples._replace(weight=np.tile(np.array([1, 1, 1, 1, 1, 2], np.float32), NUM_USERS))
    device = torch.device("cpu")
    assert take(samples, np.arange(5), SEQUENTIAL, device).weight is None
    found = take(samples, np.arange(3, 7), SEQUENTIAL, device).weight
    assert found is not None
    assert found.tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize("limit", [NUM_ITEMS, 10])
@pytest.mark.parametrize("task", [SEQUENTIAL, DIRECT])
def test_the_losses_weigh_samples_but_not_the_alignment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: int, limit: int
) -> None:
    monkeypatch.setattr(objective, "FULL_SOFTMAX_ITEMS", limit)
    samples = samples_of(tmp_path, 1.0)
    config, parts = small_config("model.item_id_dropout=0", "model.dropout=0"), load_parts(write_inputs(tmp_path / "p"))
    model = new_model(config, parts, explicit_dim=DIM, group_dim=DIM).eval()
    trie = build_trie(parts.semantic_ids.numpy().astype(np.int32), config.semantic_ids.codebook_size)
    siblings = Siblings.of(trie, torch.device("cpu"))
    batch = take(samples, np.arange(20), task, torch.device("cpu"))

    def losses(weight: torch.Tensor | None) -> objective.Losses:
        generator = torch.Generator().manual_seed(0)
        return objective.batch_losses(model, batch._replace(weight=weight), siblings, config.train, generator)

    plain, alike, heavy = losses(None), losses(torch.ones(20)), losses(torch.full((20,), 3.0))
    first, rest = (
        losses((torch.arange(20) < 10).float() * on + (torch.arange(20) >= 10).float() * off)
        for on, off in ((1.0, 0.0), (0.0, 1.0))
    )
    for name in ("generation", "dense"):
        torch.testing.assert_close(getattr(alike, name), getattr(plain, name))
        torch.testing.assert_close(getattr(heavy, name), 3 * getattr(plain, name))
        torch.testing.assert_close(getattr(first, name) + getattr(rest, name), getattr(plain, name))
    assert heavy.alignment.item() == plain.alignment.item() == first.alignment.item()


def test_equal_weights_train_the_same_model_to_the_last_bit(tmp_path: Path) -> None:
    models = []
    for weight in (1.0, 0.1):
        folder = tmp_path / str(weight)
        ctx = context(folder, inputs_of(folder, weight), "train", small_config("train.patience=0"))
        train.run(ctx)
        models.append(load_file(ctx.out / WEIGHTS_FILE))
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_nothing_to_predict_is_refused(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, np.tile([1.0, 0, 0, 0, 0, 0, 0], NUM_USERS))
    with pytest.raises(StageError) as caught:
        train.run(context(tmp_path, inputs, "train", small_config()))
    assert caught.value.code == "train.no_samples"
    assert "weight above 0" in caught.value.message


def test_an_edge_has_the_weight_of_the_pair_s_heaviest_event(tmp_path: Path) -> None:
    events = np.tile(np.array([1, 2, 1, 3, 2, 4, 1]), (NUM_USERS, 1))
    inputs = inputs_of(tmp_path, np.tile([0.1, 1.0, 3.0, 0.0, 0.1, 1.0, 0.5], NUM_USERS), events)
    edges = _edges(_read_interactions(inputs["ingest"]))
    assert edges.weights is not None
    assert edges.items[edges.users == 0].tolist() == [3, 2, 4, 1]
    assert edges.weights[edges.users == 0].tolist() == [0.0, 1.0, 1.0, 3.0]
