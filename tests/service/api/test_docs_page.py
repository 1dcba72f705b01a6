"""/docs in a real browser, on a service with keys: everything from the service, and the key from who types it in."""

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Request, expect

from service.auth.caller import OPEN
from tests.service.api.test_demo_page import chromium
from tests.service.auth.test_doors import Guarded
from tests.service.servers import PATIENCE_S

__all__ = ["chromium"]

PUBLISHED = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}
"""SHA-256 of the files of npm's swagger-ui-dist 5.35.0."""


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    process = Guarded(tiny_release, tmp_path_factory.mktemp("docs"))
    yield process.start()
    process.kill()


def test_files_are_as_published() -> None:
    for name, digest in PUBLISHED.items():
        content = files("service.api.pages").joinpath("docs_files", name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name


def test_page_and_document_need_no_key_and_hold_no_secret(service: Guarded) -> None:
    for path in sorted(OPEN):
        answer = httpx.get(f"{service.url}{path}", timeout=PATIENCE_S)
        assert answer.status_code == 200, path
        assert not any(key in answer.text for key in service.keys.values())
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "http" not in policy
    assert httpx.get(f"{service.url}/docs/", timeout=PATIENCE_S).status_code == 401
    assert httpx.get(f"{service.url}/popular", timeout=PATIENCE_S).status_code == 401


def test_a_call_is_made_from_the_page_with_the_key_typed_in(chromium: Browser, service: Guarded) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    complaints: list[str] = []
    asked: list[Request] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda one: asked.append(one))
    page.goto(f"{service.url}/docs?utm_source=mail")
    page.wait_for_selector("html[data-ready]")
    expect(page.locator(".opblock-summary-path").first).to_be_visible()
    assert complaints == []

    def try_popular() -> str:
        block = page.locator(".opblock", has=page.locator('[data-path="/popular"]'))
        if not block.locator(".opblock-body").count():
            block.locator(".opblock-summary").click()
        if block.locator(".try-out__btn:not(.cancel)").count():
            block.locator(".try-out__btn").click()
        block.locator(".execute").click()
        status = block.locator(".live-responses-table tr.response .response-col_status").first
        expect(status).to_be_visible()
        return status.inner_text().strip()[:3]

    assert try_popular() == "401"
    page.locator(".btn.authorize").first.click()
    page.locator(".auth-container input").fill(service.keys["read"])
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".auth-btn-wrapper .btn-done").click()
    block = page.locator(".opblock", has=page.locator('[data-path="/popular"]'))
    block.locator(".btn-clear").click()
    assert try_popular() == "200"
    assert {urlsplit(one.url).netloc for one in asked if not one.url.startswith("data:")} == {
        urlsplit(service.url).netloc
    }, "nothing comes from elsewhere"
    # The only complaint is the browser's own of the call without a key.
    assert all("401" in text for text in complaints), complaints
    assert page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0
    context.close()
