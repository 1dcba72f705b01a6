"""Describes the machine of a measurement and finds a free port, for all benchmarks."""

import os
import platform
import socket
from pathlib import Path


def machine() -> dict[str, object]:
    """Returns the CPU, the number of usable cores and the Python version."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.processor())
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def free_port() -> int:
    """Returns a TCP port that is free on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
