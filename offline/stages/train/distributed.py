"""Training in several processes, one for each GPU, through `accelerate`.

Every process holds the whole model, takes its share of every batch, and the gradients are summed: one step of several
processes is the step that one would take, but for drop-out's draws and the alignment's negatives, which each draws
from its own share. The first process is the one that was started: it validates, writes and shows; the others follow.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from isrf.contract.errors import StageError

PATIENCE = timedelta(hours=1)
"""How long one waits for another, while the first validates say."""
LAST_WORDS_S = 30.0
"""Of a process that failed: it closes its connections before it says why, on a busy machine many seconds before."""


class Peers:
    """The processes that train together, this one among them; without an accelerator it is alone."""

    def __init__(self, accelerator: Accelerator | None = None, device: torch.device | None = None) -> None:
        """`device` is this process' own; None leaves the choice to `offline.runtime.hardware.training_device`."""
        self._accelerator = accelerator
        self.device = device
        self.rank: int = 0 if accelerator is None else accelerator.process_index
        self.count: int = 1 if accelerator is None else accelerator.num_processes

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process' part of a batch; may be empty."""
        return rows[self.rank :: self.count]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, known to all."""
        if self._accelerator is None:
            return values
        total: Tensor = self._accelerator.reduce(values, reduction="sum")
        return total

    def sum_gradients(self, model: nn.Module) -> None:
        """Leaves every process with the sum of all gradients; a parameter that nobody used keeps none."""
        if self._accelerator is None:
            return
        parameters = list(model.parameters())
        used = self.sum(torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32).to(parameters[0]))
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        places = torch.split(total, [p.numel() for p in parameters])
        for parameter, summed, by in zip(parameters, places, used.tolist(), strict=True):
            parameter.grad = summed.view_as(parameter) if by else None

    def agree(self, value: bool) -> bool:
        """What the first process says."""
        if self._accelerator is None:
            return value
        said = torch.tensor(float(value and self.first), device=self._accelerator.device)
        return bool(self.sum(said).item())


@contextlib.contextmanager
def together(count: int, follow: Callable[..., None], *arguments: Any) -> Iterator[Peers]:
    """This process and `count` − 1 others that run `follow(peers, *arguments)`, a function of a module.

    Raises:
        StageError: another one failed; it takes the whole training with it.
    """
    if count == 1:
        yield Peers()
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    others: Any = start_processes(  # type: ignore[no-untyped-call]
        _other, args=(count, port, follow, arguments), nprocs=count - 1, join=False, start_method="spawn"
    )
    try:
        with _joined(0, count, port) as peers:
            yield peers
        while not others.join():
            pass
    except Exception as error:
        raise _cause(others, error) from error
    finally:
        for process in others.processes:
            process.kill()


@contextlib.contextmanager
def in_group(device: torch.device) -> Iterator[Peers]:
    """This process in a group that somebody else has started, with accelerate's variables in the environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Peers(device=device)
        return
    try:
        yield Peers(Accelerator(cpu=device.type == "cpu"), device)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - as in `_joined`


def _cause(others: Any, error: Exception) -> Exception:
    """What made this process fail: an error of its own, or that of another one, which cut the line between them."""
    if not isinstance(error, RuntimeError):  # a line that is cut is one
        return error
    try:
        others.join(timeout=LAST_WORDS_S)
    except (ProcessRaisedException, ProcessExitedException) as failed:
        return StageError(
            "train.process_failed",
            f"a process that trained along ended: {str(failed).strip().splitlines()[-1]}",
            fix="Run again: training resumes at its last checkpoint. With --set train.processes=1 it needs no others.",
        )
    return error


def _other(place: int, count: int, port: int, follow: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with _joined(place + 1, count, port) as peers:
        follow(peers, *arguments)


@contextlib.contextmanager
def _joined(rank: int, count: int, port: int) -> Iterator[Peers]:
    """The group's environment is set for as long as it lasts: that is where accelerate reads it."""
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        on_cpu = torch.cuda.device_count() < count
        yield Peers(Accelerator(cpu=on_cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        # It is one for the whole process, and has no public way to be reset.
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
