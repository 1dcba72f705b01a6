"""Finds the CPUs and the GPU that this process may use, within affinity and container limits.

Torch with two threads on one free core runs many times slower than with one thread, so the cores are counted.
"""

import os

import torch

from isrf.runtime.cpus import available_cpus


def usable_cpus() -> int:
    """The smaller of `available_cpus` and OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cpus(), int(limit)) if limit.isdigit() and int(limit) > 0 else available_cpus()


def training_device(rank: int = 0, *, of: int = 1) -> torch.device:
    """The CUDA device of process `rank` of `of`, or the CPU where there are fewer GPUs than processes.

    Also sets torch's threads to this process's share of the CPUs.
    """
    torch.set_num_threads(max(1, usable_cpus() // of))
    return torch.device("cuda", rank) if torch.cuda.device_count() >= of else torch.device("cpu")
