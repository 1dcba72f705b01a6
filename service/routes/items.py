"""The catalogue between two releases: what the shop says of an item counts from the next answer on."""

from fastapi import APIRouter, Request, Response

from isrf.errors import IsrfError, RequestError, StoreError
from isrf.item_changes import HIDDEN, MAX_ITEM_BYTES
from service import warned
from service.catalogue import ItemLine
from service.doors.caller import READ, WRITE
from service.item_bodies import ItemBody, item_body
from service.routes.dependencies import NAMES_ONCE, PROBLEMS, ItemIdDep, Running, RunningDep, json_response
from service.schemas import ItemAnswer, ItemChanged
from service.state.items import ItemChange

router = APIRouter(tags=["items"])

_PUT_PROBLEMS = {**PROBLEMS, 409: {**PROBLEMS[422], "description": "No new item can be taken in now."}}


@router.get("/items/{item_id:path}", dependencies=[READ], response_model=ItemAnswer, responses=PROBLEMS)
async def show_item(request: Request, item_id: ItemIdDep, service: RunningDep) -> Response:
    """An item as it is offered now."""
    line = await _line(item_id, service)
    if line is None or line.hidden:
        raise _unknown()
    serving = service.releases.current
    return json_response(
        {
            "item": item_body(line, in_release=not serving.items.is_new(item_id)),
            "meta": {"release_id": serving.release_id, "request_id": request.state.request_id},
        }
    )


@router.put(
    "/items/{item_id:path}",
    dependencies=[WRITE, NAMES_ONCE],
    response_model=ItemChanged,
    responses=_PUT_PROBLEMS,
)
async def put_item(request: Request, item_id: ItemIdDep, body: ItemBody, service: RunningDep) -> Response:
    """Adds an item, or changes one. What was answered is on disk.

    A new item is read from its texts and recommended at once; the next release that holds it gives it a semantic ID.
    """
    known = await _line(item_id, service)
    serving = service.releases.current
    new = service.releases.is_new(item_id)
    if new and known is None and not serving.items.reads_new_items:
        raise RequestError(
            "item.unreadable",
            "the release that is served cannot read new items.",
            fix="Publish a release with this version and with texts of items; items that it holds can be changed.",
        )
    (outcome,) = await service.releases.change_items([ItemChange(item_id, body.said(), service.releases.now(), new)])
    service.metrics.item_changes.labels(outcome).inc()
    if outcome != "accepted":
        raise _refusal(outcome)
    line = serving.release.catalogue.find(item_id) or ItemLine(item_id=item_id)
    warnings = []
    if new and not serving.items.understands(item_id):
        message = "No word of its texts is known to the release: it is recommended to nobody in particular."
        warnings.append(warned.warning("no_known_words", message))
    return json_response(
        {
            "status": "added" if known is None or known.hidden else "changed",
            "item": item_body(line, in_release=not serving.items.is_new(item_id)),
            "meta": {"release_id": serving.release_id, "request_id": request.state.request_id},
            "warnings": warnings,
        }
    )


@router.delete(
    "/items/{item_id:path}", dependencies=[WRITE], status_code=204, response_class=Response, responses=PROBLEMS
)
async def hide_item(item_id: ItemIdDep, service: RunningDep) -> Response:
    """Hides an item: it is recommended to nobody. Histories that hold it stay as they are; a PUT brings it back."""
    line = await _line(item_id, service)
    if not service.releases.knows(item_id) or (line is not None and line.hidden):
        raise _unknown()
    change = ItemChange(item_id, {HIDDEN: True}, service.releases.now(), service.releases.is_new(item_id))
    (outcome,) = await service.releases.change_items([change])
    service.metrics.item_changes.labels(outcome).inc()
    if outcome != "accepted":
        raise _refusal(outcome)
    return Response(status_code=204)


async def _line(item_id: str, service: Running) -> ItemLine | None:
    """An item as it is known; another replica or worker may have taken it in a moment ago."""
    catalogue = service.releases.current.release.catalogue
    line = catalogue.find(item_id)
    if line is None or line.hidden:
        await service.releases.look_for_items()
        line = service.releases.current.release.catalogue.find(item_id)
    return line


def _unknown() -> RequestError:
    return RequestError("request.unknown_item", "there is no such item.", fix="PUT it, or look at the id.")


def _refusal(outcome: str) -> IsrfError:
    if outcome == "too_many":
        return RequestError(
            "item.too_many",
            "as many items were added since the release as may be.",
            fix="Publish a release that holds them, or raise ISRF_MAX_ADDED_ITEMS.",
        )
    if outcome == "too_large":
        return RequestError(
            "item.too_large",
            f"with what was said before, the item has more than {MAX_ITEM_BYTES} bytes as JSON.",
            fix="Shorten its texts or metadata, or take away what is not needed: null does.",
        )
    return StoreError("store.busy", "others change this item right now.", fix="Send the request again.")
