"""Where training stands, in one file that is replaced in one step: a kill leaves the old one or the new one.

Tensors (weights, the best weights so far, AdamW's moments) and a JSON text in safetensors' header; nothing is pickled.
No random state is needed: every step seeds its own (`offline.stages.train.stage.loop`).
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


class Standing(BaseModel):
    """How far training has come."""

    model_config = ConfigDict(extra="forbid")

    run: str  # names data and settings; a checkpoint of another run is not resumed
    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    step: int = 0  # batches done in all
    best: list[float] = []  # the best epoch's NDCG@10 of every validation user
    epochs_worse: int = 0  # in a row
    log: list[dict[str, Any]] = []


def save_checkpoint(
    path: Path, standing: Standing, model: nn.Module, optimiser: torch.optim.Optimizer, kept: dict[str, Tensor]
) -> None:
    """Replaces `path` in one step."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"kept.{name}": value for name, value in kept.items()}
    for name, parameter in model.named_parameters():
        state = optimiser.state.get(parameter, {})
        tensors |= {f"{key}.{name}": state[key] for key in _STATE if key in state}
    # Copies, since two names may not share storage. Written by ourselves, so that a full disk is an OSError.
    data = save({k: v.detach().cpu().clone() for k, v in tensors.items()}, {"standing": standing.model_dump_json()})
    write_file(path, data, beside=path.with_suffix(".part"))


def load_checkpoint(
    path: Path, run: str, model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Standing, dict[str, Tensor]] | None:
    """Restores model and optimiser; None where there is no checkpoint of this very run."""
    try:
        with safe_open(path, framework="pt") as file:
            standing = Standing.model_validate_json((file.metadata() or {}).get("standing", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (FileNotFoundError, SafetensorError, ValueError):
        return None
    if standing.run != run:
        return None
    model.load_state_dict(_part(tensors, "model"))
    for name, parameter in model.named_parameters():
        if f"{_STATE[0]}.{name}" in tensors:
            state = {key: tensors[f"{key}.{name}"] for key in _STATE}
            moments = {key: state[key].to(parameter.device) for key in _STATE[1:]}
            optimiser.state[parameter] = {"step": state["step"], **moments}
    return standing, _part(tensors, "kept")


def log_lines(standing: Standing) -> str:
    """The log as JSON lines."""
    return "".join(json.dumps(line) + "\n" for line in standing.log)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
