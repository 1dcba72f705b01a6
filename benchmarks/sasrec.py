"""Trains RecTools' SASRec with full softmax as a baseline, in `benchmarks/.venv`; `benchmarks/quality.py` starts it.

    benchmarks/.venv/bin/python benchmarks/sasrec.py --events EVENTS.csv --excluded EXCLUDED.csv --out LISTS.jsonl

EVENTS.csv has the columns `user,item,part`: row numbers, each user's rows together and oldest first, part "train" or
"valid". The training uses the training rows. It stops when NDCG@10 on the validation rows (without items of the
history) has not grown for `--patience` epochs, or after `--max-minutes` of CPU time per thread, so a busy machine does
not shorten it. It keeps the best epoch, reads both parts and writes `{"user", "items"}`, best first, without the user's
rows in EXCLUDED.csv (`user,item`). It reads no test row.

The model and its training come from RecTools. Our change computes logits only at positions with a target: the loss is
the same (`tests/benchmarks/test_quality.py`), for less work, because most positions of a batch are padding.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.lightning import TransformerLightningModule

LIST_LENGTH = 20
BLOCK_USERS = 2048
CUTOFF = 10


class LossOnTargets(TransformerLightningModule):
    """RecTools' module, which skips positions that the loss ignores and validates by NDCG@10."""

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        items = self.torch_model.item_model.get_all_embeddings()
        has_target = batch["y"] != 0
        states = self.torch_model.encode_sessions(batch, items)[has_target]
        loss = torch.nn.functional.cross_entropy(
            self.torch_model.similarity_module(states, items), batch["y"][has_target]
        )
        self.log(self.train_loss_name, loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
        items = self.torch_model.item_model.get_all_embeddings()
        states = self.torch_model.encode_sessions(batch, items)[:, -1]
        logits = self.torch_model.similarity_module(states, items)
        target_logits = logits.gather(1, batch["y"])
        logits.scatter_(1, batch["x"], -torch.inf)  # excludes the history and the padding
        rank = (logits > target_logits).sum(1)
        gain = torch.where(rank < CUTOFF, 1.0 / torch.log2(rank + 2.0), 0.0)
        self.log("ndcg", gain.mean(), on_epoch=True, batch_size=len(gain))


class KeepBest(pl.Callback):
    """Restores the weights of the best validation epoch at the end; stops when patience or time is up."""

    def __init__(self, patience: int, max_minutes: float) -> None:
        self.patience, self.until_s = patience, time.process_time() + 60 * max_minutes
        self.best, self.best_epoch = -math.inf, -1
        self.weights: dict[str, torch.Tensor] | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        score, epoch = float(trainer.callback_metrics["ndcg"]), trainer.current_epoch
        print(f"epoch {epoch + 1}: validation NDCG@10 {score:.4f}", flush=True)
        if score > self.best:
            self.best, self.best_epoch = score, epoch
            self.weights = copy.deepcopy(pl_module.state_dict())
        trainer.should_stop = epoch - self.best_epoch >= self.patience or time.process_time() > self.until_s

    def on_train_end(self, _: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.weights is not None:
            pl_module.load_state_dict(self.weights)


def last_of_each(interactions: pd.DataFrame, users: list[int]) -> NDArray[np.bool_]:
    """Returns RecTools' validation mask: the last row of each of these users."""
    last = interactions.groupby(Columns.User)[Columns.Datetime].transform("max") == interactions[Columns.Datetime]
    mask: NDArray[np.bool_] = (last & interactions[Columns.User].isin(users)).to_numpy()
    return mask


def build(arguments: argparse.Namespace, validated: list[int]) -> SASRecModel:
    def trainer() -> pl.Trainer:
        return pl.Trainer(
            max_epochs=arguments.epochs,
            min_epochs=1,
            accelerator="cpu",
            devices=1,
            callbacks=[KeepBest(arguments.patience, arguments.max_minutes * arguments.threads)],
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
        )

    return SASRecModel(
        n_factors=arguments.width,
        n_blocks=2,
        n_heads=arguments.heads,
        dropout_rate=arguments.dropout,
        session_max_len=arguments.length,
        batch_size=128,
        loss="softmax",
        lr=arguments.learning_rate,
        lightning_module_type=LossOnTargets,
        get_val_mask_func=last_of_each,
        get_val_mask_func_kwargs={"users": validated},
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )


def write_lists(model: SASRecModel, dataset: Dataset, users: list[int], excluded: pd.DataFrame, out: Path) -> None:
    """Writes the lists; asks for enough items that `LIST_LENGTH` remain without the excluded ones."""
    taken = excluded.groupby("user")["item"].agg(set).to_dict()
    users = sorted(users, key=lambda user: len(taken.get(user, ())))  # then few blocks need long lists
    with out.open("w", encoding="utf-8") as file:
        for start in range(0, len(users), BLOCK_USERS):
            block = users[start : start + BLOCK_USERS]
            longest = max(len(taken.get(user, ())) for user in block)
            found = model.recommend(
                users=block,
                dataset=dataset,
                k=LIST_LENGTH + longest,
                filter_viewed=False,
                on_unsupported_targets="ignore",
            )
            for user, items in found.groupby(Columns.User, sort=False)[Columns.Item]:
                remaining = [int(item) for item in items if item not in taken.get(user, ())]
                file.write(json.dumps({"user": int(user), "items": remaining[:LIST_LENGTH]}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("events", "excluded", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-minutes", type=float, default=60.0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pl.seed_everything(arguments.seed)
    events, excluded = pd.read_csv(arguments.events), pd.read_csv(arguments.excluded)
    rows: dict[str, Any] = {
        Columns.User: events["user"],
        Columns.Item: events["item"],
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(events.groupby("user").cumcount(), unit="s"),
    }
    dataset = Dataset.construct(pd.DataFrame(rows))
    validated = events.loc[events["part"] == "valid", "user"].tolist()
    started = time.process_time()
    model = build(arguments, validated).fit(dataset)
    minutes = (time.process_time() - started) / 60 / arguments.threads
    write_lists(model, dataset, validated, excluded, arguments.out)
    best = next(
        callback for callback in model.fit_trainer.callbacks if isinstance(callback, KeepBest)
    )  # fit copies the trainer
    print(
        json.dumps({"best_epoch": best.best_epoch + 1, "validation": round(best.best, 5), "minutes": round(minutes, 1)})
    )


if __name__ == "__main__":
    main()
