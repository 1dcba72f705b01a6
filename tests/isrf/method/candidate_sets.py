"""Candidate sets written down in a test, everything that is not named left at nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import ITEM_CHANNELS, NOTHING, Evidence
from isrf.method.ranking.fusion import EVIDENCE_CHANNELS, Candidates, gather


def candidate_set(
    items: Sequence[int],
    *,
    beams: Mapping[int, float] | None = None,
    dense: NDArray[np.float32] | None = None,
    explicit: NDArray[np.float32] | None = None,
    evidence: Mapping[str, Mapping[int, float]] | None = None,
    last_item: Mapping[str, Mapping[int, float]] | None = None,
    beams_only: Sequence[int] = (),
    history_length: int = 3,
    takers: NDArray[np.float32] | None = None,
    last_takers: float = 5.0,
) -> Candidates:
    """One request's candidates; distributions as {item: probability}."""
    rows = np.array(items, dtype=np.int64)
    zeros = np.zeros(len(rows), dtype=np.float32)

    def distribution(given: Mapping[int, float] | None) -> Evidence:
        if not given:
            return NOTHING
        return Evidence(np.array(sorted(given)), np.array([given[i] for i in sorted(given)], dtype=np.float32))

    reached = beams or {}
    return gather(
        rows,
        (np.array([*reached, -1]), np.array([*reached.values(), -np.inf], dtype=np.float32)),
        dense=zeros if dense is None else dense,
        explicit=zeros if explicit is None else explicit,
        evidence={name: distribution((evidence or {}).get(name)) for name in EVIDENCE_CHANNELS},
        last_item={name: distribution((last_item or {}).get(name)) for name in ITEM_CHANNELS},
        popular=None,
        takers=zeros if takers is None else takers,
        beams_only=np.isin(rows, beams_only),
        history_length=history_length,
        last_takers=last_takers,
    )
