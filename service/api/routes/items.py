"""The catalogue between two releases: what the shop says of an item counts from the next answer on."""

from fastapi import APIRouter, Request, Response

from isrf.contract.errors import IsrfError, RequestError, StoreError
from isrf.contract.item_changes import HIDDEN, MAX_ITEM_BYTES
from service.api.context import AppContext, AppDep
from service.api.presenters import PROBLEMS, json_response
from service.api.schemas.answers import ItemAnswer, ItemChanged
from service.api.schemas.items import ItemBody, item_body
from service.api.validation.inputs import NAMES_ONCE, ItemIdDep
from service.auth.caller import READ, WRITE
from service.recommend.warnings import warning
from service.release.catalogue import ItemLine
from service.state.item_store import ItemChange

router = APIRouter(tags=["items"])

_PUT_PROBLEMS = {**PROBLEMS, 409: {**PROBLEMS[422], "description": "No new item can be taken in now."}}


@router.get("/items/{item_id:path}", dependencies=[READ], response_model=ItemAnswer, responses=PROBLEMS)
async def show_item(request: Request, item_id: ItemIdDep, context: AppDep) -> Response:
    """An item as it is offered now."""
    line = await _line(item_id, context)
    if line is None or line.hidden:
        raise _unknown()
    runtime = context.releases.current
    return json_response(
        {
            "item": item_body(line, in_release=not runtime.items.is_new(item_id)),
            "meta": {"release_id": runtime.release_id, "request_id": request.state.request_id},
        }
    )


@router.put(
    "/items/{item_id:path}",
    dependencies=[WRITE, NAMES_ONCE],
    response_model=ItemChanged,
    responses=_PUT_PROBLEMS,
)
async def put_item(request: Request, item_id: ItemIdDep, body: ItemBody, context: AppDep) -> Response:
    """Adds an item, or changes one. What was answered is on disk.

    A new item is read from its texts and recommended at once; the next release that holds it gives it a semantic ID.
    """
    known = await _line(item_id, context)
    runtime = context.releases.current
    new = context.releases.is_new(item_id)
    if new and known is None and not runtime.items.reads_new_items:
        raise RequestError(
            "item.unreadable",
            "the release that is served cannot read new items.",
            fix="Publish a release with this version and with texts of items; items that it holds can be changed.",
        )
    (outcome,) = await context.releases.change_items([ItemChange(item_id, body.said(), context.releases.now(), new)])
    context.metrics.item_changes.labels(outcome).inc()
    if outcome != "accepted":
        raise _refusal(outcome)
    line = runtime.release.catalogue.find(item_id) or ItemLine(item_id=item_id)
    warnings = []
    if new and not runtime.items.understands(item_id):
        message = "No word of its texts is known to the release: it is recommended to nobody in particular."
        warnings.append(warning("no_known_words", message))
    return json_response(
        {
            "status": "added" if known is None or known.hidden else "changed",
            "item": item_body(line, in_release=not runtime.items.is_new(item_id)),
            "meta": {"release_id": runtime.release_id, "request_id": request.state.request_id},
            "warnings": warnings,
        }
    )


@router.delete(
    "/items/{item_id:path}", dependencies=[WRITE], status_code=204, response_class=Response, responses=PROBLEMS
)
async def hide_item(item_id: ItemIdDep, context: AppDep) -> Response:
    """Hides an item: it is recommended to nobody. Histories that hold it stay as they are; a PUT brings it back."""
    line = await _line(item_id, context)
    if not context.releases.knows(item_id) or (line is not None and line.hidden):
        raise _unknown()
    change = ItemChange(item_id, {HIDDEN: True}, context.releases.now(), context.releases.is_new(item_id))
    (outcome,) = await context.releases.change_items([change])
    context.metrics.item_changes.labels(outcome).inc()
    if outcome != "accepted":
        raise _refusal(outcome)
    return Response(status_code=204)


async def _line(item_id: str, context: AppContext) -> ItemLine | None:
    """An item as it is known; another replica or worker may have taken it in a moment ago."""
    catalogue = context.releases.current.release.catalogue
    line = catalogue.find(item_id)
    if line is None or line.hidden:
        await context.releases.look_for_items()
        line = context.releases.current.release.catalogue.find(item_id)
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
