"""Finds the moment until which a release can have learned, by this machine's clock, never by its data's timestamps.

Later events and changes apply beside the release. A moment that is too early keeps more state than needed; one that is
too late would make accepted events and changes disappear.
"""

import math
import time
from datetime import datetime
from pathlib import Path

import structlog

from isrf.contract.errors import BundleError
from isrf.contract.manifest import MANIFEST_FILE, LearnedUntil, Manifest

TOLERANCE_S = 60.0
_WHOLE_SECONDS = 1.0
"""The precision of `created_at`."""

_log = structlog.get_logger("service")


def learned_until(folder: Path, manifest: Manifest) -> LearnedUntil:
    """Returns until when the release in `folder` can have learned.

    Raises:
        BundleError: `bundle.manifest`, the manifest's `created_at` is not a time.
    """
    # The file's change time is the same after every restart.
    here_since = min(time.time(), (folder / MANIFEST_FILE).stat().st_ctime)
    ahead = max(0.0, _created(manifest) - here_since)
    if ahead > TOLERANCE_S:
        _log.warning("release_ahead_of_clock", release_id=manifest.release_id, seconds=round(ahead))
    return learned_by(manifest, ahead)


def learned_by(manifest: Manifest, ahead: float) -> LearnedUntil:
    """Returns the same, where the offline machine's clock is at least `ahead` seconds ahead of this one's."""
    found = manifest.learned_until
    if found is None:  # an older release without the field: a moment that is surely not too late
        events_through = math.inf if manifest.events_through is None else manifest.events_through
        earliest = min(events_through, _created(manifest))
        found = LearnedUntil(events=max(0.0, earliest), items=max(0.0, earliest))
    # The clock may have been set back between reading and publishing: a release has no data newer than itself.
    latest = _created(manifest) + _WHOLE_SECONDS
    events, items = (min(moment, latest) - ahead for moment in (found.events, found.items))
    return LearnedUntil(events=max(0.0, events), items=max(0.0, items))


def _created(manifest: Manifest) -> float:
    try:
        return datetime.fromisoformat(manifest.created_at).timestamp()
    except ValueError:
        raise BundleError(
            "bundle.manifest",
            f"created_at {manifest.created_at!r} is not an RFC 3339 time.",
            fix="Publish the release again.",
        ) from None
