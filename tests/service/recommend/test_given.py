"""Lists that were given, and what became of them: for every store, over replicas, without anybody's name."""

import asyncio
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from redis import Redis

from isrf.contract.errors import RequestError
from service.recommend import result_lists as given_module
from service.recommend.click_stats import Click, ClickStats, summary
from service.recommend.result_lists import (
    ListParameters,
    ResultEntry,
    ResultList,
    ResultLists,
    check_page,
    ids_text,
    length_for,
)
from service.settings import Settings
from service.state.connect import open_store
from service.state.sealed import DIGEST
from service.state.store import Store
from tests.service.servers import RedisServer


def a_list(owner: str = "user\nann", **changed: Any) -> ResultList:
    entries = [ResultEntry("a", 2.0, "dense"), ResultEntry("b", 1.0, "group"), ResultEntry("c", 0.5, "dense")]
    return ResultList(owner, "", "r-1", "sequence", False, ListParameters(), entries)._replace(**changed)


@pytest.mark.parametrize(("n", "length"), [(1, 10), (10, 100), (20, 200), (50, 200), (200, 200)])
def test_ten_pages_are_kept(n: int, length: int) -> None:
    assert length_for(n) == length


async def test_a_list_is_its_owners_alone(store: Store) -> None:
    lists = ResultLists(store, ttl_s=60)
    one, other = lists.keep(a_list()), lists.keep(a_list())
    assert one != other
    found = await lists.get(one, "user\nann", "")
    assert (found.entries, found.release_id, found.source) == (a_list().entries, "r-1", "sequence")
    assert found.owner != (await lists.get(other, "user\nann", "")).owner, "lists of one user cannot be joined"
    for recommendation_id, owner, lineage in (
        (one, "user\nbob", ""),
        (one, "user\nann", "erased-1"),
        ("never-given", "user\nann", ""),
    ):
        with pytest.raises(RequestError) as gone:
            await lists.get(recommendation_id, owner, lineage)
        assert gone.value.code == "recommendation.gone"
    await lists.close()


@pytest.mark.parametrize("for_newcomer", [True, False])
async def test_a_list_remembers_whom_it_was_made_for(store: Store, for_newcomer: bool) -> None:
    here, there = ResultLists(store, ttl_s=60), ResultLists(store, ttl_s=60)
    one = here.keep(a_list(for_newcomer=for_newcomer))
    await here.close()
    for lists in (here, there) if store.kind == "redis" else (here,):
        found = await lists.find(one)
        assert found is not None
        assert found.for_newcomer is for_newcomer


async def test_another_replica_goes_on(store: Store) -> None:
    here, there = ResultLists(store, ttl_s=60), ResultLists(store, ttl_s=60)
    ids = [here.keep(a_list()) for _ in range(500)]
    await here.close()
    found = [await there.find(one) for one in (ids[0], ids[-1])]
    if store.kind == "embedded":
        assert found == [None, None], "there is no other process"
    else:
        assert all(one is not None and one.entries == a_list().entries for one in found)


async def test_a_list_lives_as_long_as_its_answer_may_be_given(own_redis: RedisServer) -> None:
    store = await open_store(Settings(redis_url=SecretStr(own_redis.url), redis_durability="warn"))
    lists = ResultLists(store, ttl_s=60)
    given_s = [0, 3600, 0, 0.5, 3600]
    kept = [lists.keep(a_list(), given_s=one) for one in given_s]
    await lists.close()
    await store.close()
    with Redis.from_url(own_redis.url) as redis:
        left_s = [redis.ttl(f"isrf:l:{one}") for one in kept]
    assert all(most - 20 < left <= most for left, most in zip(left_s, [60, 3660, 60, 61, 3660], strict=True)), left_s


async def test_a_list_that_cannot_be_read_is_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = ResultLists(store, ttl_s=60)
    click_stats = ClickStats(store, lists, ttl_s=60)
    shown = lists.keep(a_list())
    before_formats = zlib.compress(orjson.dumps(("digest", "", "r-1", "sequence", False, [("a", 2.0, "dense")])))
    later = zlib.compress(orjson.dumps((9, "digest", "", "r-1", "sequence", [None], [("a", 2.0, "dense")])))
    unreadable = (b"", b"no zlib", zlib.compress(b"[1"), zlib.compress(b"[1, 2]"), zlib.compress(b"{}"))
    kept = {f"unreadable-{number}": payload for number, payload in enumerate((*unreadable, before_formats, later))}

    async def read_list(recommendation_id: str) -> bytes | None:
        return kept.get(recommendation_id)

    monkeypatch.setattr(store, "read_list", read_list)
    for name in kept:
        with pytest.raises(RequestError) as gone:
            await lists.get(name, "user\nann", "")
        assert gone.value.code == "recommendation.gone"
    click_stats.clicked([Click("unreadable-1", "a", False), Click(shown, "a", False)])
    (told,) = await click_stats.stats()
    assert told["by_item_source"][0]["clicks"] == 1, "the other click counts"
    await asyncio.gather(click_stats.close(), lists.close())


async def test_a_kept_list_says_what_it_was_asked_for_and_names_no_item(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ListParameters(
        category=("Toys", "Dolls"),
        exclude_category=("Games",),
        filter="price < 80 AND context.country = 'DE'",
        context=(("country", "DE"),),
        min_price=1.0,
        max_price=80.0,
        exclude=ids_text(["i-1", "i-2"]),
        session=ids_text(["s-2", "s-1"]),
        include_seen=True,
        diversity=0.5,
    )
    kept: dict[str, bytes] = {}
    keep_lists = store.keep_lists

    async def watched(lists: Mapping[str, bytes], ttl_s: int) -> None:
        kept.update(lists)
        await keep_lists(lists, ttl_s)

    monkeypatch.setattr(store, "keep_lists", watched)
    here, there = ResultLists(store, ttl_s=60), ResultLists(store, ttl_s=60)
    one = here.keep(a_list(parameters=asked))
    await here.close()
    payload = kept[one]
    found = await (there if store.kind != "embedded" else here).find(one)
    assert found is not None
    same = asked._replace(max_price=80, diversity=0.5)
    check_page(one, found, same, ListParameters._fields)
    check_page(one, found, ListParameters(), ())
    check_page(one, found, ListParameters(), ("category", "max_price", "exclude", "session"))  # nulls say nothing
    written = found._replace(parameters=found.parameters._replace(category=("Toys &amp; Games",)))
    check_page(one, written, asked._replace(category=("Toys & Games",)), ("category",))
    for changed in (
        {"category": ("Games",)},
        {"category": ("Toys",)},
        {"exclude_category": ("Toys",)},
        {"filter": "price < 81"},
        {"context": (("country", "FR"),)},
        {"category": ("",)},
        {"min_price": 0.0},
        {"max_price": 79.0},
        {"exclude": ids_text(["i-1"])},
        {"session": ids_text(["s-1", "s-2"])},
        {"include_seen": False},
        {"diversity": 0.0},
    ):
        with pytest.raises(RequestError) as refused:
            check_page(one, found, asked._replace(**changed), ListParameters._fields)
        assert refused.value.code == "recommendation.other_parameters"
        assert next(iter(changed)) in refused.value.message
    assert not any(name in zlib.decompress(payload[DIGEST:]) for name in (b"i-1", b"i-2", b"s-1", b"s-2"))
    await there.close()


class Unreadable:
    """A store that takes lists and gives none back: what is found is found in the process."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    async def keep_lists(self, lists: Mapping[str, bytes], _ttl_s: int, /) -> None:
        self.sizes |= {recommendation_id: len(payload) for recommendation_id, payload in lists.items()}

    async def read_list(self, _recommendation_id: str, /) -> bytes | None:
        return None


async def test_lists_here_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_module, "IN_PROCESS_BYTES", 2000)
    store = Unreadable()
    lists = ResultLists(store, ttl_s=60)
    ids = [lists.keep(a_list()) for _ in range(300)]
    await lists.close()
    here = [one for one in ids if await lists.find(one) is not None]
    assert 0 < len(here) < 30
    assert sum(store.sizes[one] for one in here) <= 2000
    assert here[-1] == ids[-1]


async def test_clicks_count_once_by_what_showed_the_item(store: Store) -> None:
    lists = ResultLists(store, ttl_s=60)
    one, other = ClickStats(store, lists, ttl_s=60), ClickStats(store, lists, ttl_s=60)
    shown = lists.keep(a_list())
    one.shown("r-1", "sequence", Counter({"dense": 2, "group": 1}))
    other.shown("r-1", "popular", Counter({"popular": 10}))
    one.clicked([Click(shown, "a", False), Click(shown, "a", False), Click(shown, "no such item", True)])
    one.clicked([Click("no-such-list", "a", True)])
    await one.stats()
    other.clicked([Click(shown, "a", True), Click(shown, "b", True)])
    (told,) = await other.stats()
    assert told == {
        "release_id": "r-1",
        "answers": 2,
        "by_answer_source": [
            {
                "source": "popular",
                "answers": 1,
                "items_shown": 10,
                "clicks": 0,
                "purchases": 0,
                "click_through": 0.0,
            },
            {
                "source": "sequence",
                "answers": 1,
                "items_shown": 3,
                "clicks": 2,
                "purchases": 2,
                "click_through": 0.666667,
            },
        ],
        "by_item_source": [
            {"source": "dense", "items_shown": 2, "clicks": 1, "purchases": 1, "click_through": 0.5},
            {"source": "group", "items_shown": 1, "clicks": 1, "purchases": 1, "click_through": 1.0},
            {"source": "popular", "items_shown": 10, "clicks": 0, "purchases": 0, "click_through": 0.0},
        ],
    }
    await asyncio.gather(one.close(), other.close(), lists.close())


async def test_no_count_is_lost_while_the_store_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from isrf.contract.errors import StoreError

    click_stats = ClickStats(store, ResultLists(store, ttl_s=60), ttl_s=60)
    click_stats.shown("r-1", "popular", {"popular": 5})

    async def away(*_: Any) -> None:
        raise StoreError("store.unavailable", "gone")

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "count", away)
        with pytest.raises(StoreError):
            await click_stats.stats()
        click_stats.shown("r-1", "popular", {"popular": 5})
    (told,) = await click_stats.stats()
    assert (told["answers"], told["by_item_source"][0]["items_shown"]) == (2, 10)


def test_nothing_counted_is_nothing_told() -> None:
    assert summary({}) == []
