"""How slow this machine is at the moment, so that a bound on CPU time holds on a busy machine too."""

import json
import time

REFERENCE_S = 0.012
"""CPU seconds of the fixed work on the machine on which the tests' bounds were set (AMD EPYC, 2 idle cores)."""


def slowness() -> float:
    """Returns how many times `REFERENCE_S` the fixed work takes now; at least 1. Multiply a bound by it.

    CPU seconds do not count while other processes run, and still grow with them: caches and clocks are shared.
    """
    began = time.thread_time()
    text = json.dumps({f"k{number}": [number] * 5 for number in range(2000)})
    total = 0
    for number in range(200_000):
        total += number & 7
    for _ in range(5):
        json.loads(text)
    return max(1.0, (time.thread_time() - began) / REFERENCE_S)
