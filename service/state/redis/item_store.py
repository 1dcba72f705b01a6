"""Stores changes of items in Redis: one hash of entries, numbered in their order, so that replicas read new ones.

This module merges fields and writes them by compare-and-set; a slower writer reads again and retries. It knows no
release: `service.release.item_changes` decides what an entry means beside one.
"""

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog

from isrf.contract.errors import StoreError
from isrf.contract.item_changes import (
    ADDED_KEY,
    COUNT_KEY,
    ENTRIES_KEY,
    ORDER_KEY,
    ItemEntry,
    decode_entry,
    encode_entry,
    is_too_much,
    merged,
)
from service.state.item_store import ITEMS_PAGE, ItemChange, ItemOutcome, ItemsCursor, ItemsLook
from service.state.redis.clients import OnRedis
from service.state.redis.scripts import ITEMS_MARK, lua_script

SCRIPT = lua_script("items")
COLLECT_SCRIPT = lua_script("collect_items")
TRIES = 20

TAKEN, TOO_MANY, TOO_LARGE = 1, -1, -2
_OUTCOMES: dict[int, ItemOutcome] = {TAKEN: "accepted", TOO_MANY: "too_many", TOO_LARGE: "too_large"}

_log = structlog.get_logger("service")


class _Prepared(NamedTuple):
    """An entry as it was read, and the entry to write."""

    item_id: str
    expected: bytes  # b"" for none
    entry: bytes
    added: bool
    too_large: bool  # so that it is not written


class RedisItemStore(OnRedis):
    """The `ItemStore` in Redis, on the client with the long timeout: no recommendation waits for it."""

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        return await self.clients.write_durably(partial(self._change, limit=limit), changes)

    async def items(self, after: ItemsCursor | None) -> ItemsLook:
        return await self.clients.write(self._look(after))

    async def collect_items(self, doomed: Mapping[str, ItemEntry]) -> int:
        return await self.clients.write(self._collect(doomed))

    async def _prepare(self, changes: Sequence[ItemChange]) -> list[_Prepared]:
        """Merges changes of distinct items with their stored entries."""
        if not changes:
            return []
        found = await self.clients.writes.hmget(ENTRIES_KEY, [change.item_id for change in changes])
        return [_prepared(change, known) for change, known in zip(changes, found, strict=True)]

    async def _write(self, prepared: Sequence[_Prepared], *, limit: int) -> list[int]:
        """Writes entries; returns per item 1 written, 0 changed meanwhile, −1 too many, −2 too large."""
        answers = [TOO_LARGE if item.too_large else 0 for item in prepared]
        written = [index for index, answer in enumerate(answers) if not answer]
        if not written:
            return answers
        arguments: list[Any] = [limit, secrets.token_hex(8)]
        for item in (prepared[index] for index in written):
            arguments += [item.item_id, item.expected, item.entry, "1" if item.added else ""]
        keys = [ENTRIES_KEY, ORDER_KEY, COUNT_KEY, ADDED_KEY]
        found: list[int] = await self.clients.scripts.run_one(SCRIPT, (len(keys), [*keys, *arguments]))
        await self.clients.scripts.confirm_one(ITEMS_MARK)
        for index, answer in zip(written, found, strict=True):
            answers[index] = answer
        return answers

    async def _change(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        """Stores changes in their order; changes of the same item are written one after the other."""
        outcomes: list[ItemOutcome] = ["unavailable"] * len(changes)
        waiting, tries = list(range(len(changes))), TRIES
        while waiting and tries:
            first_changes = _first_of_each([changes[index].item_id for index in waiting])
            batch = [waiting[position] for position in first_changes[:ITEMS_PAGE]]
            answers = await self._write(await self._prepare([changes[index] for index in batch]), limit=limit)
            for index, answer in zip(batch, answers, strict=True):
                if answer:
                    outcomes[index] = _OUTCOMES[answer]
                    waiting.remove(index)
            tries = TRIES if any(answers) else tries - 1
        return outcomes

    async def _look(self, after: ItemsCursor | None) -> ItemsLook:
        """Returns the entries that changed after the cursor, or all of them."""
        client = self.clients.writes
        counting, last = await client.hmget(COUNT_KEY, ["id", "n"])
        if counting is None:
            return ItemsLook(None, {}, whole=True)
        whole = after is None or after.counting != counting
        start = 0 if after is None or whole else after.last
        counting.decode("ascii")
        entries: dict[str, ItemEntry] = {}
        num_foreign = 0
        if start >= int(last or 0):
            return ItemsLook(ItemsCursor(counting, start), entries, whole)
        while True:
            page = await self.clients.writes.zrangebyscore(
                ORDER_KEY, f"({start}", "+inf", start=0, num=ITEMS_PAGE, withscores=True
            )
            ids = [member for member, _ in page]
            found = await client.hmget(ENTRIES_KEY, ids) if ids else []
            for item_id, entry in zip(ids, found, strict=True):
                if entry is None:  # collected meanwhile
                    continue
                try:
                    entries[item_id.decode()] = decode_entry(entry)
                except (StoreError, UnicodeDecodeError):
                    num_foreign += 1  # the item stays as it is in the release
            if page:
                start = int(page[-1][1])
            if len(page) < ITEMS_PAGE:
                if num_foreign:
                    _log.warning("foreign_item_entries", count=num_foreign)
                return ItemsLook(ItemsCursor(counting, start), entries, whole)

    async def _collect(self, doomed: Mapping[str, ItemEntry]) -> int:
        """Removes entries that have not changed since they were read."""
        names, count = list(doomed), 0
        for start in range(0, len(names), ITEMS_PAGE):
            arguments = [
                part for name in names[start : start + ITEMS_PAGE] for part in (name, encode_entry(doomed[name]))
            ]
            call = (3, [ENTRIES_KEY, ORDER_KEY, ADDED_KEY, *arguments])
            count += int(await self.clients.scripts.run_one(COLLECT_SCRIPT, call))
        return count


def _prepared(change: ItemChange, known: bytes | None) -> _Prepared:
    before = decode_entry(known) if known else None
    after = merged(before, change.fields, change.at)
    return _Prepared(change.item_id, known or b"", encode_entry(after), change.added, is_too_much(before, after))


def _first_of_each(names: Sequence[str]) -> list[int]:
    """Returns the index of the first occurrence of every name."""
    indices: dict[str, int] = {}
    for index, name in enumerate(names):
        indices.setdefault(name, index)
    return list(indices.values())
