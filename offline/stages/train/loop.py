"""The training loop: warm-up and cosine decay, clipping, early stopping, checkpoints, exact resume.

Every step sets its random seed from (seed, step), so a killed and resumed run gives the same bits as an uninterrupted
one.
"""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress, TaskID
from torch import Tensor

from isrf.contract.errors import StageError
from isrf.nn.model import IsrfModel
from isrf.nn.siblings import Siblings
from offline.config import TrainConfig
from offline.stages.train.batches import plan_epoch, take
from offline.stages.train.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from offline.stages.train.distributed import Peers
from offline.stages.train.objective import FULL_SOFTMAX_ITEMS, Losses, batch_losses
from offline.stages.train.optimiser import RowAdamW, clip_gradients
from offline.stages.train.samples import TrainingSamples
from offline.stages.train.validation import Scores

CHECKPOINT_FILE = "checkpoint.safetensors"
LOG_EVERY = 50

NODE_REFRESH_STEPS = 200
"""For sampled catalogues, the node vectors are refreshed after this many steps. A run that resumes between two
refreshes computes them again, so only smaller catalogues resume with equal bits."""


class TrainingTask(NamedTuple):
    """The model, its training data, its validation and the settings."""

    model: IsrfModel
    samples: TrainingSamples
    siblings: Siblings
    validate: Callable[[IsrfModel], Scores] | None  # None where nothing is held out, or without early stopping
    config: TrainConfig
    seed: int
    device: torch.device
    run: str  # identifies data and settings
    peers: Peers = Peers()


def train(task: TrainingTask, scratch: Path, progress: Progress) -> TrainingState:
    """Trains the model; it ends with the best epoch's weights, or the last epoch's without validation."""
    return _Trainer(task, scratch, progress).train()


class _Trainer:
    def __init__(self, task: TrainingTask, scratch: Path, progress: Progress) -> None:
        self.task, self.path, self.progress = task, scratch / CHECKPOINT_FILE, progress
        config = task.config
        # Several processes add up dense gradients.
        task.model.item_ids.sparse = task.model.spec.num_items > FULL_SOFTMAX_ITEMS and task.peers.count == 1
        self.optimiser = RowAdamW(task.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        resumed = load_checkpoint(self.path, task.run, task.model, self.optimiser)
        self.state, self.best_weights = resumed if resumed is not None else (TrainingState(run=task.run), {})
        self.batches_per_epoch = len(self._plan(0).batches)
        self.num_steps = config.epochs * self.batches_per_epoch
        self.saved_at = time.monotonic()
        self.nodes: Tensor | None = None
        self.peers = task.peers
        self.peers.agree(True)  # no process writes a checkpoint before all have read theirs

    def _plan(self, epoch: int) -> Any:
        config = self.task.config
        return plan_epoch(
            self.task.samples.length,
            batch_size=config.batch_size,
            direct_share=config.direct_share,
            seed=self.task.seed,
            epoch=epoch,
        )

    def train(self) -> TrainingState:
        state, config = self.state, self.task.config
        bar = self.progress.add_task("train", total=self.num_steps, completed=state.step)
        self.task.model.train()
        while state.epoch < config.epochs and self.peers.agree(
            config.patience == 0 or state.epochs_worse < config.patience
        ):
            self._epoch(bar)
            self._validate()
            state.epoch, state.batch = state.epoch + 1, 0
            self._save()
        if self.best_weights:
            self.task.model.load_state_dict(self.best_weights)
        self.progress.update(bar, completed=self.num_steps)
        return state

    def _epoch(self, bar: TaskID) -> None:
        task, state = self.task, self.state
        plan = self._plan(state.epoch)
        started, num_samples, sums = time.monotonic(), 0, torch.zeros(4, device=task.device)
        unlogged = 0
        for rows, kind in list(zip(plan.batches, plan.tasks, strict=True))[state.batch :]:
            sums += self._step(rows, kind)
            state.batch, state.step = state.batch + 1, state.step + 1
            num_samples, unlogged = num_samples + len(rows), unlogged + 1
            save_due = self.peers.agree(time.monotonic() - self.saved_at >= task.config.checkpoint_every_s)
            if unlogged == LOG_EVERY or save_due or state.batch == self.batches_per_epoch:
                rate = num_samples / (time.monotonic() - started)
                means = self.peers.sum(sums) / unlogged
                self._log(means, rate)
                self.progress.update(
                    bar,
                    completed=state.step,
                    description=f"train: epoch {state.epoch + 1}, loss {float(means[0]):.3f}, {rate:.0f} samples/s",
                )
                sums, unlogged = torch.zeros_like(sums), 0
            if save_due:
                self._save()

    def _step(self, rows: NDArray[np.int64], kind: int) -> Tensor:
        """Trains one step; returns this process's part of the losses, (4,)."""
        task, config, own_rows = self.task, self.task.config, self.peers.share(rows)
        seed = (task.seed * 1_000_003 + self.state.step + self.peers.rank * 2**40) % 2**63
        torch.manual_seed(seed)
        rate = config.learning_rate * schedule(self.state.step, self.num_steps, config.warmup_share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        part = torch.zeros(4, device=task.device)
        nodes = self._node_vectors()
        if len(own_rows):
            batch = take(task.samples, own_rows, kind, task.device)
            with torch.autocast(task.device.type, torch.bfloat16, enabled=task.device.type == "cuda"):
                losses: Losses = batch_losses(
                    task.model, batch, task.siblings, config, torch.Generator().manual_seed(seed), nodes=nodes
                )
            share = len(own_rows) / len(rows)
            (losses.total * share).backward()  # type: ignore[no-untyped-call]
            part = torch.stack([loss.detach().float() for loss in losses]) * share
        self.peers.sum_gradients(task.model)
        clip_gradients(task.model.parameters(), config.clip_norm)
        self.optimiser.step()
        return part

    def _node_vectors(self) -> Tensor | None:
        """Node vectors of a large catalogue, at most `NODE_REFRESH_STEPS` steps old; None for a smaller catalogue."""
        model = self.task.model
        if model.spec.num_items <= FULL_SOFTMAX_ITEMS:
            return None
        if self.nodes is None or self.state.step % NODE_REFRESH_STEPS == 0:
            with torch.no_grad():
                self.nodes = model.node_vectors(self.task.siblings, model.item_vectors())
        return self.nodes

    def _log(self, means: Tensor, samples_per_s: float) -> None:
        """Adds a log line; raises where the loss is not finite, before a checkpoint is written."""
        total, generation, dense, alignment = means.tolist()
        if not math.isfinite(total):
            parts = f"generation {generation}, dense {dense}, alignment {alignment}"
            raise self._diverged(f"the loss became {total} near step {self.state.step} ({parts}).")
        self.state.log.append(
            {
                "epoch": self.state.epoch,
                "step": self.state.step,
                "loss": total,
                "generation": generation,
                "dense": dense,
                "alignment": alignment,
                "samples_per_s": round(samples_per_s, 1),
            }
        )

    def _validate(self) -> None:
        """Validates the model; stores the weights of the latest epoch that is no worse than the best."""
        state, validate = self.state, self.task.validate
        if validate is None:
            return
        scores = validate(self.task.model)
        state.log.append({"epoch": state.epoch, "step": state.step, "NDCG@10": scores.means()})
        best = np.array(state.best or scores.fused)
        if is_no_worse(scores.fused, best):
            state.epochs_worse = 0
            self.best_weights = copy.deepcopy(self.task.model.state_dict())
        else:
            state.epochs_worse += 1
        if scores.fused.mean() >= best.mean():
            state.best = scores.fused.tolist()

    def _diverged(self, problem: str) -> StageError:
        config = self.task.config
        return StageError(
            "train.nan_loss",
            problem,
            fix=f"Lower train.learning_rate (now {config.learning_rate}) or train.clip_norm (now "
            f"{config.clip_norm}), or raise train.alignment_temperature (now {config.alignment_temperature}).",
        )

    def _save(self) -> None:
        if not self.peers.first:
            return
        if not all(bool(torch.isfinite(value).all()) for value in self.task.model.parameters()):
            raise self._diverged(f"a weight became infinite or NaN by step {self.state.step}.")
        save_checkpoint(self.path, self.state, self.task.model, self.optimiser, self.best_weights)
        self.saved_at = time.monotonic()


def is_no_worse(gains: NDArray[np.float64], best: NDArray[np.float64]) -> bool:
    """Whether an epoch's NDCG@10 is no worse than the best epoch's, beyond noise; both (R,), for the same users.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), paired by user. A later epoch is preferred if it
    loses less than the standard error of the difference, because its learning rate is lower.
    """
    lost = best - gains
    return bool(lost.mean() <= lost.std() / math.sqrt(len(lost)))


def schedule(step: int, num_steps: int, warmup_share: float) -> float:
    """The learning rate's factor: linear warm-up, then half a cosine down to 0."""
    warmup = max(1, round(warmup_share * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))
