"""Each kind of list on the tiny release or on a handful of numbers, checked by hand."""

from pathlib import Path

import numpy as np
import pytest

from isrf.contract.event_log import StoredEvent, bucket_of
from isrf.method.kinds.repurchase import Repurchases
from isrf.method.recommend.request import RankedItem
from service.recommend.kinds.buy_again import buy_again_items
from service.recommend.kinds.newest import first_seen, new_items
from service.recommend.kinds.recently_viewed import recently_viewed_items
from service.recommend.kinds.together import together_items
from service.recommend.kinds.trending import trending_items
from service.release.catalogue import ItemLine
from service.release.live_counting import LiveCounting
from service.release.mapped_entries import ItemLookup, MappedEntries
from service.release.opening import Release, open_release
from service.release.snapshot import base_snapshot
from service.state.merge import Purchases
from service.state.user_store import AcceptedEntry
from service.sync.release_runtime import with_live_evidence

DAY = 86_400.0
NOW = 1_757_000_000.0
LATER = NOW + 100 * DAY
"""No event of the release is in a window of a week before it."""
EVERY_ITEM = np.ones(120, np.bool_)


@pytest.fixture
def opened(tiny_release: Path) -> tuple[Release, LiveCounting]:
    release, counting = with_live_evidence(open_release(tiny_release), 1 << 20)
    assert counting is not None
    return release, counting


def take(opened: tuple[Release, LiveCounting], users: str, item: int, at: float, *followed: int) -> None:
    release, counting = opened
    name = release.catalogue.item_id
    entries = [
        StoredEvent(user, name(item), "", "B", at, False, f"{user}{item}{at}", at, tuple(map(name, followed)))
        for user in users
    ]
    accepted = [AcceptedEntry(bucket_of(entry.user_id), entry) for entry in entries]
    counting.count(MappedEntries.of(accepted, ItemLookup(release.catalogue.ids)))


def rows(items: list[RankedItem]) -> list[int]:
    return [item.item_index for item in items]


def test_trending_is_what_rises(opened: tuple[Release, LiveCounting]) -> None:
    release, counting = opened
    facts = release.users.facts
    take(opened, "abcdef", 5, LATER - 1 * DAY)  # 6 against none: (6 + 3) / 3
    take(opened, "abc", 7, LATER)  # 3 against none: 2
    take(opened, "ghijkl", 9, LATER - 9 * DAY)  # 4 against 6
    take(opened, "mnop", 9, LATER - 2 * DAY)
    items = trending_items(counting.evidence, facts, EVERY_ITEM, now_s=LATER + DAY, window_s=7 * DAY, count=10)
    assert items == [RankedItem(5, 3.0, "trending"), RankedItem(7, 2.0, "trending")]
    without = EVERY_ITEM.copy()
    without[5] = False
    assert rows(trending_items(counting.evidence, facts, without, now_s=LATER, window_s=7 * DAY, count=1)) == [7]


def test_a_new_release_knows_its_own_trend(opened: tuple[Release, LiveCounting]) -> None:
    release, counting = opened
    facts = release.users.facts
    window = 60 * DAY
    items = trending_items(counting.evidence, facts, EVERY_ITEM, now_s=NOW, window_s=window, count=3)
    until = facts.latest_s + 1e-3
    now = np.bincount(facts.between(until - window, until).items, minlength=120)
    before = np.bincount(facts.between(until - 2 * window, until - window).items, minlength=120)
    best = max((now + 3) / (before + 3))
    assert items[0].score == pytest.approx(best, abs=1e-4)
    assert best > 1


def test_without_live_events_nothing_is_known_to_rise(opened: tuple[Release, LiveCounting]) -> None:
    facts = opened[0].users.facts
    assert trending_items(None, facts, EVERY_ITEM, now_s=NOW, window_s=DAY, count=9) == []


def test_an_event_of_tomorrow_moves_no_window(opened: tuple[Release, LiveCounting]) -> None:
    take(opened, "abc", 5, NOW)
    take(opened, "d", 6, NOW + 30 * DAY)
    counting = opened[1]
    items = trending_items(
        counting.evidence, opened[0].users.facts, EVERY_ITEM, now_s=NOW + 1, window_s=7 * DAY, count=1
    )
    assert rows(items) == [5]


def test_an_added_item_was_seen_when_it_came(opened: tuple[Release, LiveCounting]) -> None:
    release, _ = opened
    line = ItemLine(item_id="brand-new")
    catalogue = release.catalogue.with_items({"brand-new": line}, "1", added_at={"brand-new": NOW})
    seen = first_seen(catalogue, release.users.facts)
    assert seen[120] == NOW
    known = np.isfinite(seen[:120])
    assert known.any()
    assert seen[:120][known].max() < NOW
    items = new_items(seen, np.ones(121, np.bool_), interest=None, count=2)
    assert rows(items) == [120, int(np.nanargmax(seen[:120]))]
    assert new_items(seen, np.zeros(121, np.bool_), interest=None, count=2) == []


def test_interest_chooses_among_new_items() -> None:
    seen = np.array([4.0, 3.0, 2.0, 1.0, np.nan])
    interest = np.array([0.0, 0.1, 0.9, 0.0, 1.0], np.float32)
    allowed = np.ones(5, np.bool_)
    assert rows(new_items(seen, allowed, interest=None, count=5)) == [0, 1, 2, 3]
    # Places by time 1, 3/4, 2/4, 1/4; by interest item 2, 1, 0, 3.
    items = new_items(seen, allowed, interest=interest, count=5)
    assert [(item.item_index, item.score) for item in items] == [(0, 0.75), (1, 0.75), (2, 0.75), (3, 0.25)]


def test_buy_again_follows_the_items_own_interval() -> None:
    again = Repurchases(np.array([30, 10, np.nan, 30, 30]) * DAY, np.array([5, 1, 0, 5, 1]))
    bought = {
        0: Purchases(1, NOW - 30 * DAY),  # due today
        1: Purchases(2, NOW - 20 * DAY),  # twice its interval ago
        2: Purchases(3, NOW - 30 * DAY),  # nobody knows its interval
        3: Purchases(1, NOW - 2 * DAY),  # too early
        4: Purchases(1, NOW - 30 * DAY),  # one other user alone bought it again
        99: Purchases(2, NOW - 30 * DAY),  # came since the release
    }
    items = buy_again_items(bought, again, np.ones(100, np.bool_), now_s=NOW, count=10)
    assert items == [RankedItem(0, 1.0, "buy-again"), RankedItem(1, 0.5, "buy-again")]
    off = np.ones(100, np.bool_)
    off[0] = False
    assert rows(buy_again_items(bought, again, off, now_s=NOW, count=10)) == [1]
    assert buy_again_items({}, again, off, now_s=NOW, count=10) == []


def test_where_nothing_repeats_nothing_is_due(opened: tuple[Release, LiveCounting]) -> None:
    again = opened[0].users.facts.repurchases(lambda kind: kind == "purchase")
    assert not again.users.any()
    bought = {row: Purchases(2, NOW - DAY) for row in range(120)}
    assert buy_again_items(bought, again, EVERY_ITEM, now_s=NOW, count=10) == []


def test_recently_viewed_is_distinct_and_on_offer() -> None:
    allowed = EVERY_ITEM.copy()
    allowed[3] = False
    items = recently_viewed_items([1, 2, 1, 3, 4, 2], allowed, count=2)
    assert items == [RankedItem(2, 2.0, "recently-viewed"), RankedItem(4, 1.0, "recently-viewed")]


def test_together_names_what_was_taken_along(opened: tuple[Release, LiveCounting]) -> None:
    release, _ = opened
    snapshot = base_snapshot(release)
    tables = release.recommender.tables
    lists = (tables.item_lists["cooccurrence"], tables.item_lists["transition"], release.users.facts.baskets)
    beside = {item for one in lists for row in (3, 8) for item in one.entries(row).indices.tolist()}
    items = together_items(snapshot, [3, 8, 3], EVERY_ITEM, count=200)
    assert set(rows(items)) == beside - {3, 8}
    assert [item.score for item in items] == sorted((item.score for item in items), reverse=True)
    only = np.zeros(120, np.bool_)
    only[rows(items)[4]] = True
    assert rows(together_items(snapshot, [3, 8], only, count=200)) == [rows(items)[4]]
    assert together_items(snapshot, [], EVERY_ITEM, count=5) == []


def test_a_live_basket_counts_for_together(opened: tuple[Release, LiveCounting]) -> None:
    release, _ = opened
    snapshot = base_snapshot(release)
    before = rows(together_items(snapshot, [3], EVERY_ITEM, count=200))
    stranger = next(row for row in range(120) if row not in before and row != 3)
    take(opened, "abcdefgh", stranger, NOW, 3)
    assert stranger in rows(together_items(snapshot, [3], EVERY_ITEM, count=200))
