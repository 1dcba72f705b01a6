"""Writes whole answers to requests that the app never sees, with the same problem format and headers as its own."""

from http import HTTPStatus

from service.api.problems import MEDIA_TYPE, RETRY_AFTER_S, problem_body
from service.server.headers import ANSWERS_CARRY, REQUEST_ID, HeaderLines, request_id_of


def refusal_bytes(
    status: int, code: str, detail: str, *, fix: str = "", headers: HeaderLines = (), more: HeaderLines = ()
) -> bytes:
    """Returns a refusal that closes the connection; `headers` are the request's, `more` the answer's."""
    request_id = request_id_in(headers)
    body = problem_body(status, code, detail, request_id=request_id, fix=fix)
    lines = [
        *more,
        (b"content-type", MEDIA_TYPE.encode()),
        *ANSWERS_CARRY,
        (REQUEST_ID, request_id.encode()),
        (b"connection", b"close"),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    return written(first, lines, body)


def request_id_in(headers: HeaderLines) -> str:
    """Returns the id in a request's headers, or a new one."""
    return request_id_of(next((value for name, value in headers if name == REQUEST_ID), None))


def written(first_line: bytes, lines: HeaderLines, body: bytes) -> bytes:
    """Returns a whole answer, with its length as the last header."""
    lines = (*lines, (b"content-length", str(len(body)).encode()))
    return b"".join((first_line, *(b"%b: %b\r\n" % line for line in lines), b"\r\n", body))
