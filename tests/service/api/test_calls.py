"""Every path as it stands, every method as it should, and no body that is not taken: of all routes, on the wire."""

import gzip
import json
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.auth.caller import OPEN
from service.auth.route_rules import RouteRules
from service.auth.signatures import SIGNED
from service.settings import Settings
from tests.service.auth.test_doors import Guarded
from tests.service.servers import ServiceProcess

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def guarded(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    process = Guarded(tiny_release, tmp_path_factory.mktemp("guarded"), ISRF_RATE_LIMIT="")
    yield process.start()
    process.kill()


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tiny_release, tmp_path_factory.mktemp("open"), "--demo")
    yield process.start()
    process.kill()


@pytest.fixture(scope="module")
def http(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@cache
def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Every (method, path, operation) of the document, with ids filled in."""
    found = []
    for path, methods in create_app(Settings(demo=True)).openapi()["paths"].items():
        address = path.replace("{user_id}", "ann").replace("{item_id}", "headphone-259").replace("{placement}", "ann")
        found += [(method.upper(), address, operation) for method, operation in methods.items()]
    return found


PAGES = ("/docs", "/openapi.json", "/studio", "/studio/studio.js", "/demo", "/demo/demo.css", "/demo/mark.svg")


def bodies() -> list[tuple[str, str, str]]:
    """Every (method, path, content type) that takes a body."""
    return [
        (method, path, next(iter(operation["requestBody"]["content"])))
        for method, path, operation in operations()
        if "requestBody" in operation
    ]


def test_what_is_known_of_each_route_is_what_the_document_says() -> None:
    app = create_app(Settings(demo=True))
    rules = RouteRules(app)
    for path, operations in app.openapi()["paths"].items():
        known = rules.find(path)
        assert known is not None
        assert {method.lower() for method in known.methods} == set(operations)
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {})
            body = "json" if "application/json" in content else "lines" if content else None
            if "text/plain" in content or path in SIGNED:
                body = "whole"
            assert known.methods[method.upper()].body == body, (method, path)
            assert (known.methods[method.upper()].role is None) == (path in OPEN | SIGNED)


def raw(service: ServiceProcess, head: str, body: bytes = b"") -> tuple[bytes, bytes]:
    """Head and all the rest of an answer, as they come over the wire."""
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        caller.settimeout(60)
        caller.sendall(f"{head}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode() + body)
        answer = b""
        while piece := caller.recv(65536):
            answer += piece
    before, _, after = answer.partition(b"\r\n\r\n")
    return before, after


def test_head_is_get_without_a_body_on_every_path(service: ServiceProcess) -> None:
    gets = [path for method, path, _ in operations() if method == "GET"] + list(PAGES)
    assert {"/livez", "/readyz", "/metrics", "/export/items", "/recommend/ann", "/demo/shoppers"} <= set(gets)
    for path in gets:
        for query in ("", "?n=0"):  # an answer, and (where there are parameters) a refusal
            got, _ = raw(service, f"GET {path}{query} HTTP/1.1")
            head, rest = raw(service, f"HEAD {path}{query} HTTP/1.1")
            assert rest == b"", path
            assert head.split(b"\r\n")[0] == got.split(b"\r\n")[0], path
            if path != "/metrics":  # it has counted the other one

                def kept(lines: bytes) -> set[bytes]:
                    return {
                        line for line in lines.split(b"\r\n") if line.startswith((b"content-type", b"content-length"))
                    }

                assert kept(head) == kept(got), path
    # A known query goes around the framework.
    for _ in range(3):
        assert raw(service, "HEAD /recommend/ann?n=3 HTTP/1.1")[0].startswith(b"HTTP/1.1 200")


def test_head_is_nothing_shown(http: httpx.Client) -> None:
    def shown() -> int:
        return sum(one["answers"] for one in http.get("/admin/stats").json()["releases"])

    before = shown()
    for path in ("/recommend/ann", "/popular", "/similar/headphone-259"):
        assert http.head(path).status_code == 200
    assert shown() == before
    http.get("/popular")
    assert shown() == before + 1


def test_head_needs_the_key_that_get_needs(guarded: Guarded) -> None:
    for path in ("/popular", "/metrics", "/recommend/ann", "/admin/stats", "/export/users"):
        for key in (None, guarded.keys["read"], guarded.keys["admin"]):
            assert guarded.call("HEAD", path, key).status_code == guarded.call("GET", path, key).status_code
    for path in ("/livez", "/readyz"):
        assert guarded.call("HEAD", path, None).status_code == 200


def test_every_path_says_what_it_takes(http: httpx.Client) -> None:
    taken: dict[str, set[str]] = {path: {"GET"} for path in PAGES}
    for method, path, _ in operations():
        taken.setdefault(path, set()).add(method)
    for path, methods in taken.items():
        allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        asked = http.options(path)
        assert (asked.status_code, asked.content) == (204, b"")
        assert set(asked.headers["allow"].split(", ")) == allowed, path
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - allowed:
            refused = http.request(method, path, headers=JSON)
            assert refused.status_code == 405, (method, path)
            assert set(refused.headers["allow"].split(", ")) == allowed, path
            if method != "HEAD":
                assert refused.json()["code"] == "http.method_not_allowed"


def test_no_path_redirects(http: httpx.Client, guarded: Guarded) -> None:
    paths = {path for _, path, _ in operations() if "ann" not in path and "headphone" not in path} | set(PAGES)
    for path in paths:
        if path in ("/recommend", "/placements") or path.startswith("/placements/"):
            continue  # what follows its slash is an id, and a placement's name the rest of its path
        for near in (f"{path}/", f"{path}//", f"/{path}", f"{path}%0A", f"{path}%0D%0A", path.upper()):
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
                answer = http.request(method, str(http.base_url).rstrip("/") + near, headers=JSON)
                assert (answer.status_code, answer.json()["code"]) == (404, "http.not_found"), (method, near)
                assert answer.json()["fix"] == f"Call {path}.", near
    headers = {"X-API-Key": guarded.keys["read"], "Host": "elsewhere.example"}
    answer = httpx.get(f"{guarded.url}/popular/", headers=headers)
    assert answer.status_code in {404, 403, 400}
    assert "location" not in answer.headers
    assert "elsewhere" not in answer.text


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("/popular/", "Call /popular."),
        ("/similar", "Call /similar/ followed by an id."),
        ("/items", "Call /items/ followed by an id."),
        ("/interaction", "Call /interactions, if you mean that."),
        ("/v1/completely/else", "GET /openapi.json lists all calls."),
    ],
)
def test_a_path_that_there_is_not_is_told_the_right_one(http: httpx.Client, path: str, fix: str) -> None:
    assert http.get(path).json()["fix"] == fix


@pytest.mark.parametrize("tail", ["%0A", "%0D", "%0D%0A", "%0Ab", "%00", "%1F", "%7F", "%C2%85", "%0A%0A"])
def test_a_control_character_of_a_path_is_never_dropped(http: httpx.Client, tail: str) -> None:
    item = {"title": "x", "price": 1.0}
    for kind, path in (("user", "/recommend/x"), ("user", "/users/x"), ("item", "/items/x"), ("item", "/similar/x")):
        for method in ("GET", "DELETE", "PUT"):
            answer = http.request(method, path + tail, json=item if method == "PUT" else None)
            if answer.status_code == 405:
                continue
            assert (answer.status_code, answer.json()["code"]) == (422, f"request.invalid_{kind}_id"), (method, path)
            assert "control character" in answer.json()["detail"]
    assert http.get("/items/x").status_code == 404, "nothing was put under another id"


def test_json_is_taken_as_json_alone(http: httpx.Client) -> None:
    assert len(bodies()) >= 8
    body = json.dumps({"history": []}).encode()
    for kind in ("application/json", "application/json;charset=utf-8", "Application/JSON", "application/vnd.shop+json"):
        assert http.post("/recommend", content=body, headers={"Content-Type": kind}).status_code == 200, kind
    for method, path, taken in bodies():
        if taken != "application/json" or path in SIGNED:
            continue
        for sent in (
            "text/plain",
            "text/plain; application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/json",
            "application/jsonl",
            "application/json, text/plain",
            "",
            None,
        ):
            headers = {} if sent is None else {"Content-Type": sent}
            answer = http.request(method, path, content=body, headers=headers)
            told = answer.json()
            assert (answer.status_code, told["code"]) == (415, "request.unsupported_media_type"), (path, sent)
            assert told["fix"] == "Send the header Content-Type: application/json."
            assert (sent or "without a Content-Type") in told["detail"]
            assert answer.headers["accept"] == "application/json"


def test_lines_are_taken_as_curl_sends_them(http: httpx.Client) -> None:
    line = json.dumps({"item_id": "put-by-curl", "title": "Wireless headphones"}).encode() + b"\n"
    for path in ("/import/items", "/import/events", "/import/users"):
        for sent in ("application/x-www-form-urlencoded", "application/x-ndjson", "application/jsonl", None):
            headers = {} if sent is None else {"Content-Type": sent}
            assert http.post(path, content=line, headers=headers).status_code == 200, (path, sent)
        # What any page of the web may send here unasked, where no key is needed.
        for sent in ("multipart/form-data; boundary=x", "text/plain"):
            answer = http.post(path, content=line, headers={"Content-Type": sent})
            assert (answer.status_code, answer.json()["code"]) == (415, "request.unsupported_media_type")
            assert answer.json()["fix"] == "Send the header Content-Type: application/x-ndjson."


def test_plain_text_is_taken_as_lines_where_a_key_is_needed(guarded: Guarded) -> None:
    headers = {"Content-Type": "text/plain"}
    answer = guarded.call("POST", "/import/items", guarded.keys["write"], content=b"{}\n", headers=headers)
    assert (answer.status_code, answer.json()["reasons"]) == (200, {"invalid_item_id": 1})


def test_every_body_may_be_gzip(http: httpx.Client) -> None:
    body = gzip.compress(b"{}\n")
    for method, path, taken in bodies():
        if path in SIGNED:
            continue
        for encoding in ("gzip", "GZIP", "x-gzip"):
            plain = http.request(method, path, content=b"{}\n", headers={"Content-Type": taken})
            headers = {"Content-Type": taken, "Content-Encoding": encoding}
            packed = http.request(method, path, content=body, headers=headers)
            assert packed.status_code == plain.status_code, (path, packed.text)
            found, told = ({**one.json(), "request_id": "", "meta": ""} for one in (packed, plain))
            assert found == told, path
        cut = http.request(method, path, content=body[:-4], headers={"Content-Type": taken, "Content-Encoding": "gzip"})
        assert (cut.status_code, cut.json()["code"]) == (400, "request.malformed_gzip"), path
        assert "ends early" in cut.json()["detail"]


def test_a_bomb_is_too_large(http: httpx.Client) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    for method, path, taken in bodies():
        if path in SIGNED:
            continue
        headers = {"Content-Type": taken, "Content-Encoding": "gzip"}
        answer = http.request(method, path, content=bomb, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large"), path


def test_a_compressed_import_says_which_lines_it_took(http: httpx.Client) -> None:
    lines = b"".join(b'{"item_id": "packed-%d", "title": "Cup"}\n' % number for number in range(3000))
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    answer = http.post("/import/items", content=iter([gzip.compress(lines)[:-8]]), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed_gzip")
    assert answer.json()["detail"].endswith("; lines 1 to 3000 were imported.")
    assert "without Content-Encoding. Lines that were imported may be sent again." in answer.json()["fix"]
    assert http.get("/items/packed-2999").status_code == 200


@pytest.mark.parametrize("path", ["/import/items", "/import/events", "/import/users", "/recommend"])
def test_a_compressed_body_that_does_not_say_so_is_told_the_header(http: httpx.Client, path: str) -> None:
    answer = http.post(path, content=gzip.compress(b"{}\n"), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed_json")
    assert "Content-Encoding" in answer.json()["fix"]


def test_no_other_encoding_is_taken(http: httpx.Client) -> None:
    body = gzip.compress(b'{"history": []}')
    for method, path, taken in bodies():
        if path in SIGNED:
            continue
        for encoding in ("br", "deflate, gzip", "gzip, gzip", "x-unheard-of"):
            headers = {"Content-Type": taken, "Content-Encoding": encoding}
            answer = http.request(method, path, content=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (415, "request.unsupported_encoding"), path
            assert "gzip" in answer.json()["fix"]
            assert encoding in answer.json()["detail"]
            assert answer.headers["accept-encoding"] == "gzip, identity"
    headers = {**JSON, "Content-Encoding": "identity"}
    assert http.post("/recommend", content=b'{"history": []}', headers=headers).status_code == 200


def test_a_compressed_transfer_is_no_plain_one(service: ServiceProcess) -> None:
    body = gzip.compress(b'{"history": []}')
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for path in ("/recommend", "/import/items"):
        lines = "Content-Type: application/json\r\nTransfer-Encoding: gzip, chunked"
        head, rest = raw(service, f"POST {path} HTTP/1.1\r\n{lines}", chunked)
        assert head.startswith(b"HTTP/1.1 415 "), path
        assert json.loads(rest)["code"] == "request.unsupported_encoding"


def test_who_may_not_call_is_told_so_whatever_they_send(guarded: Guarded) -> None:
    for method, path, _ in bodies():
        if path in {"/recommend", "/rank", *SIGNED} or path.startswith("/demo"):
            continue
        for headers in ({"Content-Type": "text/plain"}, {**JSON, "Content-Encoding": "gzip"}, {}):
            answer = guarded.call(method, path, guarded.keys["read"], content=b"{}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "key.insufficient"), (method, path)


def test_who_may_not_come_in_is_not_told_what_there_is(guarded: Guarded) -> None:
    for path in ("/popular", "/popular/", "/nothing", "/items/x%0A"):
        for method in ("GET", "OPTIONS", "PATCH", "HEAD"):
            assert guarded.call(method, path, None).status_code == 401, (method, path)


def test_paths_are_known_without_a_page(tiny_release: Path, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(releases_dir=tiny_release, state_dir=tmp_path))) as http:
        assert http.get("/demo").status_code == 404
        assert http.get("/demo/shoppers").status_code == 404
