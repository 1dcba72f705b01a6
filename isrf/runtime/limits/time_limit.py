"""A deadline for opening a release; each part of the work checks it."""

import time

from isrf.contract.errors import BundleError


class TimeLimit:
    """The deadline of one opening; by default there is none."""

    def __init__(self, within_s: float = float("inf")) -> None:
        self.within_s = within_s
        self._until = time.monotonic() + within_s

    def check(self, part: str) -> None:
        """Raises `BundleError` (`bundle.deadline`) where the deadline has passed; `part` names the next part."""
        if time.monotonic() > self._until:
            raise late(self.within_s, part)


def late(within_s: float, part: str) -> BundleError:
    """The error for an opening that took too long."""
    return BundleError(
        "bundle.deadline",
        f"the release was not open after {within_s:g} s; opening had reached {part}.",
        fix="Check the disk and the release. If opening really takes that long, raise ISRF_OPEN_DEADLINE_S.",
    )
