"""A browser's key writes events of its own session, from pages of the named origins, and does nothing else."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from isrf.contract.ids import session_owner
from service.auth.beacon_access import network_of, presented_keys
from tests.service.api.test_demo_page import chromium
from tests.service.auth.test_doors import Guarded, make_key
from tests.service.servers import ServiceProcess, wait_until

__all__ = ["chromium"]

SHOP = "https://shop.example"
SESSION = "b1d5c8f0-6f3e-4a57-9d5c-2f6f6f0a7c11"


class ShopPage(BaseHTTPRequestHandler):
    """An empty page of a shop, of another origin than the service."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>Shop</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ShopPage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory, shop: str) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("beacons")
    process = Guarded(
        tiny_release, folder, ISRF_BEACON_ORIGINS=f"{SHOP},{shop}", ISRF_CORS_ORIGINS=SHOP, ISRF_BEACON_RATE="1000/day"
    )
    yield process.start()
    process.kill()


@pytest.fixture(scope="module")
def items(service: Guarded) -> list[str]:
    answer = service.call("GET", "/popular?n=6", service.keys["read"])
    return [one["item_id"] for one in answer.json()["items"]]


def send(service: Guarded, body: object, origin: str | None = SHOP, key: str | None = None) -> httpx.Response:
    """As `sendBeacon` does."""
    headers = {"Content-Type": "text/plain;charset=UTF-8"} | ({} if origin is None else {"Origin": origin})
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    address = f"{service.url}/beacon?key={key or service.keys['browser']}"
    return httpx.post(address, content=content, headers=headers, timeout=10)


def view(item_id: str, **more: str) -> dict[str, str]:
    return {"item_id": item_id, "event": "view", **more}


def history(service: Guarded, session_id: str) -> list[str]:
    answer = service.call("GET", f"/users/{session_owner(session_id)}", service.keys["read"])
    found: list[str] = answer.json()["history"]
    return found


def test_a_beacon_moves_the_list_of_its_session(service: Guarded, items: list[str]) -> None:
    session_id = "moves-the-list-of-its-session"
    path, key = f"/recommend/{session_owner(session_id)}", service.keys["read"]
    before = service.call("GET", path, key).json()
    assert before["meta"]["source"] == "popular"
    sent = {"session_id": session_id, "events": [view(items[0]), view("gone"), view(items[1], event_id="e1")]}
    for _ in range(2):
        answer = send(service, sent)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == SHOP
    assert history(service, session_id) == [items[0], items[1], items[0]], "an event_id counts once"
    after = service.call("GET", path, key).json()
    assert after["meta"]["source"] == "sequence"
    assert after["items"] != before["items"]


def test_what_no_page_may_send_is_refused(service: Guarded, items: list[str]) -> None:
    good = {"session_id": SESSION, "events": [view(items[0])]}
    junk: list[object] = [
        b"", b"{", b"\xff", b"[]", b'{"session_id": "a", "session_id": "b"}', {**good, "user_id": "ann"},
        {**good, "session_id": "short"}, {**good, "session_id": "isrf-session:0123456789abcdef"},
        {**good, "session_id": 12345678901234567890}, {**good, "events": []},
        {**good, "events": [view(items[0])] * 101}, {**good, "events": [{"item_id": "", "event": "view"}]},
        {**good, "events": [{**view(items[0]), "user_id": "ann"}]}, {**good, "events": [{"item_id": items[0]}]},
        {**good, "events": [{"item_id": items[0], "event": " "}]},
        {**good, "events": [{**view(items[0]), "timestamp": 1.0}]}, {**good, "events": [view("a\nb")]},
    ]  # fmt: skip
    for body in junk:
        answer = send(service, body)
        assert answer.status_code == 400, body
        assert answer.json()["code"] in {"beacon.invalid", "request.malformed_json"}, body
    assert send(service, b" " * 70_000).status_code == 413
    assert history(service, SESSION) == []


def test_a_page_of_another_origin_sends_nothing(service: Guarded, items: list[str]) -> None:
    good = {"session_id": SESSION, "events": [view(items[0])]}
    for origin in ("https://evil.example", "null", "http://localhost"):
        refused = send(service, good, origin)
        assert (refused.status_code, refused.json()["code"]) == (403, "access.foreign_origin")
        assert "access-control-allow-origin" not in refused.headers
    pixel = f"{service.url}/pixel.gif?key={service.keys['browser']}&session_id={SESSION}&event=view&item_id={items[0]}"
    assert httpx.get(pixel, headers={"Referer": "https://evil.example/page"}).status_code == 403
    assert history(service, SESSION) == []


def test_a_browsers_key_can_neither_read_nor_name_a_user(service: Guarded, items: list[str]) -> None:
    key = service.keys["browser"]
    for method, path in (("GET", "/popular"), ("GET", f"/users/{session_owner(SESSION)}"), ("POST", "/interactions")):
        body: dict[str, Any] = {"json": {"events": []}} if method == "POST" else {}
        assert service.call(method, path, key, **body).json()["code"] == "key.insufficient"
    assert httpx.get(f"{service.url}/popular?key={key}").json()["code"] == "key.missing", "only beacons take it there"
    good = {"session_id": SESSION, "events": [view(items[0])]}
    assert send(service, good, key=service.keys["read"]).json()["code"] == "key.insufficient"
    assert send(service, good, key="wrong").json()["code"] == "key.unknown"


def test_a_page_cannot_take_an_orders_event_id(service: Guarded, items: list[str]) -> None:
    sent = {"session_id": "takes-an-id-of-an-order", "events": [view(items[2], event_id="order-1")]}
    assert send(service, sent).status_code == 204
    order = {"user_id": "ann", "item_id": items[0], "event_id": "order-1"}
    answer = service.call("POST", "/interactions", service.keys["write"], json={"events": [order]})
    assert answer.json()["accepted"] == 1


def test_a_pixel_counts_once_and_not_when_only_its_head_is_asked_for(service: Guarded, items: list[str]) -> None:
    session_id = "pixel-counts-once-0123"
    query = f"key={service.keys['browser']}&session_id={session_id}&event=view&event_id=1&item_id={items[3]}"
    assert httpx.head(f"{service.url}/pixel.gif?{query}").status_code == 200
    assert history(service, session_id) == []
    for _ in range(2):
        answer = httpx.get(f"{service.url}/pixel.gif?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/gif")
        assert answer.content.startswith(b"GIF89a")
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert answer.headers["cache-control"] == "no-store"
    assert history(service, session_id) == [items[3]]
    junk = httpx.get(f"{service.url}/pixel.gif?key={service.keys['browser']}&session_id={session_id}")
    assert (junk.status_code, junk.json()["code"]) == (400, "beacon.invalid")


def test_an_address_may_send_so_often(tiny_release: Path, tmp_path: Path) -> None:
    service = Guarded(tiny_release, tmp_path, ISRF_BEACON_RATE="3/day")
    other = make_key(service.file, "browser", "--name", "another shop")
    third = make_key(service.file, "browser", "--name", "a third shop", "--rate", "1/day")
    service.start()
    try:
        body = {"session_id": SESSION, "events": [view("gone")]}
        answers = [send(service, body, None) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [204] * 3 + [429] * 2
        assert "this address" in answers[-1].json()["detail"]
        assert send(service, body, None, other).status_code == 204
        few = {**body, "events": [view("gone")] * 19}
        assert [send(service, few, None, other).status_code for _ in range(2)] == [204, 429], "events count"
        refused = [service.call("GET", "/popular", third) for _ in range(5)]
        assert {one.json()["code"] for one in refused} == {"key.insufficient"}
        assert send(service, body, None, third).status_code == 204, "what is no beacon uses up no rate"
    finally:
        service.kill()


def test_networks_count_as_a_whole_and_addresses_are_not_kept() -> None:
    assert network_of("2001:db8:1:2::3") == network_of("2001:db8:1:2:ffff::1") != network_of("2001:db8:1:3::3")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert "192" not in network_of("192.0.2.1")


def test_two_keys_in_a_beacon_are_named(service: Guarded) -> None:
    key = service.keys["browser"]
    answer = service.call("POST", f"/beacon?key={key}", key, content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (401, "key.several")


def test_only_a_beacons_query_holds_a_key() -> None:
    assert list(presented_keys(b"/beacon", b"a=1&key=k", ())) == [b"k"]
    assert list(presented_keys(b"/beacon", b"key=k", ((b"x-api-key", b"h"),))) == [b"h", b"k"], "two are none"
    assert list(presented_keys(b"/popular", b"key=k", ())) == []


def test_in_development_no_foreign_page_sends(tiny_release: Path, tmp_path: Path) -> None:
    service = ServiceProcess(tiny_release, tmp_path).start()
    try:
        query = f"session_id={SESSION}&event=view&item_id=gone"
        for headers in ({"Referer": "https://evil.example/"}, {"Sec-Fetch-Site": "cross-site"}):
            assert httpx.get(f"{service.url}/pixel.gif?{query}", headers=headers).status_code == 403
        assert httpx.get(f"{service.url}/pixel.gif?{query}", headers={"Referer": service.url}).status_code == 200
        foreign = httpx.post(f"{service.url}/beacon", content=b"{}", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403
    finally:
        service.kill()


SENDS = """([url, session, items]) => {
  const event = (item_id) => JSON.stringify({session_id: session, events: [{item_id, event: "view"}]});
  const ok = [
    navigator.sendBeacon(url("beacon"), event(items[0])),
    navigator.sendBeacon(url("beacon"), new Blob([event(items[1])], {type: "application/json"})),
  ];
  const query = new URLSearchParams({session_id: session, item_id: items[2], event: "view"});
  new Image().src = url("pixel.gif") + "&" + query;
  return ok;
}"""


def test_a_page_of_the_shop_sends_by_beacon_and_by_pixel(
    service: Guarded, chromium: Browser, shop: str, items: list[str]
) -> None:
    session_id = "from-a-page-in-chromium"
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(shop)
        key = service.keys["browser"]
        script = SENDS.replace("url(", f"((path) => `{service.url}/${{path}}?key={key}`)(")
        script = script.replace("([url, session, items])", "([session, items])")
        assert page.evaluate(script, [session_id, items]) == [True, True]
        wait_until(lambda: set(history(service, session_id)) == set(items[:3]), what="the page's three events")
    answer = service.call("GET", f"/recommend/{session_owner(session_id)}", service.keys["read"]).json()
    assert answer["meta"]["source"] == "sequence"
