"""Gives events their ids, and posts them in parts until each has its result. No IO (`isrf_client.attempts`)."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from isrf_client.answers import Event, EventAnswer, InteractionsAnswer
from isrf_client.attempts import Budget, Call, Pause, Steps, attempts, unreadable
from isrf_client.errors import ClientError, InvalidCallError
from isrf_client.values import json_fields

MAX_EVENTS = 1000
"""Events of one request; more are sent in parts."""
NOT_NOW = "store_unavailable"
"""The reason of a temporary refusal: the event can be sent again as it is."""
FIX = "Give a list of events: [{'user_id': …, 'item_id': …, 'event': 'view'}, …]."


def prepare(events: Iterable[Event]) -> list[Event]:
    """Returns events as they are sent: each with an `event_id` (new where it has none), ids as text, without None.

    Store them, in a table or a queue, before you post them: then each counts once, even if it is sent several times.
    Prepared events stay as they are; the given events are not changed.

    Raises:
        InvalidCallError: an event is invalid; the message has its index.
    """
    if isinstance(events, str | bytes | Mapping) or not isinstance(events, Iterable):
        raise InvalidCallError("client.invalid_value", f"events is of the type {type(events).__name__}.", fix=FIX)
    return [prepared(event, f"events[{index}]") for index, event in enumerate(events)]


def prepared(event: Event, where: str) -> Event:
    """Returns one event as it is sent (`prepare`); `where` names it in errors."""
    if not isinstance(event, Mapping):
        raise InvalidCallError("client.invalid_value", f"{where} is of the type {type(event).__name__}.", fix=FIX)
    fields: dict[str, Any] = dict(event)
    timestamp = fields.get("timestamp")
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise InvalidCallError(
                "client.invalid_value",
                f"{where}.timestamp has no time zone: {timestamp.isoformat()}.",
                fix="Give a datetime with a time zone, or Unix seconds.",
            )
        fields["timestamp"] = timestamp.timestamp()
    return cast(Event, {"event_id": uuid.uuid4().hex, **json_fields(fields, where)})


def post(events: list[Event], budget: Budget) -> Steps[InteractionsAnswer]:
    """Posts prepared events in parts.

    Raises:
        ClientError: a part was not answered; it has the `events` to send again and the `results` so far.
    """
    results: list[EventAnswer | None] = [None] * len(events)
    try:
        for start in range(0, len(events), MAX_EVENTS):
            budget.renew_tries()
            indices = range(start, min(start + MAX_EVENTS, len(events)))
            yield from _post_part(events, results, list(indices), budget)
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
    """Posts the events of one request; sends those again that the store could not accept."""
    while True:
        body = {"events": [events[index] for index in pending]}
        call = Call(method="POST", path="/interactions", body=body, answer=("results", list))
        answer = yield from attempts(call, budget)
        for index, result in zip(pending, _checked(answer["results"], len(pending)), strict=True):
            results[index] = cast(EventAnswer, {"event_id": events[index]["event_id"], **result})
        pending = [index for index in pending if _not_now(results[index])]
        pause_s = budget.pause_s(None) if pending else None
        if pause_s is None:
            return
        yield Pause(pause_s)


def _checked(results: list[Any], count: int) -> Iterator[dict[str, Any]]:
    if len(results) != count:
        raise unreadable(f"{len(results)} results for {count} events")
    for result in results:
        if not isinstance(result, dict) or "status" not in result:
            raise unreadable("a result without a status")
        yield result


def _not_now(result: EventAnswer | None) -> bool:
    return result is not None and result.get("reason") == NOT_NOW
