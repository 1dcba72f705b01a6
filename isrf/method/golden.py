"""Golden requests: answers of the torch model that every opening of a release must reproduce, down to the list served.

Written by `offline.stages.publish.stage` with the torch search, replayed by both edges through the exported graphs and
the very code that serves (`isrf.method.recommend`): what the search finds, and the list that fusion, ranker, evidence,
neighbours and popularity make of it, with every item allowed. What they do not ask for `isrf.method.golden_items` does.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from isrf.contract.errors import BundleError
from isrf.contract.manifest import GOLDEN_FILE, MAX_DEVIATION, SEARCH_GRAPHS, Finite, GoldenTolerance, VariantName
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import Ranked, RankingRequest, SearchOutput

DENSE_KEPT = 20
LIST_KEPT = 20
POPULAR_KEPT = 200
"""Of the list without a history, which popularity alone makes."""
TOLERANCE = 1e-4
"""Of fp32 log-probabilities; the order must be equal outright."""
LIST_TOLERANCE = 1e-3
"""Of the served list's scores: sums of weighted log-probabilities, or what a ranker makes of them."""
_PATHS = ("beam", "dense")

Row = Annotated[int, Field(ge=0)]


class Golden(BaseModel):
    """One line of `golden.jsonl`: only live beams and dense items, fewer than asked where the catalogue is small.

    `history` holds item rows, oldest first; `own` the base user's row or −1. Without a history nothing is searched.
    The list is None in releases of schema 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: list[Row]
    own: Annotated[int, Field(ge=-1)]
    beam_items: list[Row]
    beam_log_probs: list[Finite]
    dense_items: list[Row]
    dense_log_probs: list[Finite]
    list_items: list[Row] | None = None
    list_scores: list[Finite] | None = None


class _Off(NamedTuple):
    """How far answers are from the goldens: of items that both name, and items that they lack."""

    score: float
    missing: int


def answers(
    recommender: Recommender, histories: Sequence[Sequence[int]], own: Sequence[int]
) -> Iterator[dict[str, list[Any]]]:
    """What is found with every item allowed, one request at a time (as a lone request is served)."""
    everything = np.ones(len(recommender.tables.item_vectors), dtype=np.bool_)
    for history, row in zip(histories, own, strict=True):
        request = RankingRequest(history=history, n=LIST_KEPT if history else POPULAR_KEPT, allowed=everything)
        interests = recommender.read([history], [row])
        if history:
            output = recommender.search([request], interests)
            yield _live(output) | _listed(recommender.ranked(request, interests, output, 0))
        else:
            nothing: dict[str, list[Any]] = {f"{path}_{part}": [] for path in _PATHS for part in ("items", "log_probs")}
            yield nothing | _listed(recommender.rank([request], interests)[0])


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


def _listed(ranked: Ranked) -> dict[str, list[Any]]:
    items = ranked.items
    return {"list_items": [one.item_index for one in items], "list_scores": [one.score for one in items]}


def check_goldens(goldens: Sequence[Golden], num_items: int, *, with_lists: bool) -> None:
    """Raises `BundleError` (`bundle.golden_missing`, `bundle.golden`) where goldens are none of this release's."""
    if not goldens:
        raise BundleError("bundle.golden_missing", f"{GOLDEN_FILE} holds no request.", fix="Publish the release again.")
    for number, golden in enumerate(goldens, start=1):
        rows = [*golden.history, *golden.beam_items, *golden.dense_items, *(golden.list_items or ())]
        paired = (
            len(golden.beam_items) == len(golden.beam_log_probs)
            and len(golden.dense_items) == len(golden.dense_log_probs)
            and len(golden.list_items or ()) == len(golden.list_scores or ())
        )
        if not paired or max(rows, default=0) >= num_items or (with_lists and not golden.list_items):
            raise BundleError(
                "bundle.golden",
                f"{GOLDEN_FILE} line {number} names an item without a row, or has no list, or no score to an item.",
                fix="Publish the release again.",
            )


def _answers_to(goldens: Sequence[Golden], recommender: Recommender) -> Iterator[dict[str, list[Any]]]:
    return answers(recommender, [golden.history for golden in goldens], [golden.own for golden in goldens])


def deviation(recommender: Recommender, goldens: Sequence[Golden]) -> GoldenTolerance:
    """How far the recommender's answers are from the goldens."""
    found, lists = _Off(0.0, 0), _Off(0.0, 0)
    for golden, ours in zip(goldens, _answers_to(goldens, recommender), strict=True):
        for path in _PATHS:
            theirs = getattr(golden, f"{path}_items"), getattr(golden, f"{path}_log_probs")
            found = _farther(found, _off(theirs, (ours[f"{path}_items"], ours[f"{path}_log_probs"])))
        if golden.list_items is not None:
            wanted = golden.list_items, golden.list_scores or []
            lists = _farther(lists, _off(wanted, (ours["list_items"], ours["list_scores"])))
    with_lists = any(golden.list_items is not None for golden in goldens)
    return GoldenTolerance(
        log_prob=found.score,
        missing=found.missing,
        list_score=lists.score if with_lists else None,
        list_missing=lists.missing if with_lists else None,
    )


def _off(wanted: tuple[Sequence[int], Sequence[float]], found: tuple[Sequence[int], Sequence[float]]) -> _Off:
    ours = dict(zip(*found, strict=True))
    off = [abs(ours[item] - score) if item in ours else None for item, score in zip(*wanted, strict=True)]
    # Not a number is as far off as can be.
    scores = [min(one, MAX_DEVIATION) if one == one else MAX_DEVIATION for one in off if one is not None]
    return _Off(max(scores, default=0.0), off.count(None))


def _farther(one: _Off, other: _Off) -> _Off:
    return _Off(max(one.score, other.score), max(one.missing, other.missing))


def replay_within(
    recommender: Recommender, goldens: Sequence[Golden], tolerance: GoldenTolerance, *, variant: VariantName
) -> None:
    """Raises `BundleError` (`bundle.golden_mismatch`) where a form of the search is further off than is allowed."""
    found = deviation(recommender, goldens)
    searched = found.log_prob <= tolerance.log_prob and found.missing <= tolerance.missing
    listed = tolerance.list_score is None or (
        (found.list_score or 0) <= tolerance.list_score and (found.list_missing or 0) <= (tolerance.list_missing or 0)
    )
    if not (searched and listed):
        raise BundleError(
            "bundle.golden_mismatch",
            f"{SEARCH_GRAPHS[variant]} is {_told(found)} off its goldens, the manifest allows {_told(tolerance)}.",
            fix="Serve fp32 (ISRF_VARIANT=fp32): this machine adds up its products otherwise.",
        )


def _told(off: GoldenTolerance) -> str:
    lists = "" if off.list_score is None else f", in the served list {off.list_score:.4f} and {off.list_missing} items,"
    return f"{off.log_prob:.4f} and {off.missing} items{lists}"


def replay(recommender: Recommender, goldens: Sequence[Golden]) -> None:
    """Raises `BundleError` (`bundle.golden_mismatch`) where the release answers a golden request otherwise."""
    for number, (golden, found) in enumerate(zip(goldens, _answers_to(goldens, recommender), strict=True), start=1):
        for path in _PATHS:
            scores = getattr(golden, f"{path}_log_probs")
            wanted = getattr(golden, f"{path}_items"), scores
            if not same_list(wanted, (found[f"{path}_items"], found[f"{path}_log_probs"]), TOLERANCE):
                raise _mismatch(number, "recommender.onnx answers otherwise than the model that it was made from")
        if golden.list_items is not None:
            listed = golden.list_items, golden.list_scores or []
            if not same_list(listed, (found["list_items"], found["list_scores"]), LIST_TOLERANCE):
                raise _mismatch(
                    number,
                    "fusion, ranker, evidence, neighbours or popularity make another list than the one published",
                )


def _mismatch(number: int, what: str) -> BundleError:
    return BundleError(
        "bundle.golden_mismatch",
        f"{GOLDEN_FILE} line {number}: {what}.",
        fix="Publish the release again; if it happens again, report the machine and ONNX Runtime's version.",
    )


def same_list(
    wanted: tuple[Sequence[int], Sequence[float]], found: tuple[Sequence[int], Sequence[float]], tolerance: float
) -> bool:
    """Whether scores agree within the tolerance, and items outright but for those whose scores lie within it."""
    items, scores = wanted
    if len(items) != len(found[0]) or not np.allclose(scores, found[1], rtol=0, atol=tolerance):
        return False
    place = {item: position for position, item in enumerate(items)}
    return all(
        abs(scores[place.get(item, len(items) - 1)] - scores[position]) <= tolerance
        for position, item in enumerate(found[0])
    )
