"""No run of a graph while a release is being opened goes on for ever: one that takes too long is ended from outside.

A run cannot be cancelled as a thread; ONNX Runtime itself stops between two nodes, inside a loop too, when it is told.
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
"""A hundred times what a lone request takes with a million items."""
_LOOK_S = 0.1

T = TypeVar("T")


class _Run:
    """One run under a limit."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.options = onnxruntime.RunOptions()
        self.ended = False


class _Watch:
    """Ends what runs too long; its thread lives as long as there is something to watch."""

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
            time.sleep(_LOOK_S)
            now = time.monotonic()
            with self._lock:
                if not self._runs:
                    self._thread = None
                    return
                for run in self._runs:
                    if now > run.until:
                        # Told again until it ends: a nested run may begin after.
                        run.ended = run.options.terminate = True


_WATCH = _Watch()
_LIMIT = threading.local()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Within it no run of a graph in this thread takes longer."""
    before = getattr(_LIMIT, "seconds", None)
    _LIMIT.seconds = seconds
    try:
        yield
    finally:
        _LIMIT.seconds = before


def run_within(name: str, run: Callable[[Any], T]) -> T:
    """Calls `run` with the options of a run, None where nothing limits it.

    Raises:
        BundleError: `bundle.graph_endless` where it was ended; whatever else `run` raises.
    """
    seconds = getattr(_LIMIT, "seconds", None)
    if seconds is None:
        return run(None)
    one = _Run(time.monotonic() + seconds)
    with _WATCH.over(one):
        try:
            return run(one.options)
        except Exception as error:
            if not one.ended:
                raise
            raise BundleError(
                "bundle.graph_endless",
                f"{name} had not answered one request after {seconds:g} s; it was ended.",
                fix="Publish the release again: the graph does not end, or this machine cannot serve it.",
            ) from error
