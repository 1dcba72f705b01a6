"""Counts the CPUs that this process may use, from its affinity mask and its cgroup quota.

More threads than that are harmful: a spinning OpenMP or ONNX Runtime pool on a fraction of a CPU runs tens of times
slower.
"""

import os
from pathlib import Path

CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
CGROUP_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def available_cpus() -> int:
    """The number of CPUs that this process may use, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def _quota() -> float | None:
    """The number of CPUs that the cgroup grants per period; None without a limit."""
    for read in (_v2, _v1):
        try:
            return read()
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None


def _v2() -> float | None:
    quota, period = CGROUP_V2.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _v1() -> float | None:
    quota = int(CGROUP_V1_QUOTA.read_text())
    return None if quota < 0 else quota / int(CGROUP_V1_PERIOD.read_text())
