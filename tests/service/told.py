"""What a running service says of itself."""

import httpx

from tests.service.servers import PATIENCE_S, ServiceProcess


def reload(service: ServiceProcess) -> httpx.Response:
    return httpx.post(f"{service.url}/admin/reload", timeout=PATIENCE_S)


def served(service: ServiceProcess) -> str:
    release_id: str = httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).json()["release_id"]
    return release_id


def counted(service: ServiceProcess, line: str) -> float:
    text = httpx.get(f"{service.url}/metrics", timeout=PATIENCE_S).text
    return sum(float(one.rsplit(" ", 1)[1]) for one in text.splitlines() if one.startswith(line))
