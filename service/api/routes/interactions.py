"""Events come in. *accepted* means: on disk, and part of every answer from now on."""

import time
from collections import Counter
from collections.abc import Sequence
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

_NOT_NOW = Refusal("store_unavailable", "state could not take this event now; send it again")
_BEFORE_ERASURE = Refusal(
    "before_erasure",
    "the user was erased after this timestamp, or after this event was accepted; what is older stays forgotten",
)


@router.post("/interactions", dependencies=[NAMES_ONCE], response_model=InteractionsAnswer, responses=PROBLEMS)
async def post_interactions(request: Request, body: InteractionsRequest, context: AppDep) -> Response:
    """Takes up to 1,000 events and answers for each: accepted, duplicate, or refused with a reason.

    Sending the same event again is safe if it has an `event_id` or a `timestamp`.
    """
    with context.admission.writes:
        results = await take_events(body.events, context)
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


async def take_events(posted: Sequence[Any], context: AppContext) -> list[dict[str, str]]:
    """What became of each of up to 1,000 posted events.

    Raises:
        StoreError: none was taken in.
    """
    began = time.perf_counter()
    read = context.events.read(posted, time.time(), context.releases.now())
    if any(_is_of_unknown_item(one) for one in read):
        # Another replica may have taken it in a moment ago.
        try:
            await context.releases.look_for_items()
            read = context.events.read(posted, time.time(), context.releases.now())
        except StoreError:
            read = [_NOT_NOW if _is_of_unknown_item(one) else one for one in read]
    events = [one for one in read if isinstance(one, Event)]
    try:
        outcomes = iter(await context.store.apply(events) if events else [])
    except StoreError:
        context.metrics.store_failures.labels("write").inc()
        raise
    results = []
    clicks = []
    for raw, one in zip(posted, read, strict=True):
        result = _answer(one, next(outcomes)) if isinstance(one, Event) else _refused(one)
        if isinstance(one, Event) and result["status"] == "accepted":
            release_id = context.releases.of(one.user_id).release_id
            context.metrics.release_events.labels(release_id, EFFECTS[one.effect]).inc()
            recommendation_id = raw.get("recommendation_id")
            if recommendation_id and one.effect in "BH":
                clicks.append(Click(recommendation_id, one.item_id, one.effect == "B"))
        context.metrics.events.labels(result["status"], result.get("reason", "")).inc()
        results.append(result)
    context.click_stats.clicked(clicks)
    context.metrics.stage("write", time.perf_counter() - began)
    return results


def _is_of_unknown_item(one: Event | Refusal) -> bool:
    return isinstance(one, Refusal) and one.reason == UNKNOWN_ITEM


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
        first = f"one {kind} on item {applied.first_item}" if applied.first_item else "one of a user who was erased"
        return Refusal(
            "event_id_reused",
            f"the event_id names another event of the last 24 hours: {first}; give every event an id of its own",
        )
    return None


def _refused(refusal: Refusal) -> dict[str, str]:
    return {"status": "refused", "reason": refusal.reason, "detail": refusal.detail}
