"""Shows, adds, changes and hides items between two releases; a change counts from the next answer on."""

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

_PUT_PROBLEMS = {**PROBLEMS, 409: {**PROBLEMS[422], "description": "The service cannot add an item now."}}


@router.get("/items/{item_id:path}", dependencies=[READ], response_model=ItemAnswer, responses=PROBLEMS)
async def show_item(request: Request, item_id: ItemIdDep, context: AppDep) -> Response:
    """An item as it is now."""
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
    """Adds or changes an item. The change is on disk when the answer arrives.

    The service recommends a new item by its texts at once; the next release that contains it gives it a semantic ID.
    """
    known = await _line(item_id, context)
    runtime = context.releases.current
    new = context.releases.is_new(item_id)
    if new and known is None and not runtime.items.reads_new_items:
        raise RequestError(
            "item.unreadable",
            "the current release cannot read new items.",
            fix="Publish a release with this version and with item texts. Items of the release can be changed.",
        )
    (outcome,) = await context.releases.change_items(
        [ItemChange(item_id, body.sent_fields(), context.releases.now(), new)]
    )
    context.metrics.item_changes.labels(outcome).inc()
    if outcome != "accepted":
        raise _refusal(outcome)
    line = runtime.release.catalogue.find(item_id) or ItemLine(item_id=item_id)
    warnings = []
    if new and not runtime.items.understands(item_id):
        message = "The release knows no word of the item's texts: no user's list can prefer it."
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
    """Hides an item: it is not recommended. Histories that contain it stay as they are; a PUT brings it back."""
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
    """Returns an item; looks into the store where it is missing, as another replica may have just added it."""
    catalogue = context.releases.current.release.catalogue
    line = catalogue.find(item_id)
    if line is None or line.hidden:
        await context.releases.look_for_items()
        line = context.releases.current.release.catalogue.find(item_id)
    return line


def _unknown() -> RequestError:
    return RequestError("request.unknown_item", "there is no such item.", fix="PUT it, or check the id.")


def _refusal(outcome: str) -> IsrfError:
    if outcome == "too_many":
        return RequestError(
            "item.too_many",
            "the limit of items added since the release is reached.",
            fix="Publish a release that contains them, or raise ISRF_MAX_ADDED_ITEMS.",
        )
    if outcome == "too_large":
        return RequestError(
            "item.too_large",
            f"together with its stored fields, the item has more than {MAX_ITEM_BYTES} bytes as JSON.",
            fix="Shorten its texts or metadata, or remove fields with null.",
        )
    return StoreError("store.busy", "other requests are changing this item.", fix="Send the request again.")
