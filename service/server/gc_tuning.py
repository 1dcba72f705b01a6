"""What lives as long as the process is kept out of the garbage collector's way.

A release, the framework and its schemas are some 200,000 objects. A full collection looks at every one of them, and
nothing else runs meanwhile: 0.15 s every ten seconds under load. It is for who owns the process to call `set_apart`.
"""

import gc

FULL_AFTER = 100
"""Collections of the middle generation before one of the oldest; ten by default, which is for programs that make
cycles. Requests hardly make any, but caches and state of the embedded store grow."""


def set_apart() -> None:
    """From now on nothing that lives now is looked at; it is still freed when the last reference to it goes."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_AFTER)
