"""What a running service says of itself."""

from collections.abc import Mapping
from typing import Any, Protocol

import httpx

from tests.service.servers import PATIENCE_S, ServiceProcess


class Answered(Protocol):
    """An answer, whichever HTTP client gave it: the framework's test client has one of its own."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def text(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    def json(self, **kwargs: Any) -> Any: ...


def reload(service: ServiceProcess) -> httpx.Response:
    return httpx.post(f"{service.url}/admin/reload", timeout=PATIENCE_S)


def served(service: ServiceProcess) -> str:
    release_id: str = httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).json()["release_id"]
    return release_id


def counted(service: ServiceProcess, line: str) -> float:
    text = httpx.get(f"{service.url}/metrics", timeout=PATIENCE_S).text
    return sum(float(one.rsplit(" ", 1)[1]) for one in text.splitlines() if one.startswith(line))
