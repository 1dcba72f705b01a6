"""Training learns, hides the target from its own sample, resumes to the last bit, and fails with advice."""

import json
import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import T5Config, T5ForConditionalGeneration

from isrf.contract.errors import ConfigError, StageError
from isrf.method.interest import unit_rows
from isrf.method.trie import build_trie
from isrf.nn.model import DIRECT, SEQUENTIAL
from isrf.nn.siblings import Siblings
from offline.engine import local
from offline.stages.evaluate.split import load_split
from offline.stages.train import checkpoint, loop, objective
from offline.stages.train import stage as train
from offline.stages.train.batches import plan_epoch, take
from offline.stages.train.build import SPEC_FILE, WEIGHTS_FILE, load_model, load_parts, new_model
from offline.stages.train.samples import Sequences, TrainingSamples, read_sequences, training_samples
from offline.stages.train.validation import Scores, Validator
from tests.offline.stages.train_inputs import (
    DIM,
    NUM_ITEMS,
    NUM_USERS,
    context,
    small_config,
    write_held_out,
    write_inputs,
)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def samples_of(folder: Path, events: np.ndarray | None = None) -> tuple[TrainingSamples, Sequences]:
    inputs = write_inputs(folder, events=events)
    ctx = context(folder, inputs, "train", small_config())
    sequences = read_sequences(inputs["ingest"], NUM_USERS)
    return training_samples(sequences, train.load_interests(ctx), history_length=5, interest_length=8), sequences


def walk() -> np.ndarray:
    return np.random.default_rng(5).integers(0, NUM_ITEMS - 1, (NUM_USERS, 7))


def test_every_item_but_the_first_is_a_target_once(tmp_path: Path) -> None:
    events = walk()
    samples, _ = samples_of(tmp_path, events)
    assert len(samples.target) == NUM_USERS * 6
    for place, target in enumerate(samples.target.tolist()):
        user, end = place // 6, place % 6 + 1
        assert samples.users[place] == user
        assert target == events[user, end]
        history = events[user, :end][::-1][:5].tolist()
        assert samples.length[place] == len(history)
        assert samples.history[place].tolist() == history + [0] * (5 - len(history))


def test_no_sample_sees_its_target(tmp_path: Path) -> None:
    """Another last item changes the last target of every user and nothing else."""
    events = walk()
    other = events.copy()
    other[:, -1] = (other[:, -1] + 7) % (NUM_ITEMS - 1)
    one, _ = samples_of(tmp_path / "one", events)
    two, _ = samples_of(tmp_path / "two", other)
    assert (one.target != two.target).sum() == NUM_USERS
    for name in ("users", "history", "length", "explicit", "group"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_a_sample_is_never_its_own_neighbour(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    config = small_config()
    sequences = read_sequences(inputs["ingest"], NUM_USERS)
    interests = train.load_interests(context(tmp_path, inputs, "train", config))

    def nearest_is_oneself(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        # Every base user is equally near, so the own row is always among the offered.
        return (
            np.full((len(features), NUM_USERS), 0.9, dtype=np.float32),
            np.tile(np.arange(NUM_USERS), (len(features), 1)),
        )

    layers = np.zeros((NUM_USERS, DIM), dtype=np.float16)
    layers[3, 0] = 1.0  # only user 3 says anything
    search = interests.search.model_copy(update={"max_neighbours": NUM_USERS})
    rigged = interests._replace(nearest_users=nearest_is_oneself, group_layers=layers, search=search)
    samples = training_samples(sequences, rigged, history_length=5, interest_length=8)
    assert (samples.group[samples.users == 3] == 0).all()
    np.testing.assert_array_equal(samples.group[samples.users != 3][:, 0], 1.0)


def test_validation_never_opens_the_test_rows(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    rng = np.random.default_rng(1)
    valid = rng.integers(0, NUM_ITEMS, NUM_USERS)
    write_held_out(inputs["ingest"], valid, rng.integers(0, NUM_ITEMS, NUM_USERS))
    one = load_split(inputs["ingest"], "valid")
    np.testing.assert_array_equal(one.targets, valid[one.users])
    write_held_out(inputs["ingest"], valid, rng.integers(0, NUM_ITEMS, NUM_USERS))
    two = load_split(inputs["ingest"], "valid")
    assert one.histories == two.histories
    np.testing.assert_array_equal(one.targets, two.targets)


def test_the_list_that_is_judged_is_the_fused_one(tmp_path: Path) -> None:
    """What follows is in the transitions' evidence, so an untrained model's fused list finds what its paths do not."""
    inputs = write_inputs(tmp_path)
    config = small_config("train.validation_users=40")
    ctx = context(tmp_path, inputs, "train", config)
    parts = load_parts(inputs)
    trie = build_trie(parts.semantic_ids.numpy().astype(np.int32), config.semantic_ids.codebook_size)
    model = new_model(config, parts, explicit_dim=DIM, group_dim=DIM)
    judged = Validator(ctx, train.load_interests(ctx), trie)(model)
    assert model.training
    assert {len(gains) for gains in judged} == {40}
    scores = judged.means()
    assert scores["fused"] > 0.4
    assert scores["dense"] < 0.2
    assert scores["generative"] < 0.2


def test_an_epoch_has_every_sample_once_and_its_share_of_direct_batches() -> None:
    length = np.random.default_rng(0).integers(1, 20, 1003)
    plan = plan_epoch(length, batch_size=16, direct_share=0.25, seed=3, epoch=1)
    assert sorted(np.concatenate(plan.batches).tolist()) == list(range(1003))
    assert plan.tasks.count(DIRECT) == len(plan.tasks) // 4
    assert plan.tasks[:8] == [SEQUENTIAL, SEQUENTIAL, SEQUENTIAL, DIRECT] * 2
    again = plan_epoch(length, batch_size=16, direct_share=0.25, seed=3, epoch=1)
    other = plan_epoch(length, batch_size=16, direct_share=0.25, seed=3, epoch=2)
    assert all((a == b).all() for a, b in zip(plan.batches, again.batches, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(plan.batches, other.batches, strict=True))


def test_sampled_and_full_softmax_read_the_same_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit only the batch's own items are computed; the generation loss, without its teacher, cannot tell."""
    samples, _ = samples_of(tmp_path)
    config = small_config("model.item_id_dropout=0", "train.distillation=0")
    parts = load_parts(write_inputs(tmp_path / "parts"))
    model = new_model(config, parts, explicit_dim=DIM, group_dim=DIM).eval()
    trie = build_trie(parts.semantic_ids.numpy().astype(np.int32), config.semantic_ids.codebook_size)
    siblings = Siblings.of(trie, torch.device("cpu"))
    for task in (SEQUENTIAL, DIRECT):
        batch = take(samples, np.arange(20), task, torch.device("cpu"))
        full = objective.batch_losses(model, batch, siblings, config.train, torch.Generator().manual_seed(0))
        monkeypatch.setattr(objective, "FULL_SOFTMAX_ITEMS", 10)
        sampled = objective.batch_losses(model, batch, siblings, config.train, torch.Generator().manual_seed(0))
        monkeypatch.undo()
        torch.testing.assert_close(sampled.generation, full.generation)
        torch.testing.assert_close(sampled.alignment, full.alignment)
        assert sampled.dense.item() == pytest.approx(full.dense.item(), rel=0.2)


def test_the_stage_learns_the_rule_and_writes_what_loads(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    config = small_config("train.epochs=40", "train.patience=40", "train.learning_rate=0.01", "model.dropout=0")
    ctx = context(tmp_path, inputs, "train", config)
    train.run(ctx)
    log = [json.loads(line) for line in (ctx.out / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    scores = [line["NDCG@10"] for line in log if "NDCG@10" in line]
    assert losses[-1] < losses[0] / 2
    assert max(score["dense"] for score in scores) > 0.5
    assert max(score["generative"] for score in scores) > 0.2  # by chance 0.08
    assert max(score["fused"] for score in scores) > 0.5
    model = load_model({**inputs, "train": ctx.out})
    weights = load_file(ctx.out / WEIGHTS_FILE)
    assert not model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


USERS = np.random.default_rng(0).random(400)  # what each of them gains differs
NOISE = np.random.default_rng(1).normal(size=400)
NOISE -= NOISE.mean()


@pytest.mark.parametrize(
    ("epochs", "judged", "kept"),
    [
        ([USERS, USERS + 0.2, USERS + 0.1, USERS + 0.1, USERS + 0.9], 4, 1),  # two worse ones, and it is over
        ([USERS, USERS + 0.1, USERS, USERS + 0.1, USERS], 5, 3),  # in a row
        ([USERS, USERS - 0.01 + NOISE, USERS - 0.02 + NOISE], 3, 2),  # less than a standard error, 0.05
        ([USERS, *(USERS - 0.03 * k + NOISE for k in (1, 2, 3, 4))], 4, 1),  # against the best, not the one before
    ],
)
def test_early_stopping_keeps_the_latest_epoch_that_is_no_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: list[np.ndarray], judged: int, kept: int
) -> None:
    inputs = write_inputs(tmp_path)
    config = small_config(f"train.epochs={len(epochs)}", "train.patience=2")
    ctx = context(tmp_path, inputs, "train", config)
    seen: list[dict[str, torch.Tensor]] = []

    def judge(self: Validator, model: torch.nn.Module) -> Scores:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Scores(*[epochs[len(seen) - 1]] * 3)

    monkeypatch.setattr(Validator, "__call__", judge)
    train.run(ctx)
    assert len(seen) == judged
    for name, value in load_file(ctx.out / WEIGHTS_FILE).items():
        torch.testing.assert_close(value, seen[kept][name], rtol=0, atol=0)


def test_without_patience_every_epoch_is_trained_and_nobody_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_inputs(tmp_path)
    impatient = context(tmp_path, inputs, "impatient", small_config("train.epochs=3", "train.patience=0"))
    train.run(impatient)
    log = [json.loads(line) for line in (impatient.out / "log.jsonl").read_text().splitlines()]
    assert {line["epoch"] for line in log} == {0, 1, 2}
    assert not any("NDCG@10" in line for line in log)
    given = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr(Validator, "__call__", lambda self, model: Scores(*[np.full(9, next(given))] * 3))
    judged = context(tmp_path, inputs, "judged", small_config("train.epochs=3"))  # the last epoch is the best
    train.run(judged)
    kept = load_file(judged.out / WEIGHTS_FILE)
    for name, value in load_file(impatient.out / WEIGHTS_FILE).items():
        torch.testing.assert_close(value, kept[name], rtol=0, atol=0)


def test_two_processes_take_the_steps_that_one_would(tmp_path: Path) -> None:
    """But for what each draws from its own share: here no drop-out, no alignment, no direct batches."""
    inputs = write_inputs(tmp_path)
    settings = ["model.dropout=0", "model.item_id_dropout=0", "train.alignment_weight=0", "train.direct_share=0"]
    settings += ["train.batch_size=31", "train.learning_rate=0.001"]
    weights = []
    for name, count in (("one", 1), ("two", 2)):
        ctx = context(tmp_path, inputs, name, small_config(*settings, f"train.processes={count}"))
        train.run(ctx)
        weights.append(load_file(ctx.out / WEIGHTS_FILE))
    start = new_model(small_config(), load_parts(inputs), explicit_dim=DIM, group_dim=DIM).state_dict()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=2e-4)
    assert any((weights[0][name] - value).abs().max() > 0.01 for name, value in start.items())


def test_a_process_that_fails_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = write_inputs(tmp_path)
    ctx = context(tmp_path, inputs, "train", small_config("train.processes=2"))
    save = np.save

    def save_but_samples(path: Path, array: NDArray[Any]) -> None:
        if not path.name.startswith("samples."):  # so the other process finds nothing to train on
            save(path, array)

    monkeypatch.setattr(np, "save", save_but_samples)
    with pytest.raises(StageError, match=r"samples\.users\.npy") as raised:
        train.run(ctx)
    assert raised.value.code == "train.process_failed"


class KilledError(Exception):
    pass


@pytest.mark.parametrize("steps", [1, 7, 8, 12])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """KilledError inside an epoch, at its last step, and in the next one; an epoch has eight steps."""
    inputs = write_inputs(tmp_path)
    config = small_config("train.checkpoint_every_s=0")
    whole = context(tmp_path, inputs, "whole", config)
    train.run(whole)

    killed = context(tmp_path, inputs, "killed", config)
    real, done = objective.batch_losses, 0

    def until_killed(*args: Any, **settings: Any) -> objective.Losses:
        nonlocal done
        if done == steps:
            raise KilledError
        done += 1
        return real(*args, **settings)

    monkeypatch.setattr(loop, "batch_losses", until_killed)
    with pytest.raises(KilledError):
        train.run(killed)
    monkeypatch.undo()
    assert not (killed.out / WEIGHTS_FILE).exists()
    (killed.scratch / "checkpoint.part").write_bytes(b"half a checkp")  # and it was writing one

    counted = 0

    def counting(*args: Any, **settings: Any) -> objective.Losses:
        nonlocal counted
        counted += 1
        return real(*args, **settings)

    monkeypatch.setattr(loop, "batch_losses", counting)
    train.run(killed)
    assert counted == 16 - steps
    assert (killed.out / WEIGHTS_FILE).read_bytes() == (whole.out / WEIGHTS_FILE).read_bytes()
    assert (killed.out / SPEC_FILE).read_bytes() == (whole.out / SPEC_FILE).read_bytes()


@pytest.mark.parametrize("damage", ["other run", "torn", "not a checkpoint"])
def test_a_checkpoint_that_does_not_fit_is_not_resumed(tmp_path: Path, damage: str) -> None:
    inputs = write_inputs(tmp_path)
    config = small_config("train.checkpoint_every_s=0")
    clean = context(tmp_path, inputs, "clean", config)
    train.run(clean)
    other = context(tmp_path, inputs, "other", config)
    path = other.scratch / loop.CHECKPOINT_FILE
    if damage == "other run":
        train.run(context(tmp_path, inputs, "other", small_config("train.checkpoint_every_s=0", "seed=1")))
    elif damage == "torn":
        path.write_bytes((clean.scratch / loop.CHECKPOINT_FILE).read_bytes()[:-100])
    else:
        path.write_bytes(b"\x00" * 40)
    train.run(other)
    assert (other.out / WEIGHTS_FILE).read_bytes() == (clean.out / WEIGHTS_FILE).read_bytes()


def test_a_loss_that_is_no_number_ends_the_run_with_advice_and_no_checkpoint(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    config = small_config("train.learning_rate=1e30", "train.checkpoint_every_s=0", "train.clip_norm=1e30")
    ctx = context(tmp_path, inputs, "train", config)
    with pytest.raises(StageError) as caught:
        train.run(ctx)
    assert caught.value.code == "train.nan_loss"
    assert "train.learning_rate (now 1e+30)" in caught.value.fix
    assert list(ctx.out.iterdir()) == []
    if (ctx.scratch / loop.CHECKPOINT_FILE).exists():
        saved = load_file(ctx.scratch / loop.CHECKPOINT_FILE)
        assert all(torch.isfinite(value).all() for value in saved.values())


def test_where_users_have_one_item_each_the_items_are_known_by_their_texts(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, events=walk()[:, :1])
    ctx = context(tmp_path, inputs, "train", small_config())
    train.run(ctx)
    assert (ctx.out / "log.jsonl").read_text() == ""
    vectors = unit_rows(load_model(inputs | {"train": ctx.out}).item_vectors().numpy())
    texts = np.load(inputs["embed"] / "item_text.npy")
    np.testing.assert_allclose(vectors @ vectors.T, texts @ texts.T, atol=0.25)


def test_nothing_held_out_trains_every_epoch(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    path = inputs["ingest"] / "heldout.parquet"
    pl.read_parquet(path).clear().write_parquet(path)
    ctx = context(tmp_path, inputs, "train", small_config("train.epochs=3"))
    train.run(ctx)
    log = [json.loads(line) for line in (ctx.out / "log.jsonl").read_text().splitlines()]
    assert {line["epoch"] for line in log} == {0, 1, 2}


def test_a_pretrained_backbone_gives_its_weights_and_its_size(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    torch.manual_seed(9)
    pretrained = T5ForConditionalGeneration(
        T5Config(
            vocab_size=50,
            eos_token_id=1,
            d_model=24,
            d_kv=6,
            d_ff=20,
            num_heads=4,
            num_layers=3,
            num_decoder_layers=2,
            feed_forward_proj="gated-gelu",
        )
    )
    pretrained.save_pretrained(tmp_path / "t5")
    config = small_config(f"model.backbone={tmp_path / 't5'}", "train.epochs=1")
    model = new_model(config, load_parts(inputs), explicit_dim=DIM, group_dim=DIM)
    theirs = pretrained.encoder.block[2].layer[1].DenseReluDense.wi_0.weight
    torch.testing.assert_close(model.encoder.block[2].layer[1].DenseReluDense.wi_0.weight, theirs)
    assert len(model.decoder.block) == 2
    ctx = context(tmp_path, inputs, "train", config)
    train.run(ctx)
    assert load_model({**inputs, "train": ctx.out}).spec.width == 24  # and the checkpoint is not needed again


def test_settings_that_cannot_work_say_what_to_change(tmp_path: Path) -> None:
    parts = load_parts(write_inputs(tmp_path))
    for setting, code in (("model.num_heads=3", "config.heads"), (f"model.backbone={tmp_path}", "config.backbone")):
        with pytest.raises(ConfigError) as caught:
            new_model(small_config(setting), parts, explicit_dim=DIM, group_dim=DIM)
        assert caught.value.code == code
        assert caught.value.fix


def test_the_rate_warms_up_and_decays_to_nothing() -> None:
    rates = [loop.schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_no_more_threads_than_cpus_or_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "available_cpus", lambda: 4)
    for asked, cpus in (("", 4), ("2", 2), ("16", 4), ("0", 4), ("many", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert local.usable_cpus() == cpus


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    model = torch.nn.Linear(8, 8)
    optimiser = torch.optim.AdamW(model.parameters())
    path = tmp_path / "c.safetensors"
    checkpoint.save_checkpoint(path, checkpoint.TrainingState(run="r", step=1), model, optimiser, {})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            checkpoint.save_checkpoint(path, checkpoint.TrainingState(run="r", step=2), model, optimiser, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_checkpoint_is_replaced_in_one_step(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    path = tmp_path / "c.safetensors"
    checkpoint.save_checkpoint(path, checkpoint.TrainingState(run="r", step=1), model, optimiser, {})
    fresh = torch.nn.Linear(2, 2)
    resumed = checkpoint.load_checkpoint(path, "r", fresh, torch.optim.AdamW(fresh.parameters()))
    assert resumed is not None
    assert resumed[0].step == 1
    torch.testing.assert_close(fresh.weight, model.weight, rtol=0, atol=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]
    assert checkpoint.load_checkpoint(path, "another", fresh, optimiser) is None
    assert checkpoint.load_checkpoint(tmp_path / "missing", "r", fresh, optimiser) is None
