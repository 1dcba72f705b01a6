"""Builds every call of the service as steps (`isrf_client.attempts`): paths, parameters and bodies.

Both clients run these steps; it knows neither of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias
from urllib.parse import urlencode

from isrf_client.answers import (
    AffinitiesAnswer,
    AttributesAnswer,
    Event,
    Id,
    InteractionsAnswer,
    ItemAnswer,
    ItemBody,
    ItemChanged,
    ListOptions,
    PageOptions,
    Placement,
    PlacementAnswer,
    PlacementItems,
    PlacementList,
    PlacementOptions,
    PlacementPreviewAnswer,
    PopularItems,
    PreviewOptions,
    RankOptions,
    Recommendations,
    SessionOptions,
    SimilarItems,
    UserAnswer,
    UserOptions,
)
from isrf_client.attempts import Budget, Call, Patience, Steps, attempts, unreadable
from isrf_client.bulk import import_records, record_line
from isrf_client.errors import InvalidCallError
from isrf_client.events import post, prepare, prepared
from isrf_client.operations import Imported, Line, Readiness, Reloaded, Stats
from isrf_client.values import id_texts, json_fields, plain, query, segment

MAX_USERS = 256
"""Users of one request; more are sent in parts."""
MOST_ITEMS, MOST_EXPLAINED = 12_800, 1000
"""Items of all lists of a request together, without and with reasons: long lists need more parts."""
USUAL_N = 10
"""Items of a list without the option `n`."""
MAX_URL = 60_000
"""Characters of path and parameters: the service accepts 64 KiB of request line and headers together."""
ITEMS = ("items", list)

Clock = Callable[[], float]
Exported: TypeAlias = Literal["items", "events", "users"]


class Calls:
    """The calls of one client, with its patience and its clock."""

    def __init__(self, *, reads: Patience, writes: Patience, bulk: Patience, clock: Clock) -> None:
        for patience in (reads, writes, bulk):
            if not isinstance(patience, Patience):
                raise InvalidCallError(
                    "client.invalid_patience", f"{patience!r:.80} is not a Patience.", fix="Give reads=Patience(…)."
                )
        self._reads, self._writes, self._bulk, self._clock = reads, writes, bulk, clock

    def recommend(self, user_id: Id, options: UserOptions) -> Steps[Recommendations]:
        return self._read(_get(f"/recommend/{segment(user_id, 'user_id')}", ITEMS, options))

    def recommend_session(self, history: Iterable[Id], options: SessionOptions) -> Steps[Recommendations]:
        body = {"history": id_texts(history, "history"), **json_fields(options)}
        return self._read(Call(method="POST", path="/recommend", body=body, answer=ITEMS))

    def recommend_many(self, user_ids: Iterable[Id], options: ListOptions) -> Steps[list[Recommendations]]:
        """Uses the patience of writes for all parts together: no page waits for it."""
        return self._many(id_texts(user_ids, "user_ids"), json_fields(options), Budget(self._writes, self._clock))

    def rank(self, candidates: Iterable[Id], options: RankOptions) -> Steps[Recommendations]:
        body = {"candidates": id_texts(candidates, "candidates"), **json_fields(options)}
        return self._read(Call(method="POST", path="/rank", body=body, answer=ITEMS))

    def similar(self, item_id: Id, options: PageOptions) -> Steps[SimilarItems]:
        return self._read(_get(f"/similar/{segment(item_id, 'item_id')}", ITEMS, options))

    def popular(self, options: PageOptions) -> Steps[PopularItems]:
        return self._read(_get("/popular", ITEMS, options))

    def user(self, user_id: Id, last: int | None) -> Steps[UserAnswer]:
        return self._read(_get(f"/users/{segment(user_id, 'user_id')}", ("history", list), {"last": last}))

    def erase(self, user_id: Id) -> Steps[None]:
        return self._write(Call(method="DELETE", path=f"/users/{segment(user_id, 'user_id')}"))

    def attributes(self, limit: int | None) -> Steps[AttributesAnswer]:
        return self._read(_get("/attributes", ("attributes", list), {"limit": limit}))

    def item(self, item_id: Id) -> Steps[ItemAnswer]:
        return self._read(_get(f"/items/{segment(item_id, 'item_id')}", ("item", dict)))

    def put_item(self, item_id: Id, body: ItemBody) -> Steps[ItemChanged]:
        """Sends None too: it removes a field."""
        fields = {name: plain(value, name) for name, value in body.items()}
        path = f"/items/{segment(item_id, 'item_id')}"
        return self._write(Call(method="PUT", path=path, body=fields, answer=("item", dict)))

    def hide_item(self, item_id: Id) -> Steps[None]:
        return self._write(Call(method="DELETE", path=f"/items/{segment(item_id, 'item_id')}"))

    def affinities(self, user_id: Id, attribute: Sequence[str] | None, limit: int | None) -> Steps[AffinitiesAnswer]:
        path = f"/users/{segment(user_id, 'user_id')}/affinities"
        return self._read(_get(path, ("affinities", dict), {"attribute": attribute, "limit": limit}))

    def placement_items(self, name: str, options: PlacementOptions) -> Steps[PlacementItems]:
        return self._read(_get(f"/placements/{segment(name, 'name')}/items", ITEMS, options))

    def placements(self) -> Steps[PlacementList]:
        return self._read(_get("/placements", ("placements", list)))

    def placement(self, name: str) -> Steps[PlacementAnswer]:
        return self._read(_get(f"/placements/{segment(name, 'name')}", ("placement", dict)))

    def put_placement(self, name: str, placement: Placement, expected: int | None) -> Steps[PlacementAnswer]:
        fields = {field: plain(value, field) for field, value in placement.items()}
        path = f"/placements/{segment(name, 'name')}"
        params = query({"expected_version": expected})
        return self._write(Call(method="PUT", path=path, params=params, body=fields, answer=("placement", dict)))

    def preview_placement(self, placement: Placement, options: PreviewOptions) -> Steps[PlacementPreviewAnswer]:
        body = {"placement": plain(placement, "placement"), **json_fields(options)}
        return self._read(Call(method="POST", path="/placements/preview", body=body, answer=("after", dict)))

    def delete_placement(self, name: str, expected: int | None) -> Steps[None]:
        params = query({"expected_version": expected})
        return self._write(Call(method="DELETE", path=f"/placements/{segment(name, 'name')}", params=params))

    def interactions(self, events: Iterable[Event]) -> Steps[InteractionsAnswer]:
        """Gives every event its id before the first try, so that no event counts twice."""
        return post(prepare(events), Budget(self._writes, self._clock))

    def import_items(self, items: Iterable[Line]) -> Steps[Imported]:
        return import_records("/import/items", items, record_line, Budget(self._bulk, self._clock))

    def import_users(self, users: Iterable[Line]) -> Steps[Imported]:
        return import_records("/import/users", users, record_line, Budget(self._bulk, self._clock))

    def import_events(self, events: Iterable[Event]) -> Steps[Imported]:
        """Gives every event its id before its first try, as `interactions` does."""
        return import_records("/import/events", events, prepared, Budget(self._bulk, self._clock))

    def export(self, what: Exported) -> Steps[Any]:
        """Returns the client's own `OpenAnswer` once it begins; the call is tried again only until then."""
        call = Call(method="GET", path=f"/export/{what}", streamed=True)
        return attempts(call, Budget(self._bulk, self._clock))

    def ready(self) -> Steps[Readiness]:
        return self._read(_get("/readyz", ("status", str)))

    def reload(self) -> Steps[Reloaded]:
        return self._write(Call(method="POST", path="/admin/reload", answer=("status", str)))

    def stats(self) -> Steps[Stats]:
        return self._read(_get("/admin/stats", ("releases", list)))

    def _many(self, user_ids: list[str], options: dict[str, Any], budget: Budget) -> Steps[list[Recommendations]]:
        found: list[Recommendations] = []
        users_per_request = _users_together(options)
        for start in range(0, len(user_ids), users_per_request):
            body = {"users": user_ids[start : start + users_per_request], **options}
            budget.renew_tries()
            answer = yield from attempts(
                Call(method="POST", path="/recommend", body=body, answer=("answers", list)), budget
            )
            if len(answer["answers"]) != len(body["users"]):
                raise unreadable(f"{len(answer['answers'])} answers for {len(body['users'])} users")
            found += answer["answers"]
        return found

    def _read(self, call: Call) -> Steps[Any]:
        return attempts(call, Budget(self._reads, self._clock))

    def _write(self, call: Call) -> Steps[Any]:
        return attempts(call, Budget(self._writes, self._clock))


def _users_together(options: Mapping[str, Any]) -> int:
    """Returns how many users one request may have; the service refuses an invalid number of items."""
    n = options.get("n", USUAL_N)
    if not isinstance(n, int) or n < 1:
        return MAX_USERS
    most = MOST_EXPLAINED if options.get("explain") else MOST_ITEMS
    return min(MAX_USERS, max(1, most // n))


def _get(path: str, answer: tuple[str, type], options: Mapping[str, Any] | None = None) -> Call:
    pairs = query(options or {})
    length = len(path) + len(urlencode(pairs))
    if length > MAX_URL:
        raise InvalidCallError(
            "client.url_too_long",
            f"path and parameters have {length} characters, {MAX_URL} are allowed.",
            fix="Give fewer ids; the body of recommend_session, recommend_many or rank takes up to 1,000.",
        )
    return Call(method="GET", path=path, params=pairs, answer=answer)
