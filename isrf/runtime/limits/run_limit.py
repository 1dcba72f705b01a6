"""Limits the time of a graph's runs while a release is opened: a watcher thread terminates a run that takes too long.

A thread cannot be cancelled. ONNX Runtime stops a run between two nodes, inside a loop too, when its options say so.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import onnxruntime

from isrf.contract.errors import BundleError

RUN_LIMIT_S = 20.0
"""A hundred times the time of a lone request with a million items."""
_CHECK_EVERY_S = 0.1

T = TypeVar("T")


class _Run:
    """One run with a time limit."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.options = onnxruntime.RunOptions()
        self.ended = False


class _Watch:
    """Terminates runs that take too long; its thread lives as long as there is a run to watch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: set[_Run] = set()
        self._thread: threading.Thread | None = None
        self._pid = 0

    @contextmanager
    def over(self, run: _Run) -> Iterator[None]:
        with self._lock:
            self._runs.add(run)
            if self._thread is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._watch, name="run-limit", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._runs.discard(run)

    def _watch(self) -> None:
        while True:
            time.sleep(_CHECK_EVERY_S)
            now = time.monotonic()
            with self._lock:
                if not self._runs:
                    self._thread = None
                    return
                for run in self._runs:
                    if now > run.until:
                        # Set again at every check until the run ends: a nested run may begin later.
                        run.ended = run.options.terminate = True


_WATCH = _Watch()
_LIMIT = threading.local()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Limits every run of a graph in this thread to `seconds` while the context is open."""
    before = getattr(_LIMIT, "seconds", None)
    _LIMIT.seconds = seconds
    try:
        yield
    finally:
        _LIMIT.seconds = before


def run_within(name: str, run: Callable[[Any], T]) -> T:
    """Calls `run` with ONNX Runtime's run options, or with None where there is no limit.

    Raises:
        BundleError: `bundle.graph_endless`, the run was terminated; and whatever else `run` raises.
    """
    seconds = getattr(_LIMIT, "seconds", None)
    if seconds is None:
        return run(None)
    limited_run = _Run(time.monotonic() + seconds)
    with _WATCH.over(limited_run):
        try:
            return run(limited_run.options)
        except Exception as error:
            if not limited_run.ended:
                raise
            raise BundleError(
                "bundle.graph_endless",
                f"{name} did not answer one request within {seconds:g} s and was terminated.",
                fix="Publish the release again: the graph does not end, or this machine is too slow to serve it.",
            ) from error
