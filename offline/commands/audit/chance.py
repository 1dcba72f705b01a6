"""Computes the number of hits that chance explains; every check of the audit compares its count with it."""

from scipy.stats import binom

TAIL = 1e-6
"""Probability that chance alone exceeds the bound; it is small because an audit makes dozens of checks."""


def most_hits(num_trials: int, chance: float) -> int:
    """Returns the number of hits that `num_trials` trials of probability `chance` exceed with at most `TAIL`."""
    return int(binom.isf(TAIL, num_trials, min(max(chance, 0.0), 1.0)))
