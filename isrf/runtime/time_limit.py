"""A moment by which work has to be done, looked at by whoever does a part of it."""

import time

from isrf.contract.errors import BundleError


class TimeLimit:
    """Of one opening; the infinite one never passes."""

    def __init__(self, within_s: float = float("inf")) -> None:
        self.within_s = within_s
        self._until = time.monotonic() + within_s

    def check(self, part: str) -> None:
        """Raises `BundleError` (`bundle.deadline`) where the moment has passed; `part` is what is about to be done."""
        if time.monotonic() > self._until:
            raise late(self.within_s, part)


def late(within_s: float, part: str) -> BundleError:
    """What is said of an opening that took too long."""
    return BundleError(
        "bundle.deadline",
        f"the release was not open after {within_s:g} s; then it was at {part}.",
        fix="See to the disk and the release; where opening it really takes so long, raise ISRF_OPEN_DEADLINE_S.",
    )
