"""Who may come in, how often and with how much: a real process with real keys."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from fastapi.routing import APIRoute

from service.app import create_app
from service.auth.caller import ADMIN, BROWSER, OPEN, READ, WRITE
from service.auth.command import main as keys_command
from service.auth.keys import INCLUDES
from service.auth.signatures import SIGNED
from service.settings import Settings
from tests.service.servers import RedisServer, ServiceProcess, wait_until

ROLES = tuple(INCLUDES)
SECRET = "a-password-that-nobody-may-see"


def make_key(file: Path, role: str, *options: str) -> str:
    """A key made as an operator makes one."""
    shown_at = file.with_name(f"{role}.key")
    assert keys_command(["add", "--file", str(file), "--role", role, "--to", str(shown_at), *options]) == 0
    return shown_at.read_text().strip()


class Guarded(ServiceProcess):
    """A service with keys."""

    def __init__(self, releases: Path, folder: Path, *options: str, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "keys.json"
        self.keys: dict[str, str] = {role: make_key(self.file, role) for role in ROLES}
        super().__init__(releases, folder, "--api-keys-file", str(self.file), *options, **environment)

    def call(self, method: str, path: str, key: str | bytes | None, **more: Any) -> httpx.Response:
        headers: dict[str, Any] = {} if key is None else {"X-API-Key": key}
        return httpx.request(method, self.url + path, headers=headers | more.pop("headers", {}), timeout=10, **more)


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    process = Guarded(
        tiny_release,
        tmp_path_factory.mktemp("guarded"),
        ISRF_ERASURE_KEY=SECRET,
        ISRF_CORS_ORIGINS="https://shop.example",
        ISRF_RATE_LIMIT="100000/minute",
    )
    yield process.start()
    process.kill()


def flat(routes: Iterable[Any]) -> Iterator[Any]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from flat(included.routes)


def routes() -> list[tuple[str, str, str]]:
    """Every method and path of the app, with the least role that may call it; "" for none."""
    found = []
    for route in flat(create_app(Settings()).routes):
        path = getattr(route, "path", "")
        if not isinstance(route, APIRoute):
            found.append(("GET", path, "read"))
            continue
        needed = {id(one.dependency) for one in route.dependencies}
        names = [
            name for name, one in zip(ROLES, (BROWSER, READ, WRITE, ADMIN), strict=True) if id(one.dependency) in needed
        ]
        assert len(names) == (0 if path in OPEN | SIGNED else 1), f"{path} must say who may call it"
        found += [(method, path, "".join(names)) for method in route.methods or ()]
    return found


def test_every_endpoint_asks_for_its_role_and_no_more(service: Guarded) -> None:
    everything = routes()
    assert ("POST", "/interactions", "write") in everything
    assert ("GET", "/metrics", "admin") in everything
    assert ("POST", "/beacon", "browser") in everything
    assert ("GET", "/openapi.json", "") in everything
    for method, path, needed in everything:
        address = path.replace("{user_id:path}", "somebody").replace("{item_id:path}", "something")
        if path in SIGNED:
            assert service.call(method, address, service.keys["admin"]).json()["code"] == "webhook.no_secret"
            continue
        if needed == "":
            assert service.call(method, address, None).status_code == 200
            continue
        missing = service.call(method, address, None)
        assert (missing.status_code, missing.json()["code"]) == (401, "key.missing"), (method, path)
        assert missing.headers["www-authenticate"].startswith("ApiKey")
        for wrong in ("wrong", service.keys["admin"][:-1], service.keys["admin"] + "x", "ü" * 40, "x" * 10_000):
            unknown = service.call(method, address, wrong.encode())
            assert (unknown.status_code, unknown.json()["code"]) == (401, "key.unknown"), (method, path)
        for role in ROLES:
            answer = service.call(method, address, service.keys[role])
            if needed not in INCLUDES[role]:
                assert (answer.status_code, answer.json()["code"]) == (403, "key.insufficient"), (method, path, role)
            else:
                assert answer.status_code in {200, 204, 400, 404, 415, 422}, (method, path, role, answer.text)


def test_two_keys_in_one_request_are_none(service: Guarded) -> None:
    for second in ("wrong", service.keys["admin"]):
        headers = [("X-API-Key", service.keys["admin"]), ("X-API-Key", second)]
        assert httpx.get(f"{service.url}/popular", headers=headers).status_code == 401


def test_a_webhook_without_its_secret_reads_no_body(service: Guarded) -> None:
    for path in SIGNED:
        with socket.create_connection(("127.0.0.1", service.port)) as caller:
            caller.settimeout(10)
            caller.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".encode())
            assert b"webhook.no_secret" in caller.recv(65536)


def test_without_a_key_no_body_is_read(service: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        caller.settimeout(10)
        caller.sendall(b"POST /interactions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        answer = caller.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer.lower()


def test_keys_come_and_go_while_it_serves(service: Guarded) -> None:
    new = make_key(service.file, "read", "--name", "for a moment")
    wait_until(lambda: service.call("GET", "/popular", new).status_code == 200, what="the new key")
    assert keys_command(["drop", "--file", str(service.file), new.split("_")[1]]) == 0
    wait_until(lambda: service.call("GET", "/popular", new).status_code == 401, what="its end")
    assert service.call("GET", "/popular", service.keys["read"]).status_code == 200


def looked_again(service: Guarded, times_before: int) -> bool:
    """At the file of keys, and the old ones hold."""
    allowed = service.call("GET", "/popular", service.keys["read"]).status_code == 200
    return allowed and service.log.count("keys_unchanged") > times_before


@pytest.mark.slow
def test_a_broken_or_missing_file_leaves_the_keys_as_they_were(service: Guarded) -> None:
    good = service.file.read_bytes()
    try:
        broken = (b"", b"{", b'{"keys": []}', b"[" * 100_000, good.replace(b'"admin"', b'"root"'))
        for bad in (*broken, None, "a pipe that nobody writes to"):
            service.file.unlink(missing_ok=True)
            if isinstance(bad, str):
                os.mkfifo(service.file)
            elif bad is not None:
                service.file.write_bytes(bad)
            seen = service.log.count("keys_unchanged")
            wait_until(partial(looked_again, service, seen), what="the look at the file")
            assert service.call("GET", "/popular", "wrong").status_code == 401
    finally:
        service.file.unlink(missing_ok=True)
        service.file.write_bytes(good)
        service.file.chmod(0o600)


def test_neither_file_nor_list_holds_a_key(service: Guarded, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys_command(["list", "--file", str(service.file)]) == 0
    shown = service.file.read_text() + capsys.readouterr().out
    for key in service.keys.values():
        _, key_id, secret = key.split("_", 2)
        assert key_id in shown
        assert secret not in shown
    assert service.file.stat().st_mode & 0o077 == 0


def test_the_log_says_who_changed_a_placement(service: Guarded) -> None:
    admin, body = service.keys["admin"], {"kind": "popular"}
    assert service.call("PUT", "/placements/who", service.keys["write"], json=body).status_code == 403
    assert service.call("PUT", "/placements/who", admin, json=body).status_code == 200
    assert service.call("GET", "/placements/who/items", service.keys["read"]).status_code == 200
    assert service.call("DELETE", "/placements/who", admin).status_code == 204
    wait_until(lambda: service.log.count("placement_changed") == 2, what="the log")
    lines = [json.loads(line) for line in service.log.splitlines() if "placement_changed" in line]
    key_id = admin.split("_")[1]
    assert [(line["action"], line["placement"], line["key_id"]) for line in lines] == [
        ("put", "who", key_id),
        ("delete", "who", key_id),
    ]
    assert admin not in service.log


def test_no_secret_reaches_the_log(service: Guarded) -> None:
    secrets = [*service.keys.values(), SECRET]
    key = service.keys["admin"]
    for path, sent in (
        (f"/recommend/{key}", key),
        (f"/popular?category={key}&n={key}", key),
        (f"/{key}", key),
        ("/popular", key + "x"),
    ):
        service.call("GET", path, sent)
    service.call("GET", "/popular", key, headers={"X-Request-ID": key + "!", "Authorization": key, "Cookie": key})
    service.call("POST", "/interactions", key, content=key.encode(), headers={"Content-Type": "application/json"})
    service.call("POST", "/interactions", key, json={"events": [{"user_id": key, "item_id": SECRET, key: SECRET}]})
    service.call("POST", "/recommend", key, json={"history": [key], key: key})
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        caller.sendall(f"GET /{key}\r\nX-API-Key {key}\r\n\r\n".encode())
        caller.recv(1000)
    wait_until(lambda: service.log.count('"status": 422') > 1, what="the log")
    for secret in secrets:
        assert secret not in service.log
        assert secret.split("_", 2)[-1] not in service.log


def test_answers_carry_what_browsers_need(service: Guarded) -> None:
    for path, key in (("/popular", service.keys["read"]), ("/popular", None), ("/livez", None), ("/nothing", "x")):
        headers = service.call("GET", path, key).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers
    for path in ("/docs", "/docs/docs.js"):
        policy = service.call("GET", path, None).headers["content-security-policy"]
        assert "script-src 'self'; style-src 'self';" in policy


def test_only_named_origins_may_read_answers(service: Guarded, tiny_release: Path, tmp_path: Path) -> None:
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "X-API-Key"}
    for origin, allowed in (("https://shop.example", "https://shop.example"), ("https://evil.example", None)):
        preflight = service.call("OPTIONS", "/popular", None, headers={"Origin": origin, **asked})
        assert preflight.headers.get("access-control-allow-origin") == allowed
        answer = service.call("GET", "/popular", service.keys["read"], headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert "access-control-allow-credentials" not in answer.headers
        refused = service.call("GET", "/popular", None, headers={"Origin": origin})
        assert refused.headers.get("access-control-allow-origin") == allowed


@pytest.fixture(params=["embedded", *(pytest.param(kind, marks=pytest.mark.redis) for kind in ("redis", "cluster"))])
def counted(request: pytest.FixtureRequest, tiny_release: Path, tmp_path: Path) -> Iterator[list[Guarded]]:
    """One service, or two replicas over one Redis, and a key that may call 20 times a day (a minute may end midway)."""
    environment = {}
    if request.param != "embedded":
        server = request.getfixturevalue("redis_server" if request.param == "redis" else "redis_cluster")
        with server.client() as client:
            client.flushall()
        environment["REDIS_URL"] = server.url
        if request.param == "cluster":
            environment["ISRF_REDIS_CLUSTER"] = "1"
    services = [
        Guarded(tiny_release, tmp_path / str(k), **environment) for k in range(1 if request.param == "embedded" else 2)
    ]
    slow = make_key(services[0].file, "read", "--rate", "20/day")
    for one in services:
        one.file.write_bytes(services[0].file.read_bytes())
        one.keys = services[0].keys | {"slow": slow}
        one.start()
    yield services
    for one in services:
        one.kill()


def test_a_key_may_call_so_often_over_all_replicas(counted: list[Guarded]) -> None:
    answers = [counted[k % len(counted)].call("GET", "/popular", counted[0].keys["slow"]) for k in range(30)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 10
    late = answers[-1]
    assert late.json()["code"] == "rate.limited"
    assert 1 <= int(late.headers["retry-after"]) <= 24 * 3600
    for one in counted:
        assert one.call("GET", "/popular", one.keys["read"]).status_code == 200, "another key has its own limit"


def test_without_redis_each_counts_for_itself(tiny_release: Path, tmp_path: Path, own_redis: RedisServer) -> None:
    service = Guarded(tiny_release, tmp_path / "service", REDIS_URL=own_redis.url)
    slow = make_key(service.file, "read", "--rate", "5/day")
    service.start()
    try:
        own_redis.kill()
        statuses = [service.call("GET", "/popular", slow).status_code for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
    finally:
        service.kill()


def head_of(size: int) -> list[bytes]:
    return [
        b"GET /popular HTTP/1.1\r\nhost: x\r\nx-bomb: " + b"x" * size,
        b"GET /popular HTTP/1.1\r\nhost: x\r\n" + b"x-bomb: y\r\n" * (size // 11),
        b"GET /popular?category=" + b"x" * size,
        b"GET /" + b"x" * size,
        b"x" * size,
    ]


@pytest.mark.parametrize("kind", range(5))
def test_a_head_without_end_is_cut_off(service: Guarded, kind: int) -> None:
    bomb = head_of(3_000_000)[kind]
    before = resident_bytes(service)
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        caller.settimeout(20)
        sent = 0
        try:
            while sent < len(bomb):
                sent += caller.send(bomb[sent : sent + 65536])
                time.sleep(0.001)
            answer = caller.recv(65536)
        except (ConnectionError, BrokenPipeError):
            answer = b""
    assert answer == b"" or answer[:12] in {b"HTTP/1.1 431", b"HTTP/1.1 400"}
    assert resident_bytes(service) - before < 20_000_000
    assert service.call("GET", "/livez", None).status_code == 200


def resident_bytes(service: ServiceProcess) -> int:
    assert service.process is not None
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_what_is_no_http_is_a_problem_too(service: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        caller.settimeout(20)
        caller.sendall(b"GET /popular\x00 HTTP/9.9\r\n\r\n")
        head, body = b"".join(iter(lambda: caller.recv(65536), b"")).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["code"] == "http.malformed"


def test_a_large_head_is_a_problem(service: Guarded) -> None:
    answer = service.call("GET", "/popular", service.keys["read"], headers={"x-large": "x" * 70_000})
    assert (answer.status_code, answer.json()["code"]) == (431, "request.head_too_large")
    answer = service.call("GET", "/popular?category=" + "x" * 60_000, service.keys["read"], headers={"x": "y" * 9_000})
    assert (answer.status_code, answer.json()["code"]) == (431, "request.head_too_large")
    assert service.call("GET", "/popular", service.keys["read"], headers={"x": "y" * 50_000}).status_code == 200


DEEP = 100_000
BOMBS = [
    b'{"events": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"events": [' + b'{"user_id": ' * DEEP + b"1" + b"}" * DEEP + b"]}",
    b'{"events": [' + b"[" * 900 + b"]" * 900 + b"]}",
    b'{"events": [{"user_id": "a", "item_id": "b", "timestamp": ' + b"9" * 1_000_000 + b"}]}",
    b'{"events": [{"user_id": "a", "item_id": "b", "timestamp": ' + b"9" * 4000 + b"}]}",
    b'{"events": [{"user_id": "a", "item_id": "b", "timestamp": 1e999999}]}',
    b'{"events": [{"user_id": "a", "item_id": "b", "timestamp": NaN}]}',
    b'{"events": [{"user_id": "\\ud800", "item_id": "\\u0000"}]}',
    b'{"events": [' + b'{"' + b"k" * 1_000_000 + b'": 1}]}',
    b'{"events": [{' + b",".join(b'"k%d": 1' % k for k in range(100_000)) + b"}]}",
    b'{"events": [' + b"{}," * 500_000 + b"{}]}",
    b'{"history": ["' + b"x" * 1_900_000 + b'"]}',
    b'{"history": [], "n": ' + b"9" * 4000 + b"}",
    b'{"history": [], "category": "' + b"x" * 1_900_000 + b'"}',
    b'{"history": []}' + b" " * 1_900_000,
]


@pytest.mark.parametrize("bomb", range(len(BOMBS)))
def test_a_json_bomb_is_answered_soon_and_briefly(service: Guarded, bomb: int) -> None:
    before = resident_bytes(service)
    others: list[float] = []
    stop = threading.Event()

    def neighbour() -> None:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            while not others or not stop.is_set():
                began = time.monotonic()
                assert client.get("/livez").status_code == 200
                others.append(time.monotonic() - began)
                time.sleep(0.02)

    beside = threading.Thread(target=neighbour)
    beside.start()
    try:
        for path in ("/interactions", "/recommend"):
            answer = service.call(
                "POST", path, service.keys["write"], content=BOMBS[bomb], headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in {200, 400, 422}, answer.text[:500]
            assert len(answer.content) < 20_000
            assert answer.json().get("code") != "internal"
    finally:
        stop.set()
        beside.join()
    assert max(others) < 5, "nobody else waits for it for long, on a busy machine either"
    assert resident_bytes(service) - before < 150_000_000


TRAVERSAL = ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "....//", "/etc/passwd", "..\\..\\x", "file:///etc/passwd"]


@pytest.mark.parametrize("path", TRAVERSAL)
def test_an_id_is_never_a_path(service: Guarded, path: str) -> None:
    for prefix in ("/recommend/", "/users/", "/items/", "/similar/"):
        request = f"GET {prefix}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {service.keys['read']}"
        with socket.create_connection(("127.0.0.1", service.port)) as caller:
            caller.sendall(request.encode() + b"\r\n\r\n")
            answer = b"".join(iter(lambda: caller.recv(65536), b""))
        head, body = answer.split(b"\r\n\r\n", 1)
        told = json.loads(body)
        assert b"root:" not in body
        if prefix in {"/items/", "/similar/"}:
            assert (told["status"], told["code"]) == (404, "request.unknown_item")
            continue
        assert head.startswith(b"HTTP/1.1 200")
        assert told["user_id"] == unquote(path)
        assert told.get("known", False) is False


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "", "{}", '{"keys": []}', '{"keys": [{"role": "admin"}]}'])
def test_without_usable_keys_it_does_not_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    code, error = ServiceProcess(tmp_path, tmp_path, "--api-keys-file", str(file)).refused()
    assert (code, "config.keys_file" in error, "keys add" in error) == (2, True, True)


@pytest.mark.slow
def test_with_keys_it_binds_to_any_address(tiny_release: Path, tmp_path: Path) -> None:
    service = Guarded(tiny_release, tmp_path / "open", "--host", "0.0.0.0")
    try:
        assert service.start().call("GET", "/popular", service.keys["read"]).status_code == 200
    finally:
        service.kill()


def test_secrets_come_from_files_too(tiny_release: Path, tmp_path: Path, own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", SECRET)
    url = tmp_path / "redis-url"
    url.write_text(f"redis://:{SECRET}@127.0.0.1:{own_redis.port}/0\n")
    service = Guarded(tiny_release, tmp_path / "service", REDIS_URL_FILE=str(url)).start()
    try:
        assert service.call("GET", "/readyz", None).json() == {
            "status": "ready", "release_id": service.call("GET", "/readyz", None).json()["release_id"], "store": "ok",
            "live_evidence": {"entries_behind": 0, "seconds_behind": 0.0, "truncated": False, "entries_read": 0},
        }  # fmt: skip
        own_redis.kill()
        assert service.call("GET", "/readyz", None).json()["store"] == "unavailable"
        assert SECRET not in service.log
    finally:
        service.kill()
    for variables in ({"REDIS_URL_FILE": str(tmp_path / "no")}, {"REDIS_URL_FILE": str(url), "REDIS_URL": "redis://x"}):
        code, error = ServiceProcess(tiny_release, tmp_path, **variables).refused()
        assert (code, "config.secret_" in error, SECRET in error) == (2, True, False)


@pytest.mark.slow
def test_the_keys_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, shown_at = tmp_path / "deep" / "keys.json", tmp_path / "first.key"
    assert keys_command(["add", "--file", str(file), "--role", "admin", "--to", str(shown_at)]) == 0
    key = shown_at.read_text().strip()
    said = capsys.readouterr()
    assert (said.out.strip(), key in said.err) == (str(shown_at), False)
    assert shown_at.stat().st_mode & 0o777 == 0o600
    assert keys_command(["add", "--file", str(file), "--role", "admin", "--once"]) == 0
    assert capsys.readouterr().out == ""
    assert keys_command(["drop", "--file", str(file), "nobody"]) == 2
    assert keys_command(["drop", "--file", str(file), key.split("_")[1]]) == 2
    assert "config.last_key" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        keys_command(["add", "--file", str(file), "--role", "read", "--rate", "often"])
    adders = [
        subprocess.Popen(
            [sys.executable, "-m", "service", "keys", "add", "--file", str(file), "--role", "read"],
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    keys = {adder.communicate()[0] for adder in adders}
    assert len(keys) == 4
    assert len(json.loads(file.read_text())["keys"]) == 5, "no command lost another's key"
    assert not list(file.parent.glob(".*"))
