"""Items whose events rise: those of a window against those of the window before it."""

from isrf.method.interest import BoolArray
from isrf.method.recommend.live.live_evidence import LiveEvidence
from isrf.method.recommend.request import SCORE_DIGITS, RankedItem
from service.release.history_facts import HistoryFacts


def trending_items(
    live: LiveEvidence | None, learned: HistoryFacts, allowed: BoolArray, *, now_s: float, window_s: float, count: int
) -> list[RankedItem]:
    """Returns the allowed items that rise most, the fastest first; the score is the ratio of the two windows.

    The window ends at the latest accepted event, not at the moment of asking: equal events give equal lists on every
    replica, and a night without events empties no list. An event dated after now does not move it.

    Args:
        live: events since the release; None where none counts, and then nothing is known to rise.
        learned: the release's own events, so that a new release does not begin with an empty window.
        allowed: (N,).
    """
    if live is None:
        return []
    latest = max(live.counts.latest_s(), learned.latest_s)
    if latest == float("-inf"):
        return []
    # The window holds the latest event itself.
    until = min(now_s, latest) + 1e-3
    rising = live.trending(until, window_s=window_s, limit=len(allowed), learned=learned.between)
    found = [(row, ratio) for row, ratio in rising if row < len(allowed) and allowed[row]]
    return [RankedItem(row, round(ratio, SCORE_DIGITS), "trending") for row, ratio in found[:count]]
