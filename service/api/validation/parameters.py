"""Query parameters that a route does not know are refused: `include-seen=true` must not be an answer without it.

So is one that stands twice and takes one value: which of the two was meant? Pages for people ignore what they do not
know: whoever links to them may add what they like (`utm_source=…`).
"""

from functools import lru_cache
from urllib.parse import unquote_to_bytes

from cachetools import LRUCache
from fastapi import FastAPI, Request

from isrf.contract.errors import RequestError
from service.recommend.query_models import ListQuery

KNOWN_QUERIES = 1024
LONGEST_KNOWN = 256


async def only_known_parameters(request: Request) -> None:
    """A dependency of the whole app."""
    if not request.query_params or not request.scope["route"].include_in_schema:
        return
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        # The framework decodes leniently: two broken ids would become one.
        raise RequestError(
            "request.invalid", "the query is not valid UTF-8.", fix="Percent-encode its UTF-8 bytes."
        ) from None
    known = _known(request.app, request.scope["route"].path_format, request.method.lower())
    for name in request.query_params:
        if not known.get(name, True) and len(request.query_params.getlist(name)) > 1:
            raise RequestError("request.repeated_parameter", f"the parameter {name} stands twice.", fix="Send it once.")
        if name not in known:
            raise RequestError(
                "request.unknown_parameter",
                f"there is no parameter {name[:80]!r} here.",
                fix=f"Known here: {', '.join(sorted(known)) or 'none'}.",
            )


class KnownQueries:
    """What `GET /recommend/{user_id}` was asked for last: query strings that were found good, and what they ask."""

    def __init__(self) -> None:
        self._known: LRUCache[bytes, ListQuery] = LRUCache(KNOWN_QUERIES)

    def learn(self, query: bytes, wanted: ListQuery) -> None:
        """Not where the catalogue has a say in what a query means, as it has in item_ids with commas; no page's."""
        if (
            query not in self._known
            and len(query) <= LONGEST_KNOWN
            and not (wanted.only.exclude or wanted.session or wanted.recommendation_id)
        ):
            self._known[query] = wanted

    def get(self, query: bytes) -> ListQuery | None:
        return self._known.get(query)


@lru_cache(maxsize=256)
def _known(app: FastAPI, path: str, method: str) -> dict[str, bool]:
    """The route's query parameters, and whether they may be repeated."""
    operation = app.openapi().get("paths", {}).get(path, {}).get(method, {})
    return {
        one["name"]: one["schema"].get("type") == "array"
        for one in operation.get("parameters", ())
        if one["in"] == "query"
    }
