"""Events get their ids, and are posted in parts until each has its answer. No IO (`isrf_client.attempts`)."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from isrf_client.answers import Event, EventAnswer, InteractionsAnswer
from isrf_client.attempts import Budget, Call, Pause, Steps, attempts, unreadable
from isrf_client.errors import ClientError, InvalidCallError
from isrf_client.values import given

MAX_EVENTS = 1000
"""Of one request; more are sent in parts."""
NOT_NOW = "store_unavailable"
"""Why an event is refused that may be sent again as it is."""
FIX = "Give a list of events: [{'user_id': …, 'item_id': …, 'event': 'view'}, …]."


def prepare(events: Iterable[Event]) -> list[Event]:
    """The events as they are sent: each with an `event_id`, a new one where it has none, ids as text, no None.

    Keep them, in a table or a queue, before you post them: however often they are sent, each counts once. Events that
    have been prepared stay as they are; those that were given are not changed.

    Raises:
        InvalidCallError: an event that cannot be sent, by its place.
    """
    if isinstance(events, str | bytes | Mapping) or not isinstance(events, Iterable):
        raise InvalidCallError("client.invalid_value", f"events is of the type {type(events).__name__}.", fix=FIX)
    return [_prepared(event, f"events[{place}]") for place, event in enumerate(events)]


def _prepared(event: Event, where: str) -> Event:
    if not isinstance(event, Mapping):
        raise InvalidCallError("client.invalid_value", f"{where} is of the type {type(event).__name__}.", fix=FIX)
    fields: dict[str, Any] = dict(event)
    happened = fields.get("timestamp")
    if isinstance(happened, datetime):
        if happened.tzinfo is None:
            raise InvalidCallError(
                "client.invalid_value",
                f"{where}.timestamp has no time zone: {happened.isoformat()}.",
                fix="Give a datetime with a time zone, or Unix seconds.",
            )
        fields["timestamp"] = happened.timestamp()
    return cast(Event, {"event_id": uuid.uuid4().hex, **given(fields, where)})


def post(events: list[Event], budget: Budget) -> Steps[InteractionsAnswer]:
    """Posts prepared events in parts.

    Raises:
        ClientError: of a part that was not answered, with `events` that are to be sent again and `results` so far.
    """
    results: list[EventAnswer | None] = [None] * len(events)
    try:
        for start in range(0, len(events), MAX_EVENTS):
            budget.renew_tries()
            places = range(start, min(start + MAX_EVENTS, len(events)))
            yield from _post_part(events, results, list(places), budget)
    except ClientError as error:
        answered = [result is not None and not _not_now(result) for result in results]
        error.results = results
        error.events = [event for event, done in zip(events, answered, strict=True) if not done]
        error.message += f" Of {len(events)} events {sum(answered)} were answered; error.events has the others."
        raise
    final = [result for result in results if result is not None]
    status = [result["status"] for result in final]
    return {
        "results": final,
        "accepted": status.count("accepted"),
        "duplicates": status.count("duplicate"),
        "refused": status.count("refused"),
    }


def _post_part(
    events: list[Event], results: list[EventAnswer | None], pending: list[int], budget: Budget
) -> Steps[None]:
    """One request's events; those that could not be taken in now are sent again, the others not."""
    while True:
        body = {"events": [events[place] for place in pending]}
        call = Call(method="POST", path="/interactions", body=body, answer=("results", list))
        answer = yield from attempts(call, budget)
        for place, result in zip(pending, _judged(answer["results"], len(pending)), strict=True):
            results[place] = cast(EventAnswer, {"event_id": events[place]["event_id"], **result})
        pending = [place for place in pending if _not_now(results[place])]
        pause_s = budget.pause_s(None) if pending else None
        if pause_s is None:
            return
        yield Pause(pause_s)


def _judged(results: list[Any], count: int) -> Iterator[dict[str, Any]]:
    if len(results) != count:
        raise unreadable(f"{len(results)} results for {count} events")
    for result in results:
        if not isinstance(result, dict) or "status" not in result:
            raise unreadable("a result without a status")
        yield result


def _not_now(result: EventAnswer | None) -> bool:
    return result is not None and result.get("reason") == NOT_NOW
