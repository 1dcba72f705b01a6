"""Until when a release can have learned, by this machine's clock: never by the times that its data gives.

What the shop said or posted later stands beside the release; claiming too little keeps more state than is needed,
claiming too much would make what was answered 200 disappear.
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
"""`created_at` is written in these."""

_log = structlog.get_logger("service")


def learned_until(folder: Path, manifest: Manifest) -> LearnedUntil:
    """Of a release that lies in `folder`.

    Raises:
        BundleError: `bundle.manifest`, the manifest's `created_at` is no time.
    """
    # By the file's own change time a release is as old after every restart, whatever the time of day.
    here_since = min(time.time(), (folder / MANIFEST_FILE).stat().st_ctime)
    ahead = max(0.0, _created(manifest) - here_since)
    if ahead > TOLERANCE_S:
        _log.warning("release_ahead_of_clock", release_id=manifest.release_id, seconds=round(ahead))
    return learned_by(manifest, ahead)


def learned_by(manifest: Manifest, ahead: float) -> LearnedUntil:
    """The same, where the offline machine's clock is at least `ahead` seconds before this one's."""
    found = manifest.learned_until
    if found is None:  # a release made before it was noted: what is surely not too late
        events_through = math.inf if manifest.events_through is None else manifest.events_through
        earliest = min(events_through, _created(manifest))
        found = LearnedUntil(events=max(0.0, earliest), items=max(0.0, earliest))
    # A clock that was set back between the reading and the release: what is newer than the release it cannot hold.
    latest = _created(manifest) + _WHOLE_SECONDS
    events, items = (min(moment, latest) - ahead for moment in (found.events, found.items))
    return LearnedUntil(events=max(0.0, events), items=max(0.0, items))


def _created(manifest: Manifest) -> float:
    try:
        return datetime.fromisoformat(manifest.created_at).timestamp()
    except ValueError:
        raise BundleError(
            "bundle.manifest",
            f"created_at {manifest.created_at!r} is no RFC 3339 time.",
            fix="Publish the release again.",
        ) from None
