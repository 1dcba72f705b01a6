"""AdamW that updates only the rows of a table that a batch has read, where the table's gradient is sparse.

With a dense gradient, a step over a million items passes over the table, its gradient and two moments, some gigabytes,
while a batch reads about ten thousand rows. A row that a batch does not read keeps its weights and moments, so weight
decay acts when a row is read (lazy Adam, as `torch.optim.SparseAdam`). Without a sparse gradient it is AdamW itself.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RowAdamW(torch.optim.AdamW):
    """AdamW for parameters of which some may have sparse gradients."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; `closure` as in `torch.optim.AdamW`."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._update_rows(parameter, parameter.grad.coalesce(), group)
                    parameter.grad = None
        return super().step(closure)

    def _update_rows(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(parameter)}
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        rows, values = gradient.indices()[0], gradient.values()
        first_decay, second_decay = group["betas"]
        state["step"] += 1
        step = float(state["step"])
        mean = state["exp_avg"][rows].lerp(values, 1 - first_decay)
        square = state["exp_avg_sq"][rows].mul(second_decay).addcmul(values, values, value=1 - second_decay)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        scale = (square / (1 - second_decay**step)).sqrt() + group["eps"]
        updated = parameter[rows] * (1 - group["lr"] * group["weight_decay"])
        updated -= group["lr"] / (1 - first_decay**step) * mean / scale
        parameter.index_copy_(0, rows, updated)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """`torch.nn.utils.clip_grad_norm_`, for sparse gradients too."""
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    sparse = [parameter for parameter in parameters if parameter.grad is not None and parameter.grad.is_sparse]
    if not sparse:
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    values: list[Tensor] = []
    for parameter in parameters:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
        values.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    norm = torch.nn.utils.get_total_norm(values)
    share = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    for value in values:
        value.mul_(share)
