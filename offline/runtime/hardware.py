"""Finds the CPUs and the GPU that this process may use, within affinity and container limits.

Torch with two threads on one free core runs many times slower than with one thread, so the cores are counted.
"""

import torch

from offline.engine.local import usable_cpus


def training_device(rank: int = 0, *, of: int = 1) -> torch.device:
    """The CUDA device of process `rank` of `of`, or the CPU where there are fewer GPUs than processes.

    Also sets torch's threads to this process's share of the CPUs.
    """
    torch.set_num_threads(max(1, usable_cpus() // of))
    return torch.device("cuda", rank) if torch.cuda.device_count() >= of else torch.device("cpu")
