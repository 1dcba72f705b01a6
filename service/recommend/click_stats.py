"""Counts answers, shown items, clicks and purchases, by release, answer source and channel. It stores no user ids.

Counts gather in this process. A task adds them to the store every second, so no answer waits for the store. A click is
the first accepted event on a shown item that carries the list's `recommendation_id`. A purchase is the first such event
that excludes the item. Both count once for a list and an item, however many events, workers and replicas there are.
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
"""Clicks that wait to be counted; further clicks are dropped."""

_log = structlog.get_logger("service")

Kind = Literal["answers", "shown", "clicks", "purchases"]
KINDS: frozenset[str] = frozenset(get_args(Kind))


class Click(NamedTuple):
    """An accepted event that carries the `recommendation_id` of a list."""

    recommendation_id: str
    item_id: str
    bought: bool


class ClickStats:
    """Counts what is shown and clicked, and writes the counts to the store; the app has one."""

    def __init__(self, store: Counters, result_lists: ResultLists, *, ttl_s: int) -> None:
        """ttl_s: how long the store keeps lists, and the marks that stop a click from counting twice."""
        self._store, self._result_lists, self._ttl_s = store, result_lists, ttl_s
        self._counts: Counter[str] = Counter()
        self._clicks: list[Click] = []
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def shown(self, release_id: str, source: str, channels: Mapping[str, int]) -> None:
        """Counts an answer and its items; `channels` has the number of items of each channel."""
        self._counts[_name("answers", release_id, source, "")] += 1
        for channel, count in channels.items():
            self._counts[_name("shown", release_id, source, channel)] += count

    def clicked(self, clicks: Sequence[Click]) -> None:
        self._clicks += clicks[: max(0, MOST_WAITING - len(self._clicks))]

    async def stats(self) -> list[dict[str, Any]]:
        """Returns the counts of each release, by answer source and by channel; `StoreError` where the store fails."""
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
                # Reads and writes of user state report a failed store; the counts wait for the next round.
                with contextlib.suppress(StoreError):
                    await self._flush()
            except Exception as error:  # noqa: BLE001 - a single unreadable list must not end the counting
                _log.error("exposure_failed", exc_info=error)

    async def _flush(self) -> None:
        async with self._flushing:
            await self._count_clicks()
            counts, self._counts = self._counts, Counter()
            if not counts:
                return
            try:
                await self._store.count(counts)
            except BaseException:
                self._counts.update(counts)
                raise

    async def _count_clicks(self) -> None:
        """Counts the clicks on items that their list contains, each list and item once."""
        clicks, self._clicks = self._clicks, []
        counted: dict[str, str] = {}
        for click in clicks:
            result_list = await self._result_lists.find(click.recommendation_id)
            if result_list is None:
                continue
            entry = next((entry for entry in result_list.entries if entry.item_id == click.item_id), None)
            if entry is None:
                continue
            for kind in ("clicks", "purchases") if click.bought else ("clicks",):
                mark = "\n".join((kind, click.recommendation_id, click.item_id))
                counted[mark] = _name(kind, result_list.release_id, result_list.source, entry.channel)
        if counted:
            try:
                first = await self._store.first(list(counted), self._ttl_s)
            except BaseException:
                self._clicks = clicks + self._clicks
                raise
            self._counts.update(name for name, is_first in zip(counted.values(), first, strict=True) if is_first)


def summary(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns the counts as the API shows them, releases in the order of their ids.

    Args:
        counts: by the names that `_name` makes.
    """
    releases: dict[str, dict[str, dict[str, Counter[str]]]] = {}
    for name, count in counts.items():
        kind, *labels = name.split("\t")
        if kind not in KINDS or len(labels) != 3:
            continue  # another version of the service wrote it
        release_id, source, channel = labels
        counted = releases.setdefault(release_id, {"sources": {}, "channels": {}})
        counted["sources"].setdefault(source, Counter())[kind] += count
        if channel:
            counted["channels"].setdefault(channel, Counter())[kind] += count
    return [
        {
            "release_id": release_id,
            "answers": sum(by_kind["answers"] for by_kind in counted["sources"].values()),
            "by_answer_source": [
                {"source": source, "answers": by_kind["answers"], **_rates(by_kind)}
                for source, by_kind in sorted(counted["sources"].items())
            ],
            "by_item_source": [
                {"source": channel, **_rates(by_kind)} for channel, by_kind in sorted(counted["channels"].items())
            ],
        }
        for release_id, counted in sorted(releases.items())
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
