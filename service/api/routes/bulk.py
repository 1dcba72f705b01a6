"""Imports and exports items, users and events as JSON Lines, line by line, whatever the size of the body."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from isrf.contract.ids import owner_fields
from isrf.contract.item_changes import MAX_ITEM_BYTES
from isrf.contract.item_fields import FieldError, read_item_id
from isrf.contract.known_fields import message_of
from service.api.bulk.catalogue import catalogue_lines
from service.api.bulk.lines import ImportBatch, LineVerdict, LoopPauses, Report, import_lines, write_lines
from service.api.bulk.misnamed import MisnamedFields
from service.api.bulk.users import events_of, user_lines
from service.api.context import AppContext, AppDep
from service.api.presenters import PROBLEMS, json_response
from service.api.routes.interactions import accept_events
from service.api.schemas.answers import Imported
from service.api.schemas.items import SizeError, fields_of_line
from service.api.schemas.requests import MAX_EVENTS
from service.auth.caller import ADMIN, WRITE
from service.auth.route_rules import LINES
from service.state.events import Event
from service.state.item_store import ItemChange

router = APIRouter(tags=["bulk"])

_IMPORT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            LINES: {"schema": {"type": "string", "description": "A JSON object a line."}},
            # The service accepts most media types; every generator of clients knows this one.
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_EXPORT_RESPONSES: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"description": "A JSON object a line.", "content": {LINES: {"schema": {"type": "string"}}}},
}
_TOO_MANY = "the limit of items added since the release is reached (ISRF_MAX_ADDED_ITEMS)"
_TOO_LARGE = (
    f"together with its stored fields, the item has more than {MAX_ITEM_BYTES} bytes as JSON: shorten its texts or "
    "metadata, or remove fields with null"
)


@router.post(
    "/import/items", dependencies=[WRITE], response_model=Imported, responses=PROBLEMS, openapi_extra=_IMPORT_BODY
)
async def import_items(request: Request, context: AppDep) -> Response:
    """Adds and changes items: lines of the catalogue's own format (`items.jsonl`). Sending them again does no harm."""

    misnamed = MisnamedFields()

    async def import_batch(records: Sequence[Mapping[str, Any]]) -> list[list[LineVerdict]]:
        read, pauses = [], LoopPauses()
        for record in records:
            read.append(_item_change(record, context))
            await pauses.pause_if_due()
        changes = [change for change in read if isinstance(change, ItemChange)]
        for change in changes:
            misnamed.check(change.fields)
        outcomes = iter(await context.releases.change_items(changes) if changes else [])
        verdicts = []
        for result in read:
            verdict = result if isinstance(result, LineVerdict) else _item_verdict(next(outcomes))
            context.metrics.item_changes.labels(verdict.reason or verdict.status).inc()
            verdicts.append([verdict])
        return verdicts

    report = await import_lines(request.stream(), import_batch)
    return _answer(request, report, misnamed.warnings())


@router.post(
    "/import/events", dependencies=[WRITE], response_model=Imported, responses=PROBLEMS, openapi_extra=_IMPORT_BODY
)
async def import_events(request: Request, context: AppDep) -> Response:
    """Accepts events as `POST /interactions` does, any number. With an `event_id` or a `timestamp` they count once."""

    async def import_batch(records: Sequence[Mapping[str, Any]]) -> list[list[LineVerdict]]:
        return [[_event_verdict(result)] for result in await accept_events(records, context)]

    return _answer(request, await import_lines(request.stream(), import_batch))


@router.post(
    "/import/users", dependencies=[WRITE], response_model=Imported, responses=PROBLEMS, openapi_extra=_IMPORT_BODY
)
async def import_users(request: Request, context: AppDep) -> Response:
    """Imports users' state as `GET /export/users` returns it. The service turns it into events and counts these."""
    return _answer(request, await import_lines(request.stream(), _import_users(context)))


@router.get("/export/items", dependencies=[ADMIN], response_class=StreamingResponse, responses=_EXPORT_RESPONSES)
async def export_items(context: AppDep) -> StreamingResponse:
    """The whole catalogue as it is now, in its own format: `items.jsonl` of the next offline run."""
    runtime = context.releases.current
    await runtime.items.bring_up_to_date()
    return await _stream(catalogue_lines(runtime.identity.folder, runtime.items))


@router.get("/export/events", dependencies=[ADMIN], response_class=StreamingResponse, responses=_EXPORT_RESPONSES)
async def export_events(context: AppDep) -> StreamingResponse:
    """Accepted events that the offline job has not used yet."""

    async def pages() -> AsyncIterator[list[dict[str, Any]]]:
        async for page in context.store.accepted():
            yield [_event_line(event) for event in page]

    return await _stream(pages())


@router.get("/export/users", dependencies=[ADMIN], response_class=StreamingResponse, responses=_EXPORT_RESPONSES)
async def export_users(context: AppDep) -> StreamingResponse:
    """Users' state since the release, from accepted events. A user with much state has several lines."""

    async def pages() -> AsyncIterator[Iterator[dict[str, Any]]]:
        async for page in context.store.user_ids():
            records = await context.store.read_many(page)
            pairs = zip(page, records, strict=True)
            known = ((user_id, record) for user_id, record in pairs if record.history or record.marks)
            # A generator, because a single account can have any number of lines.
            yield (line for user_id, record in known for line in user_lines(user_id, record))

    return await _stream(pages())


def _item_change(record: Mapping[str, Any], context: AppContext) -> ItemChange | LineVerdict:
    try:
        item_id = read_item_id(record.get("item_id"))
        fields = fields_of_line(record)
    except FieldError as error:
        reason = "invalid_item_id" if error.field == "item_id" else "invalid_item"
        return LineVerdict("refused", reason, f"{error.field}: {error}"[:400])
    except SizeError as error:
        return LineVerdict("refused", "item_too_large", str(error))
    new = context.releases.is_new(item_id)
    if new and not context.releases.knows(item_id) and not context.releases.current.items.reads_new_items:
        return LineVerdict("refused", "unreadable_item", "the current release cannot read new items")
    return ItemChange(item_id, fields, context.releases.now(), new)


def _item_verdict(outcome: str) -> LineVerdict:
    if outcome == "accepted":
        return LineVerdict("accepted")
    if outcome == "too_many":
        return LineVerdict("refused", "too_many_items", _TOO_MANY)
    if outcome == "too_large":
        return LineVerdict("refused", "item_too_large", _TOO_LARGE)
    return LineVerdict("refused", "store_unavailable", "other requests are changing this item; send it again")


def _event_verdict(result: Mapping[str, str]) -> LineVerdict:
    return LineVerdict(result["status"], result.get("reason", ""), result.get("detail", ""))


def _import_users(context: AppContext) -> ImportBatch:
    async def import_batch(records: Sequence[Mapping[str, Any]]) -> list[list[LineVerdict]]:
        events: list[dict[str, Any]] = []
        outcomes: list[slice | LineVerdict] = []  # of each record: its events, or its refusal
        pauses = LoopPauses()
        for record in records:
            await pauses.pause_if_due()
            try:
                more = events_of(record)
            except ValidationError as error:
                outcomes.append(_invalid("invalid_user", error))
                continue
            outcomes.append(slice(len(events), len(events) + len(more)))
            events += more
        results: list[dict[str, str]] = []
        for start in range(0, len(events), MAX_EVENTS):
            results += await accept_events(events[start : start + MAX_EVENTS], context)
        return [
            [outcome] if isinstance(outcome, LineVerdict) else [_event_verdict(result) for result in results[outcome]]
            for outcome in outcomes
        ]

    return import_batch


def _invalid(reason: str, error: ValidationError) -> LineVerdict:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return LineVerdict("refused", reason, f"{where[:80]}: {message_of(first)[:300]}")


def _event_line(event: Event) -> dict[str, Any]:
    kind = {"event": event.event} if event.event else {}
    return {
        **owner_fields(event.user_id),
        "item_id": event.item_id,
        **kind,
        "timestamp": event.timestamp,
        "event_id": event.event_id,
    }


def _answer(request: Request, report: Report, warnings: Sequence[Mapping[str, Any]] = ()) -> Response:
    return json_response(report.body() | {"warnings": warnings, "meta": {"request_id": request.state.request_id}})


async def _stream(pages: AsyncIterator[Iterable[dict[str, Any]]]) -> StreamingResponse:
    """Reads the first page before the answer begins, so that an error of the store becomes a problem."""
    lines = write_lines(pages)
    first = await anext(lines, b"")

    async def all_lines() -> AsyncIterator[bytes]:
        yield first
        async for piece in lines:
            yield piece

    return StreamingResponse(all_lines(), media_type=LINES)
