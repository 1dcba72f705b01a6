"""Saves and loads training checkpoints: one file, replaced atomically, so that a kill leaves the old or the new one.

The file holds tensors (weights, the best weights so far, AdamW's moments) and a JSON text in safetensors' header;
nothing is pickled. It needs no random state, because every step sets its own seed (`offline.stages.train.loop`).
"""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from isrf.runtime.files import write_file

_STATE = ("step", "exp_avg", "exp_avg_sq")


class TrainingState(BaseModel):
    """The progress of a training run, saved in a checkpoint."""

    model_config = ConfigDict(extra="forbid")

    run: str  # identifies data and settings; a checkpoint of another run is not resumed
    epoch: int = 0
    batch: int = 0  # finished batches of this epoch
    step: int = 0  # finished batches of all epochs
    best: list[float] = []  # the best epoch's NDCG@10 of every validation user
    epochs_worse: int = 0  # worse epochs in a row
    log: list[dict[str, Any]] = []


def save_checkpoint(
    path: Path, progress: TrainingState, model: nn.Module, optimiser: torch.optim.Optimizer, best: dict[str, Tensor]
) -> None:
    """Writes a checkpoint, replacing `path` atomically; `best` are the best epoch's weights."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"kept.{name}": value for name, value in best.items()}
    for name, parameter in model.named_parameters():
        state = optimiser.state.get(parameter, {})
        tensors |= {f"{key}.{name}": state[key] for key in _STATE if key in state}
    # Copies, because two names must not share storage. `write_file` raises an OSError where the disk is full.
    data = save({k: v.detach().cpu().clone() for k, v in tensors.items()}, {"standing": progress.model_dump_json()})
    write_file(path, data, beside=path.with_suffix(".part"))


def load_checkpoint(
    path: Path, run: str, model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """Restores model and optimiser, and returns the progress and the best weights.

    Returns None where there is no checkpoint of this run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            progress = TrainingState.model_validate_json((file.metadata() or {}).get("standing", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (FileNotFoundError, SafetensorError, ValueError):
        return None
    if progress.run != run:
        return None
    model.load_state_dict(_part(tensors, "model"))
    for name, parameter in model.named_parameters():
        if f"{_STATE[0]}.{name}" in tensors:
            state = {key: tensors[f"{key}.{name}"] for key in _STATE}
            moments = {key: state[key].to(parameter.device) for key in _STATE[1:]}
            optimiser.state[parameter] = {"step": state["step"], **moments}
    return progress, _part(tensors, "kept")


def log_lines(progress: TrainingState) -> str:
    """The training log as JSON lines."""
    return "".join(json.dumps(line) + "\n" for line in progress.log)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
