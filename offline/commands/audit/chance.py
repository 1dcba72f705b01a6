"""How many hits chance allows: the one bound that all lines of the audit hold their counts against."""

from scipy.stats import binom

TAIL = 1e-6
"""Probability that chance alone exceeds the bound; small, since an audit asks dozens of questions."""


def most_hits(num_trials: int, chance: float) -> int:
    """The number of hits that `num_trials` trials of probability `chance` exceed with probability `TAIL` at most."""
    return int(binom.isf(TAIL, num_trials, min(max(chance, 0.0), 1.0)))
