"""Sends requests so that the caller gets an answer or an error in time, whatever name servers and network do.

httpx bounds each read and each write, but not the name lookup, and not an answer that arrives byte by byte. So each
request runs in a thread of its own, and its caller waits until the timeout. Then the connection is closed, which ends
the request.
"""

import contextvars
import os
import queue
import threading
import time
from collections import deque
from typing import Any

import httpcore
import httpx

from isrf_client.attempts import Outcome
from isrf_client.connection import FAILURES, Body, closed, outcome_of, set_up
from isrf_client.errors import InvalidCallError

MAX_IDLE = 20
"""Idle connections that are kept for later requests."""


class InTime:
    """Sends requests; threads may share it, and each running request has a connection of its own."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers
        self._tls = set_up(httpx.create_ssl_context)
        self._idle = deque([self._new()])
        self._pid = os.getpid()
        self._closed = False

    def send(self, request: dict[str, Any], timeout_s: float) -> Outcome:
        """Returns the answer or the failure, after `timeout_s` at the latest."""
        if self._closed:
            return closed()
        end = time.monotonic() + timeout_s
        try:
            http = self._take()
        except InvalidCallError as error:
            return error
        box: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(_work, http, request, end, box), daemon=True)
        try:
            thread.start()
            outcome = box.get(timeout=timeout_s)
        except queue.Empty:
            http.close()
            return httpx.TimeoutException("given up")
        except RuntimeError as error:  # no thread can be started
            http.close()
            return outcome_of(error)
        except BaseException:  # the caller is interrupted
            http.close()
            raise
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


def _work(
    http: httpx.Client, request: dict[str, Any], end: float, box: "queue.SimpleQueue[Outcome | BaseException]"
) -> None:
    def check(_: str, event: dict[str, Any]) -> None:
        """Starts no step after the end: a late first try of an event must not arrive after the second one."""
        if time.monotonic() > end:
            if isinstance(late := event.get("return_value"), httpcore.NetworkStream):
                late.close()
            raise httpx.TimeoutException("too late")

    body = Body()
    try:
        with http.stream(**request, extensions={"trace": check}) as response:
            for part in response.iter_bytes():
                body.add(part)
        box.put(body.answer(response))
    except BaseException as error:  # noqa: BLE001 - raised or returned in the caller's thread
        box.put(error)
