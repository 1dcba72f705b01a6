"""What was shown and what became of it: counts by release, by what the answer rested on, and by channel. No user ids.

Counts gather in this process and are added to the store's every second: an answer waits for none of it. A click is the
first accepted event on a shown item that carries the list's `recommendation_id`, a purchase the first that excludes
the item; both count once for a list and an item, however many events, workers and replicas there are.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import structlog

from isrf.contract.errors import StoreError
from service.inference.task_cancellation import end
from service.recommend.result_lists import ResultLists
from service.state.counters import Counters

EVERY_S = 1.0
MOST_WAITING = 10_000
"""Clicks that wait to be counted; more are not counted."""

_log = structlog.get_logger("service")

Kind = Literal["answers", "shown", "clicks", "purchases"]
KINDS: frozenset[str] = frozenset(get_args(Kind))


class Click(NamedTuple):
    """An accepted event that named a list."""

    recommendation_id: str
    item_id: str
    bought: bool


class ClickStats:
    """One per app."""

    def __init__(self, store: Counters, given: ResultLists, *, ttl_s: int) -> None:
        """`ttl_s` is how long lists are kept, and with them clicks apart."""
        self._store, self._result_lists, self._ttl_s = store, given, ttl_s
        self._counts: Counter[str] = Counter()
        self._clicks: list[Click] = []
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def shown(self, release_id: str, source: str, channels: Mapping[str, int]) -> None:
        """An answer left with so many items of each channel."""
        self._counts[_name("answers", release_id, source, "")] += 1
        for channel, count in channels.items():
            self._counts[_name("shown", release_id, source, channel)] += count

    def clicked(self, clicks: Sequence[Click]) -> None:
        self._clicks += clicks[: max(0, MOST_WAITING - len(self._clicks))]

    async def stats(self) -> list[dict[str, Any]]:
        """Per release, by what answers rested on and by channel; `StoreError` if they cannot be had now."""
        await self._flush()
        return summary(await self._store.counts())

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
        with contextlib.suppress(StoreError):
            await self._flush()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                # Told by reads and writes; counts wait.
                with contextlib.suppress(StoreError):
                    await self._flush()
            except Exception as error:  # noqa: BLE001 - one list that cannot be read must not end the counting
                _log.error("exposure_failed", exc_info=error)

    async def _flush(self) -> None:
        async with self._flushing:
            await self._judge()
            counts, self._counts = self._counts, Counter()
            if not counts:
                return
            try:
                await self._store.count(counts)
            except BaseException:
                self._counts.update(counts)
                raise

    async def _judge(self) -> None:
        """Turns clicks into counts."""
        clicks, self._clicks = self._clicks, []
        counted: dict[str, str] = {}
        for click in clicks:
            given = await self._result_lists.find(click.recommendation_id)
            entry = next((one for one in given.entries if one.item_id == click.item_id), None) if given else None
            if given is None or entry is None:
                continue
            for kind in ("clicks", "purchases") if click.bought else ("clicks",):
                mark = "\n".join((kind, click.recommendation_id, click.item_id))
                counted[mark] = _name(kind, given.release_id, given.source, entry.channel)
        if counted:
            try:
                first = await self._store.first(list(counted), self._ttl_s)
            except BaseException:
                self._clicks = clicks + self._clicks
                raise
            self._counts.update(name for name, is_first in zip(counted.values(), first, strict=True) if is_first)


def summary(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Counts by name as they are told, releases in order of their ids."""
    releases: dict[str, dict[str, dict[str, Counter[str]]]] = {}
    for name, count in counts.items():
        kind, *about = name.split("\t")
        if kind not in KINDS or len(about) != 3:
            continue  # not ours
        release_id, source, channel = about
        counted = releases.setdefault(release_id, {"sources": {}, "channels": {}})
        counted["sources"].setdefault(source, Counter())[kind] += count
        if channel:
            counted["channels"].setdefault(channel, Counter())[kind] += count
    return [
        {
            "release_id": release_id,
            "answers": sum(one["answers"] for one in about["sources"].values()),
            "by_answer_source": [
                {"source": source, "answers": one["answers"], **_rates(one)}
                for source, one in sorted(about["sources"].items())
            ],
            "by_item_source": [
                {"source": channel, **_rates(one)} for channel, one in sorted(about["channels"].items())
            ],
        }
        for release_id, about in sorted(releases.items())
    ]


def _rates(counts: Mapping[str, int]) -> dict[str, Any]:
    shown, clicks = counts.get("shown", 0), counts.get("clicks", 0)
    return {
        "items_shown": shown,
        "clicks": clicks,
        "purchases": counts.get("purchases", 0),
        "click_through": round(clicks / shown, 6) if shown else None,
    }


def _name(kind: str, release_id: str, source: str, channel: str) -> str:
    return "\t".join((kind, release_id, source, channel))
