"""Trains in processes of a Ray cluster, through Ray Train: one for each GPU, or as many as `train.processes` says.

The loop is the one of a single machine; Ray Train starts the processes, joins them into a group, and starts all of them
again when one is lost: then the loop resumes at its last checkpoint. The stage's folders must lie where all processes
find them, on a volume that all nodes mount at the same path.
"""

from typing import Any, NamedTuple, cast

import ray.train
import torch
from ray.train import FailureConfig, ScalingConfig
from ray.train import RunConfig as TrainerConfig
from ray.train.torch import TorchTrainer

from isrf.contract.errors import IsrfError, StageError
from offline.context import StageContext
from offline.engine.on_ray import RayEngine
from offline.stages.train.distributed import in_group
from offline.stages.train.reported import SentProgress, shown_bar
from offline.stages.train.stage import follow, lead, load_interests, shared_samples

MAX_FAILURES = 3
"""How often training starts again after a process was lost."""


class _Job(NamedTuple):
    """What a process needs to know."""

    context: dict[str, Any]  # fields of the stage's context, without those that live in one process
    shown: Any  # the actor of `shown_bar`


def train_on_ray(ctx: StageContext) -> None:
    """Trains on the samples in `ctx.scratch`; writes the stage's outputs.

    Raises:
        StageError: what the loop raises; `train.process_failed` where a process was lost too often.
    """
    engine = cast(RayEngine, ctx.engine)
    gpus = engine.num_gpus
    count = ctx.config.train.processes or max(1, gpus)
    with shown_bar(ctx.progress) as shown:
        fields = {name: getattr(ctx, name) for name in ("data", "inputs", "out", "scratch", "config")}
        trainer = TorchTrainer(
            _train,
            train_loop_config={"job": _Job(fields, shown)},
            scaling_config=ScalingConfig(
                num_workers=count,
                use_gpu=gpus >= count,
                resources_per_worker={"CPU": engine.cpus_for(count), "GPU": int(gpus >= count)},
            ),
            run_config=TrainerConfig(
                name="ray", storage_path=str(ctx.scratch.resolve()), failure_config=FailureConfig(MAX_FAILURES)
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise _cause(error) from error


def _train(config: dict[str, Any]) -> None:
    """Runs in each process."""
    job: _Job = config["job"]
    ctx = StageContext(**job.context, progress=SentProgress(job.shown))
    device = ray.train.torch.get_device() if torch.cuda.is_available() else torch.device("cpu")
    with in_group(device) as peers:
        if peers.first:
            lead(ctx, shared_samples(ctx.scratch), load_interests(ctx), peers)
        else:
            follow(peers, ctx.inputs, ctx.scratch, ctx.config)


def _cause(error: Exception) -> Exception:
    """What made a process fail: an error of ours, or the loss of it."""
    failures = getattr(error, "worker_failures", {})
    for failure in (error, *failures.values()):
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, IsrfError):
            return cause
    text = str(next(iter(failures.values()), error)).strip().splitlines()
    return StageError(
        "train.process_failed",
        f"a process that trained along ended: {text[-1] if text else type(error).__name__}",
        fix="Run again: training resumes at its last checkpoint. With several machines the releases folder must lie on "
        "a volume that all of them mount at the same path.",
    )
