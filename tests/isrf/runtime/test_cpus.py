"""Threads are counted by what this process may use, not by what the machine has."""

import os
import sys
from pathlib import Path

import pytest

from isrf.runtime import cpus


@pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
def test_the_cgroups_share_counts_not_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(cpus, "CGROUP_V2", quota)
    monkeypatch.setattr(cpus, "CGROUP_V1_QUOTA", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for text, wanted in (
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("max 100000", 8),
        ("6400000 100000", 8),
        ("", 8),
        ("100 0", 8),
    ):
        quota.write_text(text)
        assert cpus.available_cpus() == wanted
    quota.unlink()
    assert cpus.available_cpus() == 8
