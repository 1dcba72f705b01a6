"""What the events since the release say is told as such, and only where at least three people are behind it."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from fastapi.testclient import TestClient

from isrf.contract.event_log import StoredEvent, bucket_of
from isrf.method.recommend.live import live_counts
from isrf.method.recommend.request import RankedItem
from service.app import create_app
from service.recommend.explain import Explainer
from service.recommend.lists import popular_items
from service.recommend.reasons import reason_body
from service.release.live_counting import LiveCounting
from service.release.mapped_entries import ItemLookup, MappedEntries
from service.release.opening import Release, open_release
from service.release.snapshot import base_snapshot
from service.settings import Settings
from service.state.user_store import AcceptedEntry
from service.sync.release_runtime import with_live_evidence
from tests.conftest import OLDER_RELEASES
from tests.service.servers import wait_until

NOW = 1_757_000_000.0
LIVE = ("transition", "cooccurrence")


@pytest.fixture
def opened(tiny_release: Path) -> tuple[Release, LiveCounting]:
    release, counting = with_live_evidence(open_release(tiny_release), 1 << 20)
    assert counting is not None
    return release, counting


def take(opened: tuple[Release, LiveCounting], users: str, item: int, *followed: int) -> None:
    release, counting = opened
    name = release.catalogue.item_id
    entries = [
        StoredEvent(user, name(item), "", "B", NOW, False, user, NOW, tuple(map(name, followed))) for user in users
    ]
    accepted = [AcceptedEntry(bucket_of(entry.user_id), entry) for entry in entries]
    counting.count(MappedEntries.of(accepted, ItemLookup(release.catalogue.ids)))


def strange_pair(release: Release) -> tuple[int, int]:
    """Two items that no list of the release joins."""
    lists = release.recommender.tables.item_lists
    for first in range(len(release.catalogue)):
        for second in range(first + 1, len(release.catalogue)):
            if not any(second in lists[name].entries(first).indices for name in ("transition", "cooccurrence")):
                return first, second
    raise AssertionError("every item is beside every other")


def reasons_of(
    release: Release, history: list[int], item: int, source: str = "transition", user_id: str | None = None
) -> dict[str, Any]:
    explainer = Explainer(release, base_snapshot(release), history, None, user_id=user_id)
    found = [reason_body(item, reason, release) for reason in explainer.reasons(RankedItem(item, 0.0, source))]
    return {reason["channel"]: reason for reason in found}


def test_fewer_than_three_people_are_not_told_of(opened: tuple[Release, LiveCounting]) -> None:
    release, _ = opened
    first, second = strange_pair(release)
    untold = reasons_of(release, [first], second)
    for users in ("a", "b"):
        take(opened, users, second, first)
        found = reasons_of(release, [first], second)
        assert not {"transition", "cooccurrence"} & found.keys()
        assert {name: reason["text"] for name, reason in found.items()} == {
            name: reason["text"] for name, reason in untold.items()
        }
    take(opened, "c", second, first)
    found = reasons_of(release, [first], second)
    for channel in ("transition", "cooccurrence"):
        (path,) = found[channel]["paths"]
        assert path["live_users"] == 3
        title = release.catalogue.items[first].title
        assert found[channel]["text"] == f"3 shoppers who took “{title}” took this too since the last release."


def live_users(found: dict[str, Any]) -> dict[str, int]:
    """Of the one path of each channel that counts people."""
    return {name: reason["paths"][0]["live_users"] for name, reason in found.items() if name in LIVE}


def test_nobody_is_told_of_themselves(opened: tuple[Release, LiveCounting]) -> None:
    release, _ = opened
    first, second = strange_pair(release)
    take(opened, "abc", second, first)
    assert live_users(reasons_of(release, [first], second, user_id="x")) == {"transition": 3, "cooccurrence": 3}
    assert live_users(reasons_of(release, [first], second, user_id="a")) == {}, "two others"
    take(opened, "d", second, first)
    assert live_users(reasons_of(release, [first], second, user_id="a")) == {"transition": 3, "cooccurrence": 3}
    assert live_users(reasons_of(release, [first], second, user_id="x")) == {"transition": 4, "cooccurrence": 4}


def test_no_call_tells_its_user_of_themselves(tiny_release: Path, tmp_path: Path) -> None:
    release = open_release(tiny_release)
    rows = strange_pair(release)
    first, second = map(release.catalogue.item_id, rows)
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path, deadline_s=60)
    with TestClient(create_app(chosen)) as http:

        def told(**whose: Any) -> set[str]:
            body = {"candidates": [second], "explain": True, **whose}
            (item,) = http.post("/rank", json=body).json()["items"]
            return {one["channel"] for one in item["reasons"] for path in one["paths"] if "live_users" in path}

        events = [
            {"user_id": user, "item_id": item, "event": "view", "timestamp": NOW + at}
            for user in "abc"
            for at, item in enumerate((first, second))
        ]
        assert http.post("/interactions", json={"events": events}).json()["accepted"] == 6
        wait_until(lambda: told(history=[first]) == set(LIVE), what="the events to be counted")
        assert told(user_id="a") == set(), "two others took both"
        events = [one | {"user_id": "d"} for one in events[:2]]
        assert http.post("/interactions", json={"events": events}).json()["accepted"] == 2
        wait_until(lambda: told(user_id="a") == set(LIVE), what="the fourth user's events")


def test_each_reason_counts_the_people_of_its_own_evidence(opened: tuple[Release, LiveCounting]) -> None:
    """Six took the second item after the first: two of them long after; three took them the other way round."""
    release, _ = opened
    first, second = strange_pair(release)
    spec = release.manifest.live_evidence
    assert spec is not None
    between = [row for row in range(len(release.catalogue)) if row not in (first, second)][: spec.window]
    take(opened, "abcd", second, first)
    take(opened, "ef", second, *between, first)
    take(opened, "ghi", first, second)
    assert live_users(reasons_of(release, [first], second)) == {"transition": 4, "cooccurrence": 9}
    assert live_users(reasons_of(release, [second], first)) == {"transition": 3, "cooccurrence": 9}


def test_people_are_counted_among_the_latest_events_of_the_first_item(opened: tuple[Release, LiveCounting]) -> None:
    release, _ = opened
    first, second = strange_pair(release)
    other = next(row for row in range(len(release.catalogue)) if row not in (first, second))
    with patch.object(live_counts, "ROW_EVENTS", 10):
        take(opened, "abcde", second, first)
        take(opened, "fghijk", other, first)
        assert live_users(reasons_of(release, [first], second)) == {"transition": 4, "cooccurrence": 4}
        take(opened, "lm", other, first)
        assert live_users(reasons_of(release, [first], second)) == {}, "two people are left"


def test_a_path_of_the_release_is_told_without_live_counts(opened: tuple[Release, LiveCounting]) -> None:
    release, _ = opened
    lists = release.recommender.tables.item_lists["transition"]
    first, second = next(
        (row, int(lists.entries(row).indices[0])) for row in range(120) if len(lists.entries(row).indices)
    )
    stranger = next(row for row in range(120) if second not in lists.entries(row).indices and row != second)
    take(opened, "abcd", second, stranger)
    take(opened, "efgh", second, first)
    found = reasons_of(release, [stranger, first], second)["transition"]
    told = {path["item_id"]: path.get("live_users") for path in found["paths"]}
    assert told == {release.catalogue.item_id(first): None, release.catalogue.item_id(stranger): 4}
    assert "went on to take this. 4 shoppers who took" in found["text"]


@pytest.mark.parametrize("newcomer", [True, False])
def test_popular_is_what_was_taken_lately(opened: tuple[Release, LiveCounting], newcomer: bool) -> None:
    release, _ = opened
    last = len(release.catalogue) - 1
    take(opened, "abcdefghijklmnopqrstuvwxyz", last - 1)
    take(opened, "abcdefghijklmnopqrstuvwxyz012", last, 1, 2, 3)
    items = popular_items(release.recommender, release.catalogue.allowed(), 100, newcomer=newcomer)
    assert items[0].item_index == (last - 1 if newcomer else last)
    scores = [item.score for item in items]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1.0
    for place, item in enumerate(items, start=1):
        explainer = Explainer(release, base_snapshot(release), [], None, for_newcomer=newcomer)
        (reason,) = (reason_body(item.item_index, one, release) for one in explainer.reasons(item))
        assert reason["popularity_rank"] == place
        whom = "new shoppers" if newcomer else "shoppers"
        assert reason["text"] == f"It is number {place} of 120 by what {whom} took lately."


def test_an_older_release_says_how_many_took_it() -> None:
    release = open_release(OLDER_RELEASES[3])
    items = popular_items(release.recommender, release.catalogue.allowed(), 100)
    assert [item.score for item in items] == [float(release.catalogue.popularity[item.item_index]) for item in items]
    (reason,) = reasons_of(release, [], items[0].item_index, "popular").values()
    assert reason["text"] == "It is number 1 of 120 by how many took it."
