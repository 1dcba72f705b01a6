"""Shows in the run's own process how far a training on Ray is, which goes on in other processes.

The first of them sends what its bars say to an actor; a thread of the run's own process looks there.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from rich.progress import Progress, TaskID

SHOW_EVERY_S = 1.0


class SentProgress(Progress):
    """Sends how far the loop is to the actor."""

    def __init__(self, shown: Any) -> None:
        """`shown` is what `shown_bar` yields."""
        super().__init__(disable=True)
        self._shown = shown

    def add_task(self, description: str, *arguments: Any, **fields: Any) -> TaskID:
        self._send({"description": description, **fields})
        return super().add_task(description, *arguments, **fields)

    def update(self, task_id: TaskID, *arguments: Any, **fields: Any) -> None:
        self._send(fields)
        super().update(task_id, *arguments, **fields)

    def _send(self, fields: dict[str, Any]) -> None:
        known = {name: fields[name] for name in ("description", "total", "completed") if fields.get(name) is not None}
        self._shown.put.remote(known)


class _Shown:
    """The actor: how far training is."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}

    def put(self, fields: dict[str, Any]) -> None:
        self._fields |= fields

    def get(self) -> dict[str, Any]:
        return self._fields


@contextmanager
def shown_bar(progress: Progress) -> Iterator[Any]:
    """Yields the actor, whose state a bar follows while the context is open."""
    shown = ray.remote(_Shown).options(num_cpus=0).remote()
    task, done = progress.add_task("train", total=None), threading.Event()

    def follow_it() -> None:
        while not done.wait(SHOW_EVERY_S):
            try:
                progress.update(task, **ray.get(shown.get.remote(), timeout=SHOW_EVERY_S))
            except ray.exceptions.RayError:  # the training itself says what is wrong
                continue

    thread = threading.Thread(target=follow_it, daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        done.set()
        thread.join()
        progress.remove_task(task)
        ray.kill(shown)
