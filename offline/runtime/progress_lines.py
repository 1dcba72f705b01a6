"""Progress as lines, for output that is no terminal (a container's log, CI): every half minute what is done and left.

It takes the bars' place: stages add and advance tasks as ever. A line tells of the task that was added last and is not
finished; invisible tasks, such as a stage as a whole, have one where no other is at work.
"""

import threading
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, Task, TaskID

EVERY_S = 30.0


class ProgressLines(Progress):
    """Lines while the context is open, none of a task that is done before one is due."""

    def __init__(self, console: Console, *, every_s: float = EVERY_S) -> None:
        super().__init__(console=console, disable=True)
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)
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
        # What was done before, by a run that ended early, says nothing of the rate.
        return super().add_task(description, start, total, completed, visible, **fields, began_at=completed)

    def _tell(self) -> None:
        while not self._ended.wait(self._every_s):
            at_work = [task for task in self.tasks if not task.finished]
            told = [task for task in at_work if task.visible][-1:] or at_work[-1:]
            for task in told:
                self.console.print(f"  {escape(line_of(task))}", highlight=False, soft_wrap=True)


def line_of(task: Task) -> str:
    """`train: epoch 2, loss 1.234: 300 of 1200, 0:30 passed, 1:30 left`; the rate is that since the task began."""
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
