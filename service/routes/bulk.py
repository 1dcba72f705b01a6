"""Many items, users or events at once, as JSON Lines: read line by line, whatever the size of the body."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from isrf.item_changes import MAX_ITEM_BYTES
from isrf.item_fields import FieldError, read_item_id
from service.bulk import Report, Take, Turns, Verdict, take_lines, write_lines
from service.bulk_users import events_of, user_lines
from service.catalogue_lines import catalogue_lines
from service.doors.caller import ADMIN, WRITE
from service.item_bodies import SizeError, line_says
from service.known_fields import message_of
from service.misnamed import Misnamed
from service.routes.dependencies import PROBLEMS, Running, RunningDep, json_response
from service.routes.interactions import take_events
from service.schemas import MAX_EVENTS, Imported
from service.state.events import Event
from service.state.items import ItemChange

router = APIRouter(tags=["bulk"])

LINES = "application/x-ndjson"
_TAKES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            LINES: {"schema": {"type": "string", "description": "A JSON object a line."}},
            # Lines are taken under any name; this one every generator of clients knows.
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_GIVES: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"description": "A JSON object a line.", "content": {LINES: {"schema": {"type": "string"}}}},
}
_TOO_MANY = "as many items were added since the release as may be (ISRF_MAX_ADDED_ITEMS)"
_TOO_LARGE = (
    f"with what was said before, the item has more than {MAX_ITEM_BYTES} bytes as JSON: shorten its texts or metadata, "
    "or take away what is not needed with null"
)


@router.post("/import/items", dependencies=[WRITE], response_model=Imported, responses=PROBLEMS, openapi_extra=_TAKES)
async def import_items(request: Request, service: RunningDep) -> Response:
    """Adds and changes items: lines of the catalogue's own format (`items.jsonl`). Sending them again does no harm."""

    misnamed = Misnamed()

    async def take(records: Sequence[Mapping[str, Any]]) -> list[list[Verdict]]:
        read, turns = [], Turns()
        for record in records:
            read.append(_item_change(record, service))
            await turns.give()
        changes = [one for one in read if isinstance(one, ItemChange)]
        for change in changes:
            misnamed.see(change.fields)
        outcomes = iter(await service.releases.change_items(changes) if changes else [])
        verdicts = []
        for one in read:
            verdict = one if isinstance(one, Verdict) else _item_verdict(next(outcomes))
            service.metrics.item_changes.labels(verdict.reason or verdict.status).inc()
            verdicts.append([verdict])
        return verdicts

    report = await take_lines(request.stream(), take)
    return _answer(request, report, misnamed.warnings())


@router.post("/import/events", dependencies=[WRITE], response_model=Imported, responses=PROBLEMS, openapi_extra=_TAKES)
async def import_events(request: Request, service: RunningDep) -> Response:
    """Takes events as `POST /interactions` does, however many. With an `event_id` or a `timestamp` they count once."""

    async def take(records: Sequence[Mapping[str, Any]]) -> list[list[Verdict]]:
        return [[_event_verdict(result)] for result in await take_events(records, service)]

    return _answer(request, await take_lines(request.stream(), take))


@router.post("/import/users", dependencies=[WRITE], response_model=Imported, responses=PROBLEMS, openapi_extra=_TAKES)
async def import_users(request: Request, service: RunningDep) -> Response:
    """Takes users' state as `GET /export/users` gives it, as the events that make it: those are what is counted."""
    return _answer(request, await take_lines(request.stream(), _take_users(service)))


@router.get("/export/items", dependencies=[ADMIN], response_class=StreamingResponse, responses=_GIVES)
async def export_items(service: RunningDep) -> StreamingResponse:
    """The whole catalogue as it is now, in its own format: `items.jsonl` of the next offline run."""
    serving = service.releases.current
    await serving.items.bring_up_to_date()
    return await _stream(catalogue_lines(serving.identity.folder, serving.items))


@router.get("/export/events", dependencies=[ADMIN], response_class=StreamingResponse, responses=_GIVES)
async def export_events(service: RunningDep) -> StreamingResponse:
    """Accepted events that the offline job has not taken in yet."""

    async def pages() -> AsyncIterator[list[dict[str, Any]]]:
        async for page in service.store.accepted():
            yield [_event_line(event) for event in page]

    return await _stream(pages())


@router.get("/export/users", dependencies=[ADMIN], response_class=StreamingResponse, responses=_GIVES)
async def export_users(service: RunningDep) -> StreamingResponse:
    """What is known of users since the release, from accepted events; much of one user stands in several lines."""

    async def pages() -> AsyncIterator[Iterator[dict[str, Any]]]:
        async for page in service.store.user_ids():
            records = await service.store.read_many(page)
            pairs = zip(page, records, strict=True)
            known = ((user_id, record) for user_id, record in pairs if record.history or record.marks)
            # Made while they are written: one account decides how many lines it has.
            yield (line for user_id, record in known for line in user_lines(user_id, record))

    return await _stream(pages())


def _item_change(record: Mapping[str, Any], service: Running) -> ItemChange | Verdict:
    try:
        item_id = read_item_id(record.get("item_id"))
        fields = line_says(record)
    except FieldError as error:
        reason = "invalid_item_id" if error.field == "item_id" else "invalid_item"
        return Verdict("refused", reason, f"{error.field}: {error}"[:400])
    except SizeError as error:
        return Verdict("refused", "item_too_large", str(error))
    new = service.releases.is_new(item_id)
    if new and not service.releases.knows(item_id) and not service.releases.current.items.reads_new_items:
        return Verdict("refused", "unreadable_item", "the release that is served cannot read new items")
    return ItemChange(item_id, fields, service.releases.now(), new)


def _item_verdict(outcome: str) -> Verdict:
    if outcome == "accepted":
        return Verdict("accepted")
    if outcome == "too_many":
        return Verdict("refused", "too_many_items", _TOO_MANY)
    if outcome == "too_large":
        return Verdict("refused", "item_too_large", _TOO_LARGE)
    return Verdict("refused", "store_unavailable", "others change this item right now; send it again")


def _event_verdict(result: Mapping[str, str]) -> Verdict:
    return Verdict(result["status"], result.get("reason", ""), result.get("detail", ""))


def _take_users(service: Running) -> Take:
    async def take(records: Sequence[Mapping[str, Any]]) -> list[list[Verdict]]:
        events: list[dict[str, Any]] = []
        places: list[slice | Verdict] = []
        turns = Turns()
        for record in records:
            await turns.give()
            try:
                more = events_of(record)
            except ValidationError as error:
                places.append(_invalid("invalid_user", error))
                continue
            places.append(slice(len(events), len(events) + len(more)))
            events += more
        results: list[dict[str, str]] = []
        for start in range(0, len(events), MAX_EVENTS):
            results += await take_events(events[start : start + MAX_EVENTS], service)
        return [
            [place] if isinstance(place, Verdict) else [_event_verdict(result) for result in results[place]]
            for place in places
        ]

    return take


def _invalid(reason: str, error: ValidationError) -> Verdict:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return Verdict("refused", reason, f"{where[:80]}: {message_of(first)[:300]}")


def _event_line(event: Event) -> dict[str, Any]:
    kind = {"event": event.event} if event.event else {}
    told = {"user_id": event.user_id, "item_id": event.item_id, **kind, "timestamp": event.timestamp}
    return told | {"event_id": event.event_id}


def _answer(request: Request, report: Report, warnings: Sequence[Mapping[str, Any]] = ()) -> Response:
    return json_response(report.body() | {"warnings": warnings, "meta": {"request_id": request.state.request_id}})


async def _stream(pages: AsyncIterator[Iterable[dict[str, Any]]]) -> StreamingResponse:
    """Begins the answer when the first page is there: until then the store may still refuse."""
    lines = write_lines(pages)
    first = await anext(lines, b"")

    async def all_lines() -> AsyncIterator[bytes]:
        yield first
        async for some in lines:
            yield some

    return StreamingResponse(all_lines(), media_type=LINES)
