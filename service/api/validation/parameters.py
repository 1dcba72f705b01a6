"""Refuses unknown and repeated query parameters, and caches parsed queries.

An unknown parameter, such as `include-seen=true`, would otherwise be ignored without a word. A repeated parameter is
ambiguous. The HTML pages ignore unknown parameters, because links to them may carry any (`utm_source=…`).
"""

from dataclasses import replace
from typing import get_origin
from urllib.parse import unquote_to_bytes

from cachetools import LRUCache
from fastapi import Request
from fastapi.dependencies.models import Dependant

from isrf.contract.errors import RequestError
from service.recommend.placements.placed_query import PlacedQuery
from service.recommend.query_models import ListQuery
from service.release.conditions import CONTEXT

_USER = b"user_id="
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
    """Caches the latest valid query strings of the calls for lists, parsed."""

    def __init__(self) -> None:
        self._known: LRUCache[bytes, ListQuery] = LRUCache(KNOWN_QUERIES)
        self._known_placed: LRUCache[bytes, PlacedQuery] = LRUCache(KNOWN_QUERIES)

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

    def learn_placed(self, query_string: bytes, query: PlacedQuery) -> None:
        """Caches the query of a placement's items for all users, but no later page; `query` names no items."""
        others, user_id = _without_user(query_string)
        if (
            user_id is not None
            and others not in self._known_placed
            and len(others) <= LONGEST_KNOWN
            and query.recommendation_id is None
        ):
            self._known_placed[others] = replace(query, user_id=None)

    def get_placed(self, query_string: bytes) -> PlacedQuery | None:
        """Returns the query with the user that the string names; None where the rest of it is not known."""
        others, user_id = _without_user(query_string)
        found = None if user_id is None else self._known_placed.get(others)
        return None if found is None else replace(found, user_id=user_id)


def _without_user(query_string: bytes) -> tuple[bytes, str | None]:
    """Splits a query string into its parts without `user_id=`, and that user_id; None where it is not one valid text.

    An id with a comma or a semicolon stays what it is; a user_id that stands twice, or whose name is percent-encoded,
    is left to the framework.
    """
    parts = query_string.split(b"&")
    users = [part for part in parts if part.startswith(_USER)]
    if len(users) != 1:
        return query_string, None
    parts.remove(users[0])
    try:
        user_id = unquote_to_bytes(users[0][len(_USER) :].replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        return query_string, None
    return b"&".join(parts), user_id


def query_parameters(dependant: Dependant) -> dict[str, bool]:
    """Returns the query parameters of a route and its dependencies, and whether each may be repeated."""
    found = {field.alias: get_origin(field.field_info.annotation) is list for field in dependant.query_params}
    for dependency in dependant.dependencies:
        found |= query_parameters(dependency)
    return found
