"""Changes of items in Redis: one hash of entries, numbered as they come, so that every replica reads what is new.

Fields are merged here and written by compare-and-set; whoever was slower reads again. It knows no release: what an
entry means beside one is `service.release.item_changes`.
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
    """An entry as it was read and as it shall be."""

    item_id: str
    expected: bytes  # b"" for none
    entry: bytes
    added: bool
    too_large: bool  # not to be written


class RedisItemStore(OnRedis):
    """The `ItemStore`: behind the client that may be slow, nobody's recommendation waits for it."""

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        return await self.clients.write_durably(partial(self._change, limit=limit), changes)

    async def items(self, after: ItemsCursor | None) -> ItemsLook:
        return await self.clients.write(self._look(after))

    async def collect_items(self, doomed: Mapping[str, ItemEntry]) -> int:
        return await self.clients.write(self._collect(doomed))

    async def _prepare(self, changes: Sequence[ItemChange]) -> list[_Prepared]:
        """Merges distinct items' changes with what is there."""
        if not changes:
            return []
        found = await self.clients.writes.hmget(ENTRIES_KEY, [change.item_id for change in changes])
        return [_prepared(change, known) for change, known in zip(changes, found, strict=True)]

    async def _write(self, prepared: Sequence[_Prepared], *, limit: int) -> list[int]:
        """Per item 1 taken, 0 changed meanwhile, −1 too many, −2 too large."""
        answers = [TOO_LARGE if one.too_large else 0 for one in prepared]
        written = [place for place, answer in enumerate(answers) if not answer]
        if not written:
            return answers
        arguments: list[Any] = [limit, secrets.token_hex(8)]
        for one in (prepared[place] for place in written):
            arguments += [one.item_id, one.expected, one.entry, "1" if one.added else ""]
        keys = [ENTRIES_KEY, ORDER_KEY, COUNT_KEY, ADDED_KEY]
        found: list[int] = await self.clients.scripts.run_one(SCRIPT, (len(keys), [*keys, *arguments]))
        await self.clients.scripts.confirm_one(ITEMS_MARK)
        for place, answer in zip(written, found, strict=True):
            answers[place] = answer
        return answers

    async def _change(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        """Takes changes in, in their order; several of one item are one after the other."""
        outcomes: list[ItemOutcome] = ["unavailable"] * len(changes)
        waiting, tries = list(range(len(changes))), TRIES
        while waiting and tries:
            turn = _first_of_each([changes[place].item_id for place in waiting])
            places = [waiting[at] for at in turn[:ITEMS_PAGE]]
            answers = await self._write(await self._prepare([changes[place] for place in places]), limit=limit)
            for place, answer in zip(places, answers, strict=True):
                if answer:
                    outcomes[place] = _OUTCOMES[answer]
                    waiting.remove(place)
            tries = TRIES if any(answers) else tries - 1
        return outcomes

    async def _look(self, after: ItemsCursor | None) -> ItemsLook:
        """Every entry that changed after the cursor, or all of them."""
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
                    num_foreign += 1  # the item stays as the release has it
            if page:
                start = int(page[-1][1])
            if len(page) < ITEMS_PAGE:
                if num_foreign:
                    _log.warning("foreign_item_entries", count=num_foreign)
                return ItemsLook(ItemsCursor(counting, start), entries, whole)

    async def _collect(self, doomed: Mapping[str, ItemEntry]) -> int:
        """Takes out entries that have not changed since they were read."""
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
    """The first place of every name."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        places.setdefault(name, place)
    return list(places.values())
