"""Identifies the caller of a request, and checks the role that a route needs.

Every route names the role it needs (`BROWSER`, `READ`, `WRITE`, `ADMIN`) or is one of `OPEN`; a test goes through all
of them.
"""

from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from isrf.contract.errors import AccessError
from service.auth.keys import INCLUDES, Role

DOCS, DOCUMENT, STUDIO = "/docs", "/openapi.json", "/studio"
_CLIENT_FILES = ("beacon", "bulk", "client", "errors", "events", "index", "requests", "types", "values")
_DOCS_FILES = ("docs.js", "swagger-ui-bundle.js", "swagger-ui.css")
_STUDIO_FILES = (
    "changes.js",
    "combobox.js",
    "conditions.js",
    "editor.js",
    "elements.js",
    "mark.svg",
    "preview.js",
    "rules.js",
    "shop.js",
    "studio.css",
    "studio.js",
    *(f"client/{name}.js" for name in _CLIENT_FILES),
)
_PAGES = {DOCS: _DOCS_FILES, STUDIO: _STUDIO_FILES}
_PAGE_FILES = (f"{page}/{name}" for page, names in _PAGES.items() for name in names)
OPEN = frozenset({"/livez", "/readyz", DOCUMENT, *_PAGES, *_PAGE_FILES})
"""Paths that need no key: the probes, which orchestrators call, and a page's files, for which browsers send no key."""


class Caller(NamedTuple):
    """The caller of a request.

    Attributes:
        key_id: "" in development mode, where every caller has the role admin.
        name: the caller that limits count: the key's id, or the client's address in development mode.
        label: what the operator called the key.
        network: where a caller with a browser's key calls from, which limits count beside the key; "" for others.
    """

    key_id: str
    role: Role
    name: str = ""
    label: str = ""
    network: str = ""


_documented = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="Made by `python -m service keys add`; none in development mode."
)


def _needs(role: Role) -> Any:
    async def check(request: Request, _: Annotated[str | None, Security(_documented)]) -> None:
        check_role(request.state.caller, role)

    return Depends(check)


def may_call(caller: Caller, role: Role | None) -> bool:
    """Whether a caller has `role` or one that includes it; None needs no role."""
    return role is None or role in INCLUDES[caller.role]


def check_role(caller: Caller, role: Role | None) -> None:
    """Raises `AccessError` for a caller whose role does not include `role`."""
    if not may_call(caller, role):
        raise AccessError(
            "key.insufficient",
            f"this call needs a key with the role {role}; the key has the role {caller.role}.",
            fix=f"Make one with `python -m service keys add --role {role}`.",
        )


def beacons_only() -> AccessError:
    """Returns the error for a browser's key with a call that is no beacon."""
    return AccessError(
        "key.insufficient",
        "the key has the role browser, which may send beacons and nothing else.",
        fix="Send this call from the shop's backend, with a key made by `python -m service keys add --role read`.",
    )


BROWSER = _needs("browser")
READ = _needs("read")
WRITE = _needs("write")
ADMIN = _needs("admin")
