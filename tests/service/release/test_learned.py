"""What a release has learned, by the service's clock: the reading of its data, never its rows."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from isrf.contract.errors import BundleError
from isrf.contract.manifest import LearnedUntil, Manifest
from service.release.learned import learned_by, learned_until
from tests.isrf.runtime.test_bundle import manifest

HOUR = 3600.0


def lying(folder: Path, **fields: object) -> tuple[Path, Manifest]:
    made = manifest(**fields)
    (folder / "manifest.json").write_text(made.model_dump_json())
    return folder, made


def created(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def test_the_reading_decides_and_no_row() -> None:
    read = LearnedUntil(events=2e9, items=1.9e9)
    for through in (4.9e9, 5.0, None):
        made = manifest(events_through=through, learned_until=read, created_at=created(2e9))
        assert learned_by(made, 0.0) == read


def test_a_release_holds_nothing_newer_than_itself() -> None:
    read = LearnedUntil(events=4.9e9, items=3e9)  # by a clock that was set back before the release was made
    made = manifest(learned_until=read, created_at=created(2e9))
    assert learned_by(made, 0.0) == LearnedUntil(events=2e9 + 1, items=2e9 + 1)
    assert learned_by(made, HOUR) == LearnedUntil(events=2e9 + 1 - HOUR, items=2e9 + 1 - HOUR)


@pytest.mark.parametrize(("through", "expected"), [(4.9e9, 2e9), (1.5e9, 1.5e9), (None, 2e9), (-5.0, 0.0)])
def test_an_older_release_claims_no_more_than_is_sure(through: float | None, expected: float) -> None:
    older = manifest(events_through=through, created_at=created(2e9))
    assert learned_by(older, 0.0) == LearnedUntil(events=expected, items=expected)


def test_a_manifest_without_the_moment_is_still_read() -> None:
    fields = json.loads(manifest().model_dump_json())
    del fields["learned_until"]
    assert Manifest.model_validate(fields).learned_until is None


def test_an_offline_clock_that_is_ahead_is_set_back_by_what_it_is_ahead(tmp_path: Path) -> None:
    now = time.time()
    read = LearnedUntil(events=now + 8 * HOUR, items=now + 7 * HOUR)
    folder, made = lying(tmp_path, created_at=created(now + 9 * HOUR), learned_until=read)
    found = learned_until(folder, made)
    assert found.events == pytest.approx(now - HOUR, abs=5)
    assert found.items == pytest.approx(now - 2 * HOUR, abs=5)


def test_how_far_it_is_ahead_is_seen_on_the_day_after_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    read = LearnedUntil(events=now + 8 * HOUR, items=now + 8 * HOUR)
    folder, made = lying(tmp_path, created_at=created(now + 9 * HOUR), learned_until=read)
    os.utime(folder / "manifest.json", (now + 9 * HOUR,) * 2)  # as a copy that keeps times leaves it
    before = learned_until(folder, made)
    monkeypatch.setattr(time, "time", lambda: now + 24 * HOUR)
    assert learned_until(folder, made).events == pytest.approx(before.events, abs=5)


def test_an_offline_clock_that_is_behind_claims_less(tmp_path: Path) -> None:
    now = time.time()
    read = LearnedUntil(events=now - 8 * HOUR, items=now - 8 * HOUR)
    folder, made = lying(tmp_path, created_at=created(now - 7 * HOUR), learned_until=read)
    assert learned_until(folder, made) == read


def test_a_release_whose_age_is_no_time_is_refused(tmp_path: Path) -> None:
    folder, made = lying(tmp_path, created_at="yesterday")
    with pytest.raises(BundleError) as caught:
        learned_until(folder, made)
    assert caught.value.code == "bundle.manifest"
