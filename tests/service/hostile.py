"""A service whose patience is short, and callers who speak to it byte by byte."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.service.auth.test_doors import Guarded
from tests.service.servers import PATIENCE_S, ServiceProcess


def with_constants(service: ServiceProcess, constants: Mapping[str, float]) -> None:
    """Its process starts with other values of constants, by their full names; all else is what always serves."""
    lines = ["import sys", "from importlib import import_module as m"]
    for name, value in constants.items():
        module, _, constant = name.rpartition(".")
        lines.append(f"m('{module}').{constant} = {value}")
    lines += ["from service.__main__ import main", "sys.exit(main())"]
    service.command[1:3] = ["-c", "; ".join(lines)]


def impatient(service: ServiceProcess, constants: Mapping[str, float]) -> None:
    """As `with_constants`, of the server's modules: named as `bodies.WINDOW_S`."""
    with_constants(service, {f"service.server.{name}": value for name, value in constants.items()})


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        told: dict[str, Any] = json.loads(self.body)
        assert told["request_id"] == self.headers["x-request-id"] != ""
        assert (told["status"], self.headers["x-content-type-options"]) == (self.status, "nosniff")
        return told


class Caller:
    """One connection."""

    def __init__(self, service: ServiceProcess, *, receive_bytes: int = 0, address: str = "127.0.0.1") -> None:
        """address: of this machine, from which the service sees the call come."""
        self.line = socket.socket()
        self.line.bind((address, 0))
        if receive_bytes:
            self.line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.line.settimeout(PATIENCE_S)
        self.line.connect(("127.0.0.1", service.port))
        self._came = b""

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def send(self, *pieces: bytes) -> "Caller":
        for piece in pieces:
            self.line.sendall(piece)
        return self

    def answer(self) -> Answered:
        """The next answer with a length."""
        while b"\r\n\r\n" not in self._came:
            self._more()
        head, _, rest = self._came.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(rest) < int(headers["content-length"]):
            self._more()
            rest = self._came.partition(b"\r\n\r\n")[2]
        length = int(headers["content-length"])
        self._came = rest[length:]
        return Answered(int(first.split(" ")[1]), headers, rest[:length])

    def is_ended(self) -> bool:
        """Waits for more; whether there is none."""
        try:
            return not self._came and not self.line.recv(1)
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        piece = self.line.recv(65536)
        assert piece, f"the connection ended after {self._came[:200]!r}"
        self._came += piece


def head(method: str, path: str, key: str | None = None, *more: str) -> bytes:
    keyed = [] if key is None else [f"X-API-Key: {key}"]
    typed = ["Content-Type: application/json"] if method in {"POST", "PUT"} else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *keyed, *typed, *more, "", ""]).encode()


@contextlib.contextmanager
def many(service: ServiceProcess, count: int, *pieces: bytes, receive_bytes: int = 0) -> Iterator[list[Caller]]:
    """So many connections that have sent the same."""
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Caller(service, receive_bytes=receive_bytes)) for _ in range(count)]
        yield [caller.send(*pieces) for caller in callers]


def seconds_since(began: float) -> float:
    return time.monotonic() - began


def guarded(tiny_release: Path, folder: Path, constants: Mapping[str, float]) -> Guarded:
    service = Guarded(tiny_release, folder)
    impatient(service, constants)
    return service
