"""What this process may really use: CPUs under affinity and container limits, one GPU where there is one.

Torch with two threads on one free core runs many times slower than with one, so threads are counted, not assumed.
"""

import os
from pathlib import Path

import torch

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/cpu.max"),)
_CGROUP_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def usable_cpus() -> int:
    """CPUs by affinity, container quota (rounded down, at least 1) and OMP_NUM_THREADS, whichever is least."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for path in _CGROUP_LIMITS:
        limits += _quota(_read(path).split())
    limits += _quota([_read(path) for path in _CGROUP_V1])
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        limits.append(int(asked))
    return max(1, min(limits))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _quota(words: list[str]) -> list[int]:
    """CPUs of a (quota, period) pair in microseconds; nothing for "max", −1 or what cannot be read."""
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return []
    return [max(1, int(words[0]) // int(words[1]))]


def training_device(rank: int = 0, *, of: int = 1) -> torch.device:
    """The CUDA device of process `rank` of `of`; without so many the CPU, with this process' part of its threads."""
    torch.set_num_threads(max(1, usable_cpus() // of))
    return torch.device("cuda", rank) if torch.cuda.device_count() >= of else torch.device("cpu")
