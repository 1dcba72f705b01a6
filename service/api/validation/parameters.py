"""Refuses unknown and repeated query parameters, and caches parsed queries.

An unknown parameter, such as `include-seen=true`, would otherwise be ignored without a word. A repeated parameter is
ambiguous. The HTML pages ignore unknown parameters, because links to them may carry any (`utm_source=…`).
"""

from typing import get_origin
from urllib.parse import unquote_to_bytes

from cachetools import LRUCache
from fastapi import Request
from fastapi.dependencies.models import Dependant

from isrf.contract.errors import RequestError
from service.recommend.query_models import ListQuery
from service.release.conditions import CONTEXT

KNOWN_QUERIES = 1024
LONGEST_KNOWN = 256


async def only_known_parameters(request: Request) -> None:
    """Refuses unknown and repeated parameters; a dependency of the whole app."""
    if not request.query_params or not request.scope["route"].include_in_schema:
        return
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        # The framework decodes leniently: two different invalid ids would become equal.
        raise RequestError(
            "request.invalid", "the query is not valid UTF-8.", fix="Percent-encode its UTF-8 bytes."
        ) from None
    known = query_parameters(request.scope["route"].dependant)
    for name in request.query_params:
        if name.startswith(CONTEXT) and "filter" in known:
            known = {**known, name: False}  # a name of the caller's own
        if not known.get(name, True) and len(request.query_params.getlist(name)) > 1:
            raise RequestError("request.repeated_parameter", f"the parameter {name} stands twice.", fix="Send it once.")
        if name not in known:
            raise RequestError(
                "request.unknown_parameter",
                f"this call has no parameter {name[:80]!r}.",
                fix=f"Its parameters: {', '.join(sorted(known)) or 'none'}.",
            )


class KnownQueries:
    """Caches the latest valid query strings of `GET /recommend/{user_id}`, parsed."""

    def __init__(self) -> None:
        self._known: LRUCache[bytes, ListQuery] = LRUCache(KNOWN_QUERIES)

    def learn(self, query_string: bytes, query: ListQuery) -> None:
        """Caches a query, but no later page, and none whose meaning depends on the catalogue (item_ids with commas)."""
        if (
            query_string not in self._known
            and len(query_string) <= LONGEST_KNOWN
            and not (query.item_filter.exclude or query.session or query.recommendation_id)
        ):
            self._known[query_string] = query

    def get(self, query_string: bytes) -> ListQuery | None:
        return self._known.get(query_string)


def query_parameters(dependant: Dependant) -> dict[str, bool]:
    """Returns the query parameters of a route and its dependencies, and whether each may be repeated."""
    found = {field.alias: get_origin(field.field_info.annotation) is list for field in dependant.query_params}
    for dependency in dependant.dependencies:
        found |= query_parameters(dependency)
    return found
