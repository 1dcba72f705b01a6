"""Runs a function over several values in daemon threads: hashing and reading release the interpreter's lock.

A thread that hangs on a disk must not keep the process from ending, so that an executor does not fit.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Value], Result], values: Sequence[Value], *, order: Sequence[int], threads: int
) -> Iterator[Result]:
    """The results of `function` for each value, in the values' order; raises what the first failing value raises.

    Args:
        function: is called in several threads at once.
        values: its arguments.
        order: the places of the values in the order in which they are begun; the longest work first ends soonest.
        threads: how many there are at most; after an error they begin nothing more.
    """
    futures: list[Future[Result]] = [Future() for _ in values]
    waiting: SimpleQueue[int] = SimpleQueue()
    for place in order:
        waiting.put(place)

    def work() -> None:
        while True:
            try:
                place = waiting.get_nowait()
            except Empty:
                return
            future = futures[place]
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(values[place]))
            except BaseException as error:  # noqa: BLE001 - the caller receives every error
                future.set_exception(error)

    started = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(values)))]
    for thread in started:
        thread.start()
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        # The caller closes what they read from.
        for thread in started:
            thread.join()
