"""Golden requests: answers of the torch model that every opening of a release must reproduce.

Written by `offline.export` with the torch search, replayed by both edges through the exported graphs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from isrf.bundle import SEARCH_GRAPHS, GoldenTolerance, VariantName
from isrf.errors import BundleError
from isrf.recommend import RankRequest, Recommender, SearchOutput

DENSE_KEPT = 20
TOLERANCE = 1e-4
"""Of fp32 log-probabilities; the order must be equal outright."""


class Golden(BaseModel):
    """One line of `golden.jsonl`: only live beams and dense items, fewer than asked where the catalogue is small.

    `history` holds item rows, oldest first; `own` the base user's row or −1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: list[int]
    own: int
    beam_items: list[int]
    beam_log_probs: list[float]
    dense_items: list[int]
    dense_log_probs: list[float]


def answers(
    recommender: Recommender, histories: Sequence[Sequence[int]], own: Sequence[int]
) -> Iterator[dict[str, list[Any]]]:
    """What the search graph finds with every item allowed, one request at a time (as a lone request is served)."""
    everything = np.ones(len(recommender.tables.item_vectors), dtype=np.bool_)
    for history, row in zip(histories, own, strict=True):
        request = RankRequest(history=history, n=1, allowed=everything)
        yield _live(recommender.search([request], recommender.read([history], [row])))


def make_goldens(recommender: Recommender, histories: Sequence[Sequence[int]], own: Sequence[int]) -> list[Golden]:
    """Goldens from a recommender whose search graph is the torch model."""
    found = answers(recommender, histories, own)
    return [
        Golden(history=list(history), own=row, **live) for history, row, live in zip(histories, own, found, strict=True)
    ]


def _live(output: SearchOutput) -> dict[str, list[Any]]:
    """What one request found on the two learned paths, dead places left out."""
    beams = output.beam_items[0] >= 0
    dense = output.dense_items[0, :DENSE_KEPT] >= 0
    return {
        "beam_items": output.beam_items[0, beams].tolist(),
        "beam_log_probs": output.beam_log_probs[0, beams].tolist(),
        "dense_items": output.dense_items[0, :DENSE_KEPT][dense].tolist(),
        "dense_log_probs": output.dense_log_probs[0, :DENSE_KEPT][dense].tolist(),
    }


def _answers_to(goldens: Sequence[Golden], recommender: Recommender) -> Iterator[dict[str, list[Any]]]:
    return answers(recommender, [golden.history for golden in goldens], [golden.own for golden in goldens])


def deviation(recommender: Recommender, goldens: Sequence[Golden]) -> GoldenTolerance:
    """How far the recommender's answers are from the goldens."""
    farthest, missing = 0.0, 0
    for golden, found in zip(goldens, _answers_to(goldens, recommender), strict=True):
        for path in ("beam", "dense"):
            ours = dict(zip(found[f"{path}_items"], found[f"{path}_log_probs"], strict=True))
            theirs = zip(getattr(golden, f"{path}_items"), getattr(golden, f"{path}_log_probs"), strict=True)
            off = [abs(ours[item] - score) if item in ours else None for item, score in theirs]
            missing = max(missing, off.count(None))
            farthest = max([farthest, *(one for one in off if one is not None)])
    return GoldenTolerance(log_prob=farthest, missing=missing)


def replay_within(
    recommender: Recommender, goldens: Sequence[Golden], tolerance: GoldenTolerance, *, variant: VariantName
) -> None:
    """Raises `BundleError` (`bundle.golden_mismatch`) where a form of the search is further off than is allowed."""
    found = deviation(recommender, goldens)
    if found.log_prob > tolerance.log_prob or found.missing > tolerance.missing:
        raise BundleError(
            "bundle.golden_mismatch",
            f"{SEARCH_GRAPHS[variant]} is {found.log_prob:.4f} and {found.missing} items off its goldens, the manifest "
            f"allows {tolerance.log_prob:.4f} and {tolerance.missing}.",
            fix="Serve fp32 (ISRF_VARIANT=fp32): this machine adds up its products otherwise.",
        )


def replay(recommender: Recommender, goldens: Sequence[Golden]) -> None:
    """Raises `BundleError` (`bundle.golden_mismatch`) where the release answers a golden request otherwise."""
    if not goldens:
        raise BundleError("bundle.golden_missing", "golden.jsonl holds no request.", fix="Publish the release again.")
    for b, (golden, found) in enumerate(zip(goldens, _answers_to(goldens, recommender), strict=True)):
        same = all(
            _same_order(getattr(golden, f"{path}_items"), getattr(golden, f"{path}_log_probs"), found[f"{path}_items"])
            and _close(getattr(golden, f"{path}_log_probs"), found[f"{path}_log_probs"])
            for path in ("beam", "dense")
        )
        if not same:
            raise BundleError(
                "bundle.golden_mismatch",
                f"golden.jsonl line {b + 1}: recommender.onnx answers otherwise than the model that it was made from.",
                fix="Publish the release again; if it happens again, report the machine and ONNX Runtime's version.",
            )


def _close(wanted: Sequence[float], found: Sequence[float]) -> bool:
    return len(wanted) == len(found) and bool(np.allclose(wanted, found, rtol=0, atol=TOLERANCE))


def _same_order(wanted: Sequence[int], scores: Sequence[float], found: Sequence[int]) -> bool:
    """Equal outright, but for items whose scores lie within the tolerance of each other."""
    if wanted == found:
        return True
    if len(wanted) != len(found):
        return False
    place = {item: position for position, item in enumerate(wanted)}
    return all(
        abs(scores[place.get(item, len(wanted) - 1)] - scores[position]) <= TOLERANCE
        for position, item in enumerate(found)
    )
