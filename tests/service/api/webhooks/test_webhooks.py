"""Deliveries of shop systems at a real service: signed, counted once, and 200 unless they must be sent again."""

import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from isrf.contract.ids import session_owner
from service.app import create_app
from service.inference.admission import MAX_DELIVERIES, MAX_DELIVERIES_OF_ONE
from service.settings import Settings
from tests.service.api.webhooks.test_orders import REFUND, SHOPIFY_ORDER, WOO_ORDER
from tests.service.auth.test_doors import Guarded
from tests.service.hostile import Caller, head
from tests.service.servers import wait_until

SECRET = "hush-this-is-the-shops-secret"
MAIL = SHOPIFY_ORDER["email"]


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("webhooks")
    (folder / "secret").write_text(f"{SECRET}\n")
    process = Guarded(
        tiny_release,
        folder,
        ISRF_SHOPIFY_WEBHOOK_SECRET_FILE=str(folder / "secret"),
        ISRF_WOOCOMMERCE_WEBHOOK_SECRET=SECRET,
        ISRF_WEBHOOK_ITEM_ID="sku",
    )
    yield process.start()
    process.kill()


@pytest.fixture(scope="module")
def item(service: Guarded) -> str:
    found: str = service.call("GET", "/popular?n=1", service.keys["read"]).json()["items"][0]["item_id"]
    return found


def signature_of(content: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), content, hashlib.sha256)).decode()


def deliver(service: Guarded, system: str, topic: str, body: object, *, secret: str = SECRET) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    signature = signature_of(content, secret)
    names = {"shopify": ("X-Shopify-Topic", "X-Shopify-Hmac-Sha256")}
    topic_header, signature_header = names.get(system, ("X-WC-Webhook-Topic", "X-WC-Webhook-Signature"))
    headers = {"Content-Type": "application/json", topic_header: topic, signature_header: signature}
    return httpx.post(f"{service.url}/webhooks/{system}", content=content, headers=headers, timeout=10)


def order_of(item: str, **more: Any) -> dict[str, Any]:
    line = {**SHOPIFY_ORDER["line_items"][0], "sku": item}
    return {**SHOPIFY_ORDER, "line_items": [line, {**line, "id": 3, "sku": "not-in-the-catalogue"}], **more}


def refund_of(order: dict[str, Any]) -> dict[str, Any]:
    line = order["line_items"][0]
    lines = [{"id": 1, "line_item_id": line["id"], "quantity": line["quantity"], "line_item": line}]
    return {**REFUND, "order_id": order["id"], "refund_line_items": lines}


def counts(answer: httpx.Response) -> tuple[int, int, int, dict[str, int]]:
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["accepted"], found["duplicates"], found["refused"], found["ignored"]


def user(service: Guarded, user_id: str) -> Any:
    return service.call("GET", f"/users/{user_id}", service.keys["read"]).json()


def test_an_order_counts_once_and_its_refund_takes_it_back(service: Guarded, item: str) -> None:
    order = order_of(item)
    buyer = str(order["customer"]["id"])
    assert counts(deliver(service, "shopify", "orders/create", order)) == (1, 0, 1, {})
    assert counts(deliver(service, "shopify", "orders/paid", order)) == (0, 1, 1, {}), "sent again, or paid later"
    assert user(service, buyer)["excluded"] == [item]
    refund = refund_of(order)
    assert counts(deliver(service, "shopify", "refunds/create", refund)) == (0, 0, 0, {"unknown_order": 1})
    updated = {**order, "refunds": [refund]}
    assert counts(deliver(service, "shopify", "orders/updated", updated)) == (1, 0, 0, {})
    assert user(service, buyer)["history"] == []


def test_a_guests_refund_is_found_by_its_order(service: Guarded, item: str) -> None:
    order = order_of(item, id=77, customer=None)
    assert counts(deliver(service, "shopify", "orders/create", order))[0] == 1
    owner = session_owner("shopify:order:77")
    assert user(service, owner)["history"] == [item]
    assert counts(deliver(service, "shopify", "refunds/create", refund_of(order))) == (1, 0, 0, {})
    assert user(service, owner)["history"] == []


def test_woocommerce_delivers_and_asks_first(service: Guarded, item: str) -> None:
    assert httpx.post(f"{service.url}/webhooks/woocommerce", data={"webhook_id": "5"}).status_code == 200
    order = {**WOO_ORDER, "line_items": [{**WOO_ORDER["line_items"][0], "sku": item}]}
    assert counts(deliver(service, "woocommerce", "order.created", order)) == (1, 0, 0, {})
    assert counts(deliver(service, "woocommerce", "order.updated", order)) == (0, 1, 0, {})
    assert user(service, "26")["excluded"] == [item]


def test_only_a_signed_body_is_read(service: Guarded, item: str) -> None:
    order = order_of(item, id=78)
    for system, topic in (("shopify", "orders/create"), ("woocommerce", "order.created")):
        refused = deliver(service, system, topic, order, secret="another secret")
        assert (refused.status_code, refused.json()["code"]) == (401, "webhook.signature")
    good = signature_of(b"{}")
    headers = [("X-Shopify-Hmac-Sha256", good)] * 2
    for sent in ([], headers, [("X-Shopify-Hmac-Sha256", "")]):
        assert httpx.post(f"{service.url}/webhooks/shopify", content=b"{}", headers=sent).status_code == 401
    keyed = service.call("POST", "/webhooks/shopify", service.keys["admin"], json=order)
    assert keyed.status_code == 401, "a key is no signature"


def test_unfinished_deliveries_have_places_of_their_own(service: Guarded) -> None:
    unfinished = head("POST", "/webhooks/shopify", None, "Content-Length: 1000") + b"{"
    with contextlib.ExitStack() as held:
        for number in range(MAX_DELIVERIES // MAX_DELIVERIES_OF_ONE):
            for _ in range(MAX_DELIVERIES_OF_ONE):
                held.enter_context(Caller(service, address=f"127.0.0.{2 + number}")).send(unfinished)
        one_more = held.enter_context(Caller(service, address="127.0.0.2"))
        assert one_more.send(unfinished).answer().status == 503
        from_elsewhere = held.enter_context(Caller(service, address="127.0.0.9"))
        assert from_elsewhere.send(unfinished).answer().status == 503
        with Caller(service) as known:
            known.send(head("POST", "/interactions", service.keys["write"], "Content-Length: 14"), b'{"events"')
            time.sleep(0.05)
            assert known.send(b": []}").answer().status != 503
        whole = head("POST", "/webhooks/shopify", None, "Content-Length: 2") + b"{}"
        with Caller(service) as at_once:
            assert at_once.send(whole).answer().problem["code"] == "webhook.signature", "these wait for no body"


def test_a_signed_body_comes_as_it_was_signed(service: Guarded) -> None:
    headers = {"Content-Encoding": "gzip", "X-Shopify-Hmac-Sha256": signature_of(b"{}")}
    answer = httpx.post(f"{service.url}/webhooks/shopify", content=gzip.compress(b"{}"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "request.unsupported_encoding")


def test_an_address_with_wrong_signatures_is_refused_unread(tiny_release: Path, tmp_path: Path) -> None:
    settings = Settings(
        releases_dir=tiny_release, state_dir=tmp_path, beacon_rate="3/day", shopify_webhook_secret=SecretStr(SECRET)
    )
    with TestClient(create_app(settings)) as http:
        good = {"X-Shopify-Hmac-Sha256": signature_of(b"{}")}
        for _ in range(5):
            assert http.post("/webhooks/shopify", content=b"{}", headers=good).status_code == 200, "these count nothing"
        wrong = [http.post("/webhooks/shopify", content=b"{}").status_code for _ in range(5)]
        assert wrong == [401] * 3 + [429] * 2
        unread = http.post("/webhooks/shopify", content=b"{}", headers=good)
        assert (unread.status_code, unread.json()["code"]) == (429, "rate.limited")


def test_what_means_nothing_here_switches_no_webhook_off(service: Guarded) -> None:
    assert counts(deliver(service, "shopify", "products/update", {"id": 1})) == (0, 0, 0, {"topic": 1})
    for junk in (b"{", b"[]", b"[" * 100, b"\xff", {"id": "x"}, {**SHOPIFY_ORDER, "created_at": MAIL}):
        assert counts(deliver(service, "shopify", "orders/paid", junk)) == (0, 0, 0, {"unreadable": 1})
    metrics = service.call("GET", "/metrics", service.keys["admin"]).text
    assert 'isrf_webhooks_total{outcome="unreadable",system="shopify"} 6.0' in metrics


def test_nobodys_mail_money_or_secret_is_logged_or_stored(service: Guarded, item: str) -> None:
    assert counts(deliver(service, "shopify", "orders/paid", order_of(item, id=79)))[0] == 1
    deliver(service, "shopify", "orders/paid", order_of(item, id=80, created_at=MAIL))
    wait_until(lambda: "webhook_unreadable" in service.log and "/webhooks/shopify" in service.log, what="the log")
    stored = b"".join(path.read_bytes() for path in (service.folder / "state").rglob("*") if path.is_file())
    for private in (MAIL, SHOPIFY_ORDER["total_price"], "123 Billing Street", SECRET):
        assert private not in service.log
        assert private.encode() not in stored
