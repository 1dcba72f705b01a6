"""Servers of raw sockets, which answer what no good server would."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONG_S = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def server(talk: Callable[[socket.socket, bytes], None]) -> Iterator[tuple[str, list[bytes]]]:
    """Hands each connection's first request to `talk`, then closes it; the address and the requests."""
    listening = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []

    def one(client: socket.socket) -> None:
        with client:
            try:
                request = client.recv(65536)
                # A body comes after its head.
                if request.startswith(b"POST") and request.endswith(b"\r\n\r\n"):
                    request += client.recv(65536)
                requests.append(request)
                talk(client, request)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", requests
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def saying(answer: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda client, _: client.sendall(answer)


def dripping(start: bytes, drop: bytes, every_s: float = 0.02) -> Callable[[socket.socket, bytes], None]:
    def talk(client: socket.socket, _: bytes) -> None:
        client.sendall(start)
        end = time.monotonic() + LONG_S
        while time.monotonic() < end:
            client.sendall(drop)
            time.sleep(every_s)

    return talk


def answer_of(body: bytes, status: str = "200 OK", head: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status.encode(), head, len(body), body)
