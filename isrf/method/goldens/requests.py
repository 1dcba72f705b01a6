"""Golden requests: answers of the torch model that a release must reproduce whenever it is opened.

`offline.stages.publish.goldens` makes them with the torch search. Service and offline job replay them through the
exported graphs and the code that serves (`isrf.method.recommend`). They check what the search finds, and the list that
fusion, ranker, evidence, neighbours and popularity make of it, with every item allowed. `isrf.method.goldens.items`
checks the rest.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from isrf.contract.errors import BundleError
from isrf.contract.manifest import GOLDEN_FILE, MAX_DEVIATION, SEARCH_GRAPHS, Finite, GoldenTolerance, VariantName
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import Ranked, RankingRequest, SearchOutput

NUM_DENSE = 20
LIST_LENGTH = 20
POPULAR_LENGTH = 200
"""Length of the list for an empty history, which popularity alone makes."""
TOLERANCE = 1e-4
"""Largest difference of an fp32 log-probability; the order must be equal."""
LIST_TOLERANCE = 1e-3
"""Largest difference of a score in the served list: a sum of weighted log-probabilities, or a ranker's score."""
_PATHS = ("beam", "dense")

Row = Annotated[int, Field(ge=0)]


class Golden(BaseModel):
    """One line of `golden.jsonl`: a request and its answer.

    `history` holds item rows, oldest first; `own` is the base user's row or −1. Beams and dense items are fewer than
    the search returns where the catalogue is small: places without an item are left out. With an empty history there is
    no search. `list_items` and `list_scores` are None in releases of schema 2.
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


class _Deviation(NamedTuple):
    """How far answers are from the golden requests."""

    score: float  # largest difference of an item in both lists
    missing: int  # golden items that the answer lacks


def answers(
    recommender: Recommender, histories: Sequence[Sequence[int]], own: Sequence[int]
) -> Iterator[dict[str, list[Any]]]:
    """The recommender's answers with every item allowed, one request at a time (a lone request is a batch of one).

    Args:
        histories: item rows, oldest first.
        own: the base user row of each request, −1 where it has none.
    """
    everything = np.ones(len(recommender.tables.item_vectors), dtype=np.bool_)
    for history, row in zip(histories, own, strict=True):
        request = RankingRequest(history=history, n=LIST_LENGTH if history else POPULAR_LENGTH, allowed=everything)
        interests = recommender.read([history], [row])
        if history:
            output = recommender.search([request], interests)
            yield _found_by_search(output) | _list_fields(recommender.ranked(request, interests, output, 0))
        else:
            nothing: dict[str, list[Any]] = {f"{path}_{part}": [] for path in _PATHS for part in ("items", "log_probs")}
            yield nothing | _list_fields(recommender.rank([request], interests)[0])


def make_goldens(recommender: Recommender, histories: Sequence[Sequence[int]], own: Sequence[int]) -> list[Golden]:
    """Makes golden requests with a recommender whose search graph is the torch model."""
    found = answers(recommender, histories, own)
    return [
        Golden(history=list(history), own=row, **answer)
        for history, row, answer in zip(histories, own, found, strict=True)
    ]


def _found_by_search(output: SearchOutput) -> dict[str, list[Any]]:
    """What one request found on the two learned paths, without places that hold no item."""
    beams = output.beam_items[0] >= 0
    dense = output.dense[0]
    return {
        "beam_items": output.beam_items[0, beams].tolist(),
        "beam_log_probs": output.beam_log_probs[0, beams].tolist(),
        "dense_items": dense.items[:NUM_DENSE].tolist(),
        "dense_log_probs": dense.log_probs[:NUM_DENSE].tolist(),
    }


def _list_fields(ranked: Ranked) -> dict[str, list[Any]]:
    items = ranked.items
    return {"list_items": [item.item_index for item in items], "list_scores": [item.score for item in items]}


def check_goldens(goldens: Sequence[Golden], num_items: int, *, with_lists: bool) -> None:
    """Checks that golden requests are well-formed and name only items of this release.

    Raises:
        BundleError: `bundle.golden_missing`, `bundle.golden`.
    """
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
    """How far the recommender's answers are from the golden requests."""
    search, lists = _Deviation(0.0, 0), _Deviation(0.0, 0)
    for golden, answer in zip(goldens, _answers_to(goldens, recommender), strict=True):
        for path in _PATHS:
            expected = getattr(golden, f"{path}_items"), getattr(golden, f"{path}_log_probs")
            search = _larger(search, _difference(expected, (answer[f"{path}_items"], answer[f"{path}_log_probs"])))
        if golden.list_items is not None:
            expected = golden.list_items, golden.list_scores or []
            lists = _larger(lists, _difference(expected, (answer["list_items"], answer["list_scores"])))
    with_lists = any(golden.list_items is not None for golden in goldens)
    return GoldenTolerance(
        log_prob=search.score,
        missing=search.missing,
        list_score=lists.score if with_lists else None,
        list_missing=lists.missing if with_lists else None,
    )


def _difference(
    expected: tuple[Sequence[int], Sequence[float]], found: tuple[Sequence[int], Sequence[float]]
) -> _Deviation:
    found_scores = dict(zip(*found, strict=True))
    differences = [
        abs(found_scores[item] - score) if item in found_scores else None for item, score in zip(*expected, strict=True)
    ]
    # NaN counts as the largest deviation.
    scores = [
        min(value, MAX_DEVIATION) if value == value else MAX_DEVIATION for value in differences if value is not None
    ]
    return _Deviation(max(scores, default=0.0), differences.count(None))


def _larger(first: _Deviation, second: _Deviation) -> _Deviation:
    return _Deviation(max(first.score, second.score), max(first.missing, second.missing))


def replay_within(
    recommender: Recommender, goldens: Sequence[Golden], tolerance: GoldenTolerance, *, variant: VariantName
) -> None:
    """Replays golden requests with a variant of the search graph that may deviate from them a little.

    Raises:
        BundleError: `bundle.golden_mismatch`, the answers deviate by more than `tolerance`.
    """
    found = deviation(recommender, goldens)
    search_passes = found.log_prob <= tolerance.log_prob and found.missing <= tolerance.missing
    lists_pass = tolerance.list_score is None or (
        (found.list_score or 0) <= tolerance.list_score and (found.list_missing or 0) <= (tolerance.list_missing or 0)
    )
    if not (search_passes and lists_pass):
        raise BundleError(
            "bundle.golden_mismatch",
            f"{SEARCH_GRAPHS[variant]} deviates from its golden requests by {_in_words(found)}, the manifest allows "
            f"{_in_words(tolerance)}.",
            fix="Serve fp32 (ISRF_VARIANT=fp32): this machine rounds its products differently.",
        )


def _in_words(tolerance: GoldenTolerance) -> str:
    lists = ""
    if tolerance.list_score is not None:
        lists = f", in the served list {tolerance.list_score:.4f} and {tolerance.list_missing} items,"
    return f"{tolerance.log_prob:.4f} and {tolerance.missing} items{lists}"


def replay(recommender: Recommender, goldens: Sequence[Golden]) -> None:
    """Replays golden requests with the fp32 search graph.

    Raises:
        BundleError: `bundle.golden_mismatch`, an answer is not the golden one.
    """
    for number, (golden, found) in enumerate(zip(goldens, _answers_to(goldens, recommender), strict=True), start=1):
        for path in _PATHS:
            expected = getattr(golden, f"{path}_items"), getattr(golden, f"{path}_log_probs")
            if not same_list(expected, (found[f"{path}_items"], found[f"{path}_log_probs"]), TOLERANCE):
                raise _mismatch(
                    number, "recommender.onnx gives another answer than the model that it was exported from"
                )
        if golden.list_items is not None:
            expected = golden.list_items, golden.list_scores or []
            if not same_list(expected, (found["list_items"], found["list_scores"]), LIST_TOLERANCE):
                raise _mismatch(
                    number,
                    "fusion, ranker, evidence, neighbours or popularity make another list than the one published",
                )


def _mismatch(number: int, problem: str) -> BundleError:
    return BundleError(
        "bundle.golden_mismatch",
        f"{GOLDEN_FILE} line {number}: {problem}.",
        fix="Publish the release again; if it happens again, report the machine and ONNX Runtime's version.",
    )


def same_list(
    expected: tuple[Sequence[int], Sequence[float]], found: tuple[Sequence[int], Sequence[float]], tolerance: float
) -> bool:
    """Whether two lists of items and scores are equal up to rounding.

    Scores must agree within the tolerance. Items may change places only where their scores differ by no more than that.
    """
    items, scores = expected
    if len(items) != len(found[0]) or not np.allclose(scores, found[1], rtol=0, atol=tolerance):
        return False
    position_of = {item: position for position, item in enumerate(items)}
    return all(
        abs(scores[position_of.get(item, len(items) - 1)] - scores[position]) <= tolerance
        for position, item in enumerate(found[0])
    )
