"""Every call of the service as steps (`isrf_client.attempts`): paths, parameters, bodies, events that keep their ids.

Both clients run these; it knows neither of them.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

from isrf_client.answers import (
    Event,
    EventAnswer,
    InteractionsAnswer,
    ItemAnswer,
    ItemBody,
    ItemChanged,
    ListOptions,
    PageOptions,
    PopularItems,
    RankOptions,
    Recommendations,
    SessionOptions,
    SimilarItems,
    UserAnswer,
    UserOptions,
)
from isrf_client.attempts import Budget, Call, Patience, Pause, Steps, attempts

MAX_EVENTS = 1000
MAX_USERS = 256
"""Of one request, both; more are sent in parts."""
NOT_NOW = "store_unavailable"
"""Why an event is refused that may be sent again as it is."""

Clock = Callable[[], float]


def segment(text: str) -> str:
    """An id as one segment of a path: `/`, `..` and everything else in it are the id's own."""
    return quote(text, safe="").replace(".", "%2E")


class Calls:
    """One per client: how patient it is, and its clock."""

    def __init__(self, *, reads: Patience, writes: Patience, clock: Clock) -> None:
        self._reads, self._writes, self._clock = reads, writes, clock

    def recommend(self, user_id: str, options: UserOptions) -> Steps[Recommendations]:
        return self._read("GET", f"/recommend/{segment(user_id)}", params=options)

    def recommend_session(self, history: Sequence[str], options: SessionOptions) -> Steps[Recommendations]:
        return self._read("POST", "/recommend", body={"history": list(history), **options})

    def recommend_many(self, user_ids: Sequence[str], options: ListOptions) -> Steps[list[Recommendations]]:
        """With the patience of a write: no page waits for it."""
        found: list[Recommendations] = []
        for start in range(0, len(user_ids), MAX_USERS):
            body = {"users": list(user_ids[start : start + MAX_USERS]), **options}
            answer = yield from self._write("POST", "/recommend", body=body)
            found += answer["answers"]
        return found

    def rank(self, candidates: Sequence[str], options: RankOptions) -> Steps[Recommendations]:
        return self._read("POST", "/rank", body={"candidates": list(candidates), **options})

    def similar(self, item_id: str, options: PageOptions) -> Steps[SimilarItems]:
        return self._read("GET", f"/similar/{segment(item_id)}", params=options)

    def popular(self, options: PageOptions) -> Steps[PopularItems]:
        return self._read("GET", "/popular", params=options)

    def user(self, user_id: str) -> Steps[UserAnswer]:
        return self._read("GET", f"/users/{segment(user_id)}")

    def erase(self, user_id: str) -> Steps[None]:
        return self._write("DELETE", f"/users/{segment(user_id)}")

    def item(self, item_id: str) -> Steps[ItemAnswer]:
        return self._read("GET", f"/items/{segment(item_id)}")

    def put_item(self, item_id: str, body: ItemBody) -> Steps[ItemChanged]:
        return self._write("PUT", f"/items/{segment(item_id)}", body=body)

    def hide_item(self, item_id: str) -> Steps[None]:
        return self._write("DELETE", f"/items/{segment(item_id)}")

    def interactions(self, events: Sequence[Event]) -> Steps[InteractionsAnswer]:
        """Every event has its id before the first try, so that none counts twice however often it is sent."""
        named = [cast(Event, {"event_id": uuid.uuid4().hex, **_given(event)}) for event in events]
        return self._post(named)

    def _post(self, events: Sequence[Event]) -> Steps[InteractionsAnswer]:
        results: list[EventAnswer] = []
        for start in range(0, len(events), MAX_EVENTS):
            results += yield from self._post_part(events[start : start + MAX_EVENTS])
        status = [result["status"] for result in results]
        return {
            "results": results,
            "accepted": status.count("accepted"),
            "duplicates": status.count("duplicate"),
            "refused": status.count("refused"),
        }

    def _post_part(self, events: Sequence[Event]) -> Steps[list[EventAnswer]]:
        """One request's events; those that could not be taken in now are sent again, the others not."""
        budget = Budget(self._writes, self._clock)
        results: dict[int, EventAnswer] = {}
        pending = list(range(len(events)))
        while True:
            body = {"events": [events[place] for place in pending]}
            answer = yield from attempts(Call(method="POST", path="/interactions", body=body), budget)
            results |= zip(pending, answer["results"], strict=True)
            pending = [place for place in pending if results[place].get("reason") == NOT_NOW]
            pause_s = budget.pause_s(None) if pending else None
            if pause_s is None:
                return [results[place] for place in range(len(events))]
            yield Pause(pause_s)

    def _read(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Steps[Any]:
        call = Call(method=method, path=path, params=params or {}, body=body)
        return attempts(call, Budget(self._reads, self._clock))

    def _write(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> Steps[Any]:
        return attempts(Call(method=method, path=path, body=body), Budget(self._writes, self._clock))


def _given(event: Event) -> dict[str, Any]:
    """An event's fields without those that are None."""
    return {name: value for name, value in event.items() if value is not None}
