"""Development mode has no keys: only this machine's own names are answered, and no foreign page changes anything."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.auth.test_doors import Guarded
from tests.service.hostile import Caller, head
from tests.service.servers import ServiceProcess

EVENT = {"events": [{"user_id": "page", "item_id": "none", "event": "view"}]}
FOREIGN = ["https://evil.example", "http://evil.example:8000", "null", "http://localhost.evil.example", "file://", ""]


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("development")
    process = ServiceProcess(tiny_release, folder, "--demo", ISRF_CORS_ORIGINS="https://shop.example")
    yield process.start()
    process.kill()


@pytest.mark.parametrize("path", ["/livez", "/popular", "/demo", "/nothing", "/openapi.json"])
def test_only_this_machines_own_names_are_answered(service: ServiceProcess, path: str) -> None:
    for host in ("evil.example", "localhost.evil.example", "evil.example:8000", "10.0.0.1", "127.0.0.1.nip.io", ""):
        answer = httpx.get(service.url + path, headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "access.foreign_host"), host
        assert answer.json()["fix"]
    for host in ("127.0.0.1", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8000", f"127.0.0.1:{service.port}"):
        assert httpx.get(service.url + path, headers={"Host": host}).status_code in {200, 404}, host


@pytest.mark.slow
def test_a_foreign_page_changes_nothing(service: ServiceProcess) -> None:
    for origin in FOREIGN:
        for method, path, body in (
            ("POST", "/interactions", EVENT),
            ("POST", "/recommend", {"history": []}),
            ("PUT", "/items/x", {"title": "x"}),
            ("DELETE", "/users/somebody", None),
            ("POST", "/admin/reload", None),
            ("POST", "/import/events", EVENT),
        ):
            for kind in ("application/json", "text/plain"):
                headers = {"Origin": origin, "Content-Type": kind}
                answer = httpx.request(method, service.url + path, headers=headers, json=body)
                assert (answer.status_code, answer.json()["code"]) == (403, "access.foreign_origin"), (origin, path)
    with Caller(service) as caller:
        asked = head("POST", "/interactions", None, "Origin: https://evil.example", "Content-Length: 10000")
        assert caller.send(asked).answer().status == 403, "without a byte of its body"


def test_pages_of_this_machine_and_named_ones_may_write(service: ServiceProcess) -> None:
    for origin in (service.url, "http://localhost:3000", "http://[::1]", "https://shop.example"):
        answer = httpx.post(f"{service.url}/interactions", headers={"Origin": origin}, json=EVENT)
        assert answer.status_code == 200, origin
    assert httpx.post(f"{service.url}/interactions", json=EVENT).status_code == 200, "no page, no origin"


def test_a_foreign_page_may_ask_and_cannot_read(service: ServiceProcess) -> None:
    answer = httpx.get(f"{service.url}/popular", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.slow
def test_with_keys_every_name_is_answered(tiny_release: Path, tmp_path: Path) -> None:
    service = Guarded(tiny_release, tmp_path)
    try:
        service.start()
        for host in ("shop.example", "10.0.0.1:80"):
            assert service.call("GET", "/popular", service.keys["read"], headers={"Host": host}).status_code == 200
        headers = {"Origin": "https://elsewhere.example"}
        assert service.call("POST", "/interactions", service.keys["write"], json=EVENT, headers=headers).is_success
    finally:
        service.kill()
