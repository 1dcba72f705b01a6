"""The training loop: warm-up and cosine decay, clipping, early stopping, checkpoints, exact resume.

Every step seeds its own random state from (seed, step), so a run that was killed and resumed ends in the same bits as
one that was not.
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
from offline.stages.train.checkpoint import Standing, load_checkpoint, save_checkpoint
from offline.stages.train.distributed import Peers
from offline.stages.train.objective import FULL_SOFTMAX_ITEMS, Losses, batch_losses
from offline.stages.train.samples import TrainingSamples
from offline.stages.train.validation import Scores

CHECKPOINT_FILE = "checkpoint.safetensors"
LOG_EVERY = 50

NODE_REFRESH_STEPS = 200
"""How old the prefixes' content may be in training where the catalogue is sampled. A run resumed between two
refreshes makes it anew, so that only smaller catalogues resume to the last bit."""


class TrainingTask(NamedTuple):
    """What is trained, on what, and how it is judged."""

    model: IsrfModel
    samples: TrainingSamples
    siblings: Siblings
    validate: Callable[[IsrfModel], Scores] | None  # None where nothing is held out, or nobody stops early
    config: TrainConfig
    seed: int
    device: torch.device
    run: str  # names data and settings
    peers: Peers = Peers()


def train(task: TrainingTask, scratch: Path, progress: Progress) -> Standing:
    """Leaves the kept epoch's weights in the model (the last epoch's where nobody validates)."""
    return _Trainer(task, scratch, progress).train()


class _Trainer:
    def __init__(self, task: TrainingTask, scratch: Path, progress: Progress) -> None:
        self.task, self.path, self.progress = task, scratch / CHECKPOINT_FILE, progress
        config = task.config
        self.optimiser = torch.optim.AdamW(
            task.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        resumed = load_checkpoint(self.path, task.run, task.model, self.optimiser)
        self.standing, self.kept = resumed if resumed is not None else (Standing(run=task.run), {})
        self.batches_per_epoch = len(self._plan(0).batches)
        self.num_steps = config.epochs * self.batches_per_epoch
        self.saved_at = time.monotonic()
        self.nodes: Tensor | None = None
        self.peers = task.peers
        self.peers.agree(True)  # nobody writes a checkpoint before all have read theirs

    def _plan(self, epoch: int) -> Any:
        config = self.task.config
        return plan_epoch(
            self.task.samples.length,
            batch_size=config.batch_size,
            direct_share=config.direct_share,
            seed=self.task.seed,
            epoch=epoch,
        )

    def train(self) -> Standing:
        standing, config = self.standing, self.task.config
        bar = self.progress.add_task("train", total=self.num_steps, completed=standing.step)
        self.task.model.train()
        while standing.epoch < config.epochs and self.peers.agree(
            config.patience == 0 or standing.epochs_worse < config.patience
        ):
            self._epoch(bar)
            self._judge()
            standing.epoch, standing.batch = standing.epoch + 1, 0
            self._save()
        if self.kept:
            self.task.model.load_state_dict(self.kept)
        self.progress.update(bar, completed=self.num_steps)
        return standing

    def _epoch(self, bar: TaskID) -> None:
        task, standing = self.task, self.standing
        plan = self._plan(standing.epoch)
        started, num_samples, sums = time.monotonic(), 0, torch.zeros(4, device=task.device)
        since = 0
        for rows, kind in list(zip(plan.batches, plan.tasks, strict=True))[standing.batch :]:
            sums += self._step(rows, kind)
            standing.batch, standing.step = standing.batch + 1, standing.step + 1
            num_samples, since = num_samples + len(rows), since + 1
            due = self.peers.agree(time.monotonic() - self.saved_at >= task.config.checkpoint_every_s)
            if since == LOG_EVERY or due or standing.batch == self.batches_per_epoch:
                rate = num_samples / (time.monotonic() - started)
                means = self.peers.sum(sums) / since
                self._note(means, rate)
                self.progress.update(
                    bar,
                    completed=standing.step,
                    description=f"train: epoch {standing.epoch + 1}, loss {float(means[0]):.3f}, {rate:.0f} samples/s",
                )
                sums, since = torch.zeros_like(sums), 0
            if due:
                self._save()

    def _step(self, rows: NDArray[np.int64], kind: int) -> Tensor:
        """(4,) this process' part of the losses of one step."""
        task, config, own = self.task, self.task.config, self.peers.share(rows)
        seed = (task.seed * 1_000_003 + self.standing.step + self.peers.rank * 2**40) % 2**63
        torch.manual_seed(seed)
        rate = config.learning_rate * schedule(self.standing.step, self.num_steps, config.warmup_share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        part = torch.zeros(4, device=task.device)
        nodes = self._node_vectors()
        if len(own):
            batch = take(task.samples, own, kind, task.device)
            with torch.autocast(task.device.type, torch.bfloat16, enabled=task.device.type == "cuda"):
                losses: Losses = batch_losses(
                    task.model, batch, task.siblings, config, torch.Generator().manual_seed(seed), nodes=nodes
                )
            share = len(own) / len(rows)
            (losses.total * share).backward()  # type: ignore[no-untyped-call]
            part = torch.stack([loss.detach().float() for loss in losses]) * share
        self.peers.sum_gradients(task.model)
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), config.clip_norm)
        self.optimiser.step()
        return part

    def _node_vectors(self) -> Tensor | None:
        """Of a catalogue too large to compute them for every batch: those of at most `NODE_REFRESH_STEPS` ago."""
        model = self.task.model
        if model.spec.num_items <= FULL_SOFTMAX_ITEMS:
            return None
        if self.nodes is None or self.standing.step % NODE_REFRESH_STEPS == 0:
            with torch.no_grad():
                self.nodes = model.node_vectors(self.task.siblings, model.item_vectors())
        return self.nodes

    def _note(self, means: Tensor, samples_per_s: float) -> None:
        """Adds a log line; a loss that is no number ends the run before it can reach a checkpoint."""
        total, generation, dense, alignment = means.tolist()
        if not math.isfinite(total):
            parts = f"generation {generation}, dense {dense}, alignment {alignment}"
            raise self._diverged(f"the loss became {total} near step {self.standing.step} ({parts}).")
        self.standing.log.append(
            {
                "epoch": self.standing.epoch,
                "step": self.standing.step,
                "loss": total,
                "generation": generation,
                "dense": dense,
                "alignment": alignment,
                "samples_per_s": round(samples_per_s, 1),
            }
        )

    def _judge(self) -> None:
        """Validates; keeps the weights of the latest epoch that is no worse than the best."""
        standing, validate = self.standing, self.task.validate
        if validate is None:
            return
        scores = validate(self.task.model)
        standing.log.append({"epoch": standing.epoch, "step": standing.step, "NDCG@10": scores.means()})
        best = np.array(standing.best or scores.fused)
        if is_no_worse(scores.fused, best):
            standing.epochs_worse = 0
            self.kept = copy.deepcopy(self.task.model.state_dict())
        else:
            standing.epochs_worse += 1
        if scores.fused.mean() >= best.mean():
            standing.best = scores.fused.tolist()

    def _diverged(self, found: str) -> StageError:
        config = self.task.config
        return StageError(
            "train.nan_loss",
            found,
            fix=f"Lower train.learning_rate (now {config.learning_rate}) or train.clip_norm (now "
            f"{config.clip_norm}), or raise train.alignment_temperature (now {config.alignment_temperature}).",
        )

    def _save(self) -> None:
        if not self.peers.first:
            return
        if not all(bool(torch.isfinite(value).all()) for value in self.task.model.parameters()):
            raise self._diverged(f"a weight became infinite or no number by step {self.standing.step}.")
        save_checkpoint(self.path, self.standing, self.task.model, self.optimiser, self.kept)
        self.saved_at = time.monotonic()


def is_no_worse(gains: NDArray[np.float64], best: NDArray[np.float64]) -> bool:
    """Whether the users of one epoch lose nothing to those of the best, but for noise; both (R,), the same users.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), in pairs: an epoch that loses less than the
    standard error of the difference is later on the learning rate's way down, and what it learned is not lost.
    """
    lost = best - gains
    return bool(lost.mean() <= lost.std() / math.sqrt(len(lost)))


def schedule(step: int, num_steps: int, warmup_share: float) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to 0."""
    warmup = max(1, round(warmup_share * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))
