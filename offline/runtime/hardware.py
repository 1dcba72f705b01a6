"""What this process may really use: CPUs under affinity and container limits, one GPU where there is one.

Torch with two threads on one free core runs many times slower than with one, so threads are counted, not assumed.
"""

import os

import torch

from isrf.runtime.cpus import available_cpus


def usable_cpus() -> int:
    """`available_cpus`, or OMP_NUM_THREADS where that is less."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cpus(), int(asked)) if asked.isdigit() and int(asked) > 0 else available_cpus()


def training_device(rank: int = 0, *, of: int = 1) -> torch.device:
    """The CUDA device of process `rank` of `of`; without so many the CPU, with this process' part of its threads."""
    torch.set_num_threads(max(1, usable_cpus() // of))
    return torch.device("cuda", rank) if torch.cuda.device_count() >= of else torch.device("cpu")
