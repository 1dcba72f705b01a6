"""Sends requests so that the caller gets an answer or an error in time, whatever name servers and network do.

httpx bounds each read and each write, but not the name lookup, and not an answer that arrives byte by byte. So each
request runs in a thread of its own, and its caller waits until the timeout. Then the connection is closed, which ends
the request. A streamed answer is handed to its caller piece by piece.
"""

import contextvars
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import httpcore
import httpx

from isrf_client.attempts import OpenAnswer, Outcome, Try, error_of
from isrf_client.connection import FAILURES, Body, closed, outcome_of, request_of, set_up
from isrf_client.errors import InvalidCallError

MAX_IDLE = 20
"""Idle connections that are kept for later requests."""
PIECES_AHEAD = 8
"""Pieces of a streamed answer that wait for its caller."""


class InTime:
    """Sends requests; threads may share it, and each running request has a connection of its own."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers
        self._tls = set_up(httpx.create_ssl_context)
        self._idle = deque([self._new()])
        self._pid = os.getpid()
        self._closed = False

    def send(self, step: Try, base_url: str) -> Outcome:
        """Returns the answer or the failure, after the step's time at the latest."""
        if self._closed:
            return closed()
        try:
            http = self._take()
        except InvalidCallError as error:
            return error
        stream = Stream(http, self._give_back, step) if step.call.streamed else None
        end = time.monotonic() + (step.timeout_s if stream is None else step.left_s)
        box: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        arguments = (_work, http, request_of(step, base_url), end, box, stream)
        thread = threading.Thread(target=contextvars.copy_context().run, args=arguments, daemon=True)
        try:
            thread.start()
            outcome = box.get(timeout=step.timeout_s)
        except queue.Empty:
            http.close()
            return httpx.TimeoutException("given up")
        except RuntimeError as error:  # no thread can be started
            http.close()
            return outcome_of(error)
        except BaseException:  # the caller is interrupted
            http.close()
            raise
        if isinstance(outcome, Stream):
            return outcome
        self._give_back(http)
        if isinstance(outcome, BaseException) and not isinstance(outcome, FAILURES):
            raise outcome
        return outcome_of(outcome) if isinstance(outcome, Exception) else outcome

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> httpx.Client:
        if self._pid != os.getpid():
            # After a fork the connections belong to the parent.
            self._pid, self._idle = os.getpid(), deque()
        try:
            return self._idle.pop()
        except IndexError:
            return self._new()

    def _new(self) -> httpx.Client:
        return set_up(lambda: httpx.Client(headers=self._headers, verify=self._tls))

    def _give_back(self, http: httpx.Client) -> None:
        if self._closed or len(self._idle) >= MAX_IDLE:
            http.close()
        else:
            self._idle.append(http)


class Stream(OpenAnswer):
    """The body of an answer, of which the thread that reads it is `PIECES_AHEAD` pieces ahead at most.

    A piece must come within the step's `timeout_s`, and the last one within its `left_s`.
    """

    def __init__(self, http: httpx.Client, give_back: Callable[[httpx.Client], None], step: Try) -> None:
        self._http, self._give_back = http, give_back
        self._timeout_s, self._end = step.timeout_s, time.monotonic() + step.left_s
        self._room = threading.Semaphore(PIECES_AHEAD)
        self._pieces: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._is_left = False

    def put(self, piece: bytes | BaseException | None) -> None:
        """Hands a piece over, or the failure, or None after the last piece; waits while there is no room."""
        self._room.acquire()
        if self._is_left:
            self._room.release()
            raise httpx.StreamClosed
        self._pieces.put(piece)

    def pieces(self) -> Generator[bytes, None, None]:
        """Yields the body's pieces.

        Raises:
            ClientError: the rest did not come, or not in time.
        """
        is_whole = False
        try:
            while (piece := self._next()) is not None:
                yield piece
            is_whole = True
        finally:
            self._is_left = True
            self._room.release()
            if is_whole:
                self._give_back(self._http)
            else:
                self._http.close()

    def _next(self) -> bytes | None:
        wait_s = min(self._timeout_s, self._end - time.monotonic())
        try:
            piece = self._pieces.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            raise error_of(None) from None
        self._room.release()
        if not isinstance(piece, BaseException):
            return piece
        if isinstance(piece, FAILURES):
            raise error_of(outcome_of(piece)) from None
        raise piece


def _work(
    http: httpx.Client,
    request: dict[str, Any],
    end: float,
    box: "queue.SimpleQueue[Outcome | BaseException]",
    stream: Stream | None,
) -> None:
    def check(_: str, event: dict[str, Any]) -> None:
        """Starts no step after the end: a late first try of an event must not arrive after the second one."""
        if time.monotonic() > end:
            if isinstance(late := event.get("return_value"), httpcore.NetworkStream):
                late.close()
            raise httpx.TimeoutException("too late")

    body, is_open = Body(), False
    try:
        with http.stream(**request, extensions={"trace": check}) as response:
            if stream is not None and response.is_success:
                is_open = True
                box.put(stream)
                for piece in response.iter_bytes():
                    stream.put(piece)
            else:
                for part in response.iter_bytes():
                    body.add(part)
        if is_open and stream is not None:
            stream.put(None)
        else:
            box.put(body.answer(response))
    except BaseException as error:  # noqa: BLE001 - raised or returned in the caller's thread
        if not is_open or stream is None:
            box.put(error)
        else:
            with suppress(httpx.StreamClosed):
                stream.put(error)
