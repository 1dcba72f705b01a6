"""Accepts events. *accepted* means that the event is on disk and counts in every later answer."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from isrf.contract.errors import StoreError
from service.api.context import AppContext, AppDep
from service.api.presenters import PROBLEMS, json_response
from service.api.schemas.answers import InteractionsAnswer
from service.api.schemas.requests import InteractionsRequest
from service.api.validation.inputs import NAMES_ONCE
from service.auth.caller import WRITE
from service.recommend.click_stats import Click
from service.state.events import EFFECTS, UNKNOWN_ITEM, Event, Refusal
from service.state.records import Applied

router = APIRouter(tags=["interactions"], dependencies=[WRITE])

_NOT_NOW = Refusal("store_unavailable", "the store cannot accept this event now; send it again")
_BEFORE_ERASURE = Refusal(
    "before_erasure",
    "the user was erased after this timestamp, or after this event was accepted; older events stay erased",
)


@router.post("/interactions", dependencies=[NAMES_ONCE], response_model=InteractionsAnswer, responses=PROBLEMS)
async def post_interactions(request: Request, body: InteractionsRequest, context: AppDep) -> Response:
    """Accepts up to 1,000 events; answers for each: accepted, duplicate, or refused with a reason.

    Sending the same event again is safe if it has an `event_id` or a `timestamp`.
    """
    with context.admission.writes:
        results = await accept_events(body.events, context)
    counts = Counter(result["status"] for result in results)
    return json_response(
        {
            "results": results,
            "accepted": counts["accepted"],
            "duplicates": counts["duplicate"],
            "refused": counts["refused"],
            "meta": {"request_id": request.state.request_id},
        }
    )


async def accept_events(posted: Sequence[Any], context: AppContext) -> list[dict[str, str]]:
    """Stores up to 1,000 posted events; returns the result of each.

    Raises:
        StoreError: none was stored.
    """
    began = time.perf_counter()
    read = context.events.read(posted, time.time(), context.releases.now())
    if any(_is_of_unknown_item(event) for event in read):
        # Another replica may have added the item a moment ago.
        try:
            await context.releases.look_for_items()
            read = context.events.read(posted, time.time(), context.releases.now())
        except StoreError:
            read = [_NOT_NOW if _is_of_unknown_item(event) else event for event in read]
    events = [event for event in read if isinstance(event, Event)]
    try:
        outcomes = iter(await context.store.apply(events) if events else [])
    except StoreError:
        context.metrics.store_failures.labels("write").inc()
        raise
    results = []
    clicks = []
    for raw, event in zip(posted, read, strict=True):
        result = _answer(event, next(outcomes)) if isinstance(event, Event) else _refused(event)
        if isinstance(event, Event) and result["status"] == "accepted":
            release_id = context.releases.of(event.user_id).release_id
            context.metrics.release_events.labels(release_id, EFFECTS[event.effect]).inc()
            recommendation_id = raw.get("recommendation_id")
            if recommendation_id and event.effect in "BH":
                clicks.append(Click(recommendation_id, event.item_id, event.effect == "B"))
        context.metrics.events.labels(result["status"], result.get("reason", "")).inc()
        results.append(result)
    context.click_stats.clicked(clicks)
    context.metrics.stage("write", time.perf_counter() - began)
    return results


def check_stored(results: Sequence[Mapping[str, str]]) -> None:
    """Raises `StoreError` where the store could not take some events, for callers who do not read each result."""
    if any(result.get("reason") == _NOT_NOW.reason for result in results):
        raise StoreError("store.unavailable", "not all events could be stored now.", fix="Send them again.")


def _is_of_unknown_item(event: Event | Refusal) -> bool:
    return isinstance(event, Refusal) and event.reason == UNKNOWN_ITEM


def _answer(event: Event, applied: Applied) -> dict[str, str]:
    refusal = _refusal(applied)
    about = {"status": applied.outcome} if refusal is None else _refused(refusal)
    return {**about, "event_id": event.event_id}


def _refusal(applied: Applied) -> Refusal | None:
    if applied.outcome == "unavailable":
        return _NOT_NOW
    if applied.outcome == "erased":
        return _BEFORE_ERASURE
    if applied.outcome == "reused":
        kind = f"of type {applied.first_type}" if applied.first_type else "without a type"
        first = f"one {kind} on item {applied.first_item}" if applied.first_item else "one of an erased user"
        return Refusal(
            "event_id_reused",
            f"the event_id names another event of the last 24 hours: {first}; give every event an id of its own",
        )
    return None


def _refused(refusal: Refusal) -> dict[str, str]:
    return {"status": "refused", "reason": refusal.reason, "detail": refusal.detail}
