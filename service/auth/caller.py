"""Who the caller of a request is, and what a route asks of them.

Every route names the role it needs (`READ`, `WRITE`, `ADMIN`) or is one of `OPEN`; a test goes through all of them.
"""

from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from isrf.contract.errors import AccessError
from service.auth.keys import RANK, Role

DOCS, DOCUMENT = "/docs", "/openapi.json"
_DOCS_FILES = ("docs.js", "swagger-ui-bundle.js", "swagger-ui.css")
OPEN = frozenset({"/livez", "/readyz", DOCUMENT, DOCS, *(f"{DOCS}/{name}" for name in _DOCS_FILES)})
"""Paths that need no key: whoever restarts or routes asks the probes, and a browser cannot send one with an address."""


class Caller(NamedTuple):
    """`key_id` is "" in development mode, where everybody may do everything.

    Attributes:
        name: by whom places are counted: the key's id, in development mode the client's address.
    """

    key_id: str
    role: Role
    name: str = ""


_documented = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="Made by `python -m service keys add`; none in development mode."
)


def _needs(role: Role) -> Any:
    async def check(request: Request, _: Annotated[str | None, Security(_documented)]) -> None:
        check_role(request.state.caller, role)

    return Depends(check)


def may_call(caller: Caller, role: Role | None) -> bool:
    """Whether a caller may do what needs `role`, None for nothing."""
    return role is None or RANK[caller.role] >= RANK[role]


def check_role(caller: Caller, role: Role | None) -> None:
    """Raises `AccessError` for a caller who may not do what needs `role`."""
    if not may_call(caller, role):
        raise AccessError(
            "key.insufficient",
            f"this needs a key of role {role}, and yours is of role {caller.role}.",
            fix=f"Make one with `python -m service keys add --role {role}`.",
        )


READ = _needs("read")
WRITE = _needs("write")
ADMIN = _needs("admin")
