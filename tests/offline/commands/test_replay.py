"""The replay asks before each event, of what lies before it alone, and answers as the service does."""

import contextlib
import json
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.progress import Progress

from isrf.contract.errors import ConfigError, DataError
from isrf.method.metrics import bootstrap_by_user
from isrf.method.recommend.live.live_events import UNIT_WEIGHT
from offline.commands.publish import publish
from offline.commands.replay.cut import Cut, cut, read_moment
from offline.commands.replay.figures import Measured, describe
from offline.commands.replay.player import Frozen, Player, ranks
from offline.commands.replay.run import frozen_parts, replay
from offline.commands.replay.shop import open_shop
from offline.commands.replay.steps import Asked
from offline.config import build_config
from tests.service.servers import ServiceProcess, wait_for_quiet_epoch, wait_until
from tests.shops import TINY, run_stages, write_shop

DAY = 86_400
ITEMS = [{"item_id": f"i{row}", "title": f"Cup {row % 4} of colour {row % 3}"} for row in range(14)]
EVENTS = [
    (f"u{user:02}", f"i{(user * 5 + step * 7) % 12}", DAY * step + 60 * user) for user in range(30) for step in range(8)
]
LATE = [("u03", "i12", 6 * DAY + 5000), ("new", "i1", 6 * DAY + 6000), ("new", "i13", 7 * DAY + 9000)]
SINCE = 6.0 * DAY
EPOCH_S = 60
CONFIG = build_config("demo", None, (*TINY, "fit=all"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("replay") / "shop", [*EVENTS, *LATE], ITEMS)


@pytest.fixture(scope="module")
def stream(shop: Path) -> Cut:
    before = shop.parent / "before"
    before.mkdir()
    return cut(shop, before, CONFIG, since=SINCE, share=None)


@pytest.fixture(scope="module")
def release(shop: Path, stream: Cut) -> Path:
    releases = shop.parent / "releases"
    return publish(run_stages("export", shop.parent / "before", releases, CONFIG)["export"], releases)


def play(release: Path, stream: Cut, *frozen: Frozen, epoch_s: float = 3600.0) -> list[tuple[Asked, int]]:
    player = Player(open_shop(release, CONFIG.events), stream, frozen=frozenset(frozen), epoch_s=epoch_s)
    with Progress(disable=True) as progress:
        return list(ranks(player, progress=progress, title="replay", total=len(stream.stream)))


def test_the_cut_leaves_nothing_of_the_later_time_in_what_is_trained_on(stream: Cut, shop: Path) -> None:
    assert (stream.num_before, len(stream.stream)) == (180, 63)
    assert [event.timestamp for event in stream.stream] == sorted(event.timestamp for event in stream.stream)
    assert sorted(stream.new_items) == ["i12", "i13"]
    known = {json.loads(line)["item_id"] for line in (shop.parent / "before" / "items.jsonl").read_text().splitlines()}
    assert known == {f"i{row}" for row in range(12)}


def test_each_request_knows_what_lies_before_its_event(release: Path, stream: Cut) -> None:
    asked = [one for one, _ in play(release, stream)]
    assert [one.event for one in asked] == stream.stream
    done: dict[str, list[str]] = {user: [] for user, _, _ in EVENTS}
    shop = open_shop(release, CONFIG.events)
    names = [*shop.item_ids, *stream.new_items]
    for user, item, moment in sorted(EVENTS, key=lambda event: event[2]):
        if moment < SINCE:
            done[user].append(item)
    for one in asked:
        before = done.setdefault(one.event.user_id, [])
        assert [names[row] for row in one.history] == before
        before.append(one.event.item_id)


def test_a_new_item_may_be_answered_from_its_first_event_on(release: Path, stream: Cut) -> None:
    asked = [one for one, _ in play(release, stream)]
    first = next(place for place, one in enumerate(asked) if one.event.item_id == "i13")
    row = asked[first].target
    assert asked[first].is_new_item
    assert asked[first].allowed[row]
    assert all(len(one.allowed) <= row or not one.allowed[row] for one in asked[:first])


def test_a_frozen_history_stays_the_releases(release: Path, stream: Cut) -> None:
    moving, frozen = play(release, stream), play(release, stream, "history")
    shop = open_shop(release, CONFIG.events)
    for one, _ in frozen:
        past = shop.histories.get(one.event.user_id)
        assert one.history == ([] if past is None else past.history)
    assert any(one.history != other.history for (one, _), (other, _) in zip(moving, frozen, strict=True))


def test_active_users_are_neighbours_unless_they_are_frozen(release: Path, stream: Cut) -> None:
    num_base = len(open_shop(release, CONFIG.events).user_ids)
    assert any(one.own >= num_base for one, _ in play(release, stream))
    assert all(one.own < num_base for one, _ in play(release, stream, "activity"))


def test_how_popular_items_are_moves_unless_it_is_frozen(release: Path, stream: Cut) -> None:
    moving, frozen = play(release, stream), play(release, stream, "popularity")
    assert [rank for _, rank in moving] != [rank for _, rank in frozen]


def test_what_others_take_counts_unless_it_is_frozen(release: Path, stream: Cut) -> None:
    """Everybody now takes another item after their last than all did before the moment."""
    after = [event._replace(item_id=f"i{(int(event.item_id[1:]) + 8) % 12}") for event in stream.stream]
    turned = stream._replace(stream=after, new_items={})
    moving, frozen = play(release, turned), play(release, turned, "evidence")
    assert [rank for _, rank in moving] != [rank for _, rank in frozen]


def test_evidence_waits_for_the_end_of_a_step(release: Path, stream: Cut) -> None:
    def played(step_s: float) -> list[int]:
        player = Player(open_shop(release, CONFIG.events), stream, epoch_s=3600.0, step_s=step_s)
        with Progress(disable=True) as progress:
            return [rank for _, rank in ranks(player, progress=progress, title="", total=len(stream.stream))]

    assert played(0.0) == played(1e-3)
    whole = played(1e9)
    assert whole != played(0.0)
    assert whole == [rank for _, rank in play(release, stream, "evidence", "popularity")]


def has_read(client: httpx.Client, count: int) -> bool:
    return bool(client.get("/readyz").json()["live_evidence"]["entries_read"] == count)


def test_the_service_gives_the_same_lists_over_http(release: Path, stream: Cut, tmp_path: Path) -> None:
    # The service gathers active users when an epoch ends: they stand still where none does.
    expected = play(release, stream, "activity")
    wait_for_quiet_epoch(EPOCH_S, at_least_s=30)
    service = ServiceProcess(release.parent, tmp_path, ISRF_CROWD_EPOCH_S=str(EPOCH_S), ISRF_LIVE_POLL_S="0.02")
    service.start()
    with contextlib.ExitStack() as stack, httpx.Client(base_url=service.url, timeout=30) as client:
        stack.callback(service.kill)
        entered: set[str] = set()
        for accepted, (one, rank) in enumerate(expected, start=1):
            event = one.event
            if event.item_id in stream.new_items and event.item_id not in entered:
                entered.add(event.item_id)
                fields = {name: value for name, value in stream.new_items[event.item_id].items() if name != "item_id"}
                assert client.put(f"/items/{event.item_id}", json=fields).status_code == 200
            answer = client.get(f"/recommend/{event.user_id}", params={"n": 20}).json()
            items = [item["item_id"] for item in answer["items"]]
            assert (items.index(event.item_id) if event.item_id in items else -1) == rank, (event, answer["meta"])
            posted = client.post("/interactions", json={"events": [event._asdict()]})
            assert posted.json()["accepted"] == 1
            wait_until(partial(has_read, client, accepted), what="the event counts for everybody")


def test_figures_by_kind_of_request_count_each_request_once(release: Path, stream: Cut) -> None:
    with Progress(disable=True) as progress:
        result = replay(release, stream, config=CONFIG, frozen=("history",), epoch_s=3600.0, progress=progress)
    figures = result["variants"]["as served"]
    assert set(result["variants"]) == {"as served", "history frozen"}
    assert figures["all"]["requests"] == 63
    assert (
        sum(
            figures[f"live events {name}"]["requests"] for name in ("0", "1", "2-4") if f"live events {name}" in figures
        )
        == 63
    )
    assert figures["new users"]["requests"] == 2
    assert figures["new items"]["requests"] == 2
    assert figures["without history"]["requests"] == 1


def test_ndcg_is_of_the_event_s_own_item() -> None:
    measured = Measured(
        users=np.array([0, 0, 1]),
        times=np.zeros(3),
        num_live=np.array([0, 1, 0]),
        is_new_user=np.zeros(3, np.bool_),
        of_session=np.zeros(3, np.bool_),
        is_new_item=np.zeros(3, np.bool_),
        has_history=np.ones(3, np.bool_),
        ranks=np.array([0, 2, -1]),
    )
    figures = describe(measured, since=0.0, samples=20, seed=0)
    assert figures["all"]["NDCG@10"] == pytest.approx((1 + 1 / np.log2(4)) / 3, abs=1e-5)
    assert figures["all"]["HR@10"] == pytest.approx(2 / 3, abs=1e-5)


def test_an_interval_draws_users_with_all_their_events() -> None:
    values = np.array([1.0] * 50 + [0.0] * 50)
    two_users = bootstrap_by_user(values, np.repeat([0, 1], 50), samples=200, seed=0)
    assert (two_users.low, two_users.high) == (0.0, 1.0)
    everybody = bootstrap_by_user(values, np.arange(100), samples=200, seed=0)
    assert 0.35 < everybody.low < everybody.high < 0.65


@pytest.mark.parametrize(("since", "share"), [(None, None), (1.0, 0.5), (None, 1.5)])
def test_a_moment_is_named_once(shop: Path, tmp_path: Path, since: float | None, share: float | None) -> None:
    with pytest.raises(ConfigError, match="since") as caught:
        cut(shop, tmp_path, CONFIG, since=since, share=share)
    assert caught.value.code == "config.since"


def test_a_moment_outside_the_data_is_refused(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 events lie before") as caught:
        cut(shop, tmp_path, CONFIG, since=-1.0, share=None)
    assert caught.value.code == "data.nothing_to_replay"


def test_data_without_timestamps_is_refused(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "shop", EVENTS, ITEMS)
    text = (folder / "interactions.csv").read_text().replace("timestamp", "position", 1)
    (folder / "interactions.csv").write_text(text)
    with pytest.raises(DataError, match="no timestamps"):
        cut(folder, tmp_path, CONFIG, since=None, share=0.5)


def test_moments_are_seconds_or_iso_times() -> None:
    assert read_moment("86400") == read_moment("1970-01-02") == read_moment("1970-01-02T01:00:00+01:00") == 86_400.0


@pytest.mark.parametrize("text", ["yesterday", "nan", "1714521600000"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a moment"):
        read_moment(text)


def test_a_release_without_an_earlier_item_is_refused(release: Path, stream: Cut) -> None:
    without = stream._replace(new_items={})
    with pytest.raises(DataError, match="lacks the item") as caught:
        Player(open_shop(release, CONFIG.events), without, epoch_s=3600.0)
    assert caught.value.code == "replay.other_items"


def test_active_users_are_gathered_once_an_epoch(release: Path, stream: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline.commands.replay.player.STRETCH", 2)
    num_base = len(open_shop(release, CONFIG.events).user_ids)
    endless = 1000.0 * DAY
    assert all(one.own < num_base for one, _ in play(release, stream, epoch_s=endless))


def test_only_known_parts_can_stand_still() -> None:
    assert frozen_parts("activity, history") == ("history", "activity")
    assert frozen_parts("") == ()
    with pytest.raises(ConfigError, match="history, evidence, popularity, activity"):
        frozen_parts("clicks")


def test_events_teach_by_the_weight_of_their_type(release: Path, stream: Cut) -> None:
    config = build_config("demo", None, ("events.weights.purchase=0.5", "events.weights.view=0"))
    looked = stream.stream[0]._replace(event="view", timestamp=stream.stream[-1].timestamp)
    player = Player(open_shop(release, config.events), stream._replace(stream=[*stream.stream, looked]), epoch_s=3600.0)
    steps = [step for stretch in player.stretches() for step in stretch.steps]
    assert all(step.asked is not None for step in steps), "a request comes before each event, whatever it weighs"
    assert [step.taken.weight / UNIT_WEIGHT for step in steps if step.taken] == [0.5] * (len(steps) - 1) + [0.0]
