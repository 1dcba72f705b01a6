"""Prints progress as lines every half minute, for output that is not a terminal (a container's log, CI).

It replaces the progress bars: stages add and advance tasks as usual. A line describes the task that was added last and
is not finished. An invisible task, such as a whole stage, gets a line only where no visible task is running.
"""

import threading
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, Task, TaskID

EVERY_S = 30.0


class ProgressLines(Progress):
    """Prints lines while the context is open; a task that finishes within `every_s` gets none."""

    def __init__(self, console: Console, *, every_s: float = EVERY_S) -> None:
        super().__init__(console=console, disable=True)
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._print_lines, name="progress", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        # Work that an earlier, interrupted run did must not count for the rate.
        return super().add_task(description, start, total, completed, visible, **fields, began_at=completed)

    def _print_lines(self) -> None:
        while not self._ended.wait(self._every_s):
            running = [task for task in self.tasks if not task.finished]
            for task in [task for task in running if task.visible][-1:] or running[-1:]:
                self.console.print(f"  {escape(line_of(task))}", highlight=False, soft_wrap=True)


def line_of(task: Task) -> str:
    """A task's line, such as `train: epoch 2, loss 1.234: 300 of 1200, 0:30 passed, 1:30 left`.

    The remaining time uses the task's average rate since it began.
    """
    passed = task.elapsed or 0.0
    if task.total is None:
        return f"{task.description}: {_clock(passed)} passed"
    text = f"{task.description}: {task.completed:.0f} of {task.total:.0f}, {_clock(passed)} passed"
    done = task.completed - task.fields["began_at"]
    if done <= 0:
        return text
    rate = f"{done / passed:.1f} a second, " if done > passed > 0 else ""
    return f"{text}, {rate}{_clock((task.total - task.completed) * passed / done)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
