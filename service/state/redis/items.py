"""Changes of items in Redis: one hash of entries, numbered as they come, so that every replica reads what is new.

Fields are merged here and written by compare-and-set; whoever was slower reads again. It knows no release: what an
entry means beside one is `service.release.item_changes`.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

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
from service.state.redis.scripts import ITEMS_MARK, Scripts, lua_script

SCRIPT = lua_script("items")
COLLECT_SCRIPT = lua_script("collect_items")
PAGE = 500
TRIES = 20

TAKEN, TOO_MANY, TOO_LARGE = 1, -1, -2

_log = structlog.get_logger("service")

ItemOutcome = Literal["accepted", "too_many", "too_large", "unavailable"]


_OUTCOMES: dict[int, ItemOutcome] = {TAKEN: "accepted", TOO_MANY: "too_many", TOO_LARGE: "too_large"}


class ItemChange(NamedTuple):
    """What the shop says of one item now; fields that are left out stay as they are."""

    item_id: str
    fields: Mapping[str, Any]
    at: float  # seconds
    added: bool  # no release that is served has it


class Prepared(NamedTuple):
    """An entry as it was read and as it shall be."""

    item_id: str
    expected: bytes  # b"" for none
    entry: bytes
    added: bool
    too_large: bool  # not to be written


class ItemsCursor(NamedTuple):
    counting: bytes  # another one: the store was emptied, everything known of it is void
    last: int


class ItemsLook(NamedTuple):
    """What changed since a cursor; `whole` where that is everything there is."""

    cursor: ItemsCursor | None  # None: nothing was ever said
    entries: dict[str, ItemEntry]
    whole: bool


class ItemStates:
    """Behind one client, which may be slow: nobody's recommendation waits for it."""

    def __init__(self, client: Any, scripts: Scripts) -> None:
        self._client, self._scripts = client, scripts

    async def prepare(self, changes: Sequence[ItemChange]) -> list[Prepared]:
        """Merges distinct items' changes with what is there."""
        if not changes:
            return []
        found = await self._client.hmget(ENTRIES_KEY, [change.item_id for change in changes])
        return [_prepared(change, known) for change, known in zip(changes, found, strict=True)]

    async def write(self, prepared: Sequence[Prepared], *, limit: int) -> list[int]:
        """Per item 1 taken, 0 changed meanwhile, −1 too many, −2 too large."""
        answers = [TOO_LARGE if one.too_large else 0 for one in prepared]
        written = [place for place, answer in enumerate(answers) if not answer]
        if not written:
            return answers
        arguments: list[Any] = [limit, secrets.token_hex(8)]
        for one in (prepared[place] for place in written):
            arguments += [one.item_id, one.expected, one.entry, "1" if one.added else ""]
        keys = [ENTRIES_KEY, ORDER_KEY, COUNT_KEY, ADDED_KEY]
        found: list[int] = await self._scripts.run_one(SCRIPT, (len(keys), [*keys, *arguments]))
        await self._scripts.confirm_one(ITEMS_MARK)
        for place, answer in zip(written, found, strict=True):
            answers[place] = answer
        return answers

    async def change(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        """Takes changes in, in their order; several of one item are one after the other."""
        outcomes: list[ItemOutcome] = ["unavailable"] * len(changes)
        waiting, tries = list(range(len(changes))), TRIES
        while waiting and tries:
            turn = first_of_each([changes[place].item_id for place in waiting])
            places = [waiting[at] for at in turn[:PAGE]]
            answers = await self.write(await self.prepare([changes[place] for place in places]), limit=limit)
            for place, answer in zip(places, answers, strict=True):
                if answer:
                    outcomes[place] = _OUTCOMES[answer]
                    waiting.remove(place)
            tries = TRIES if any(answers) else tries - 1
        return outcomes

    async def look(self, after: ItemsCursor | None) -> ItemsLook:
        """Every entry that changed after the cursor, or all of them."""
        counting, last = await self._client.hmget(COUNT_KEY, ["id", "n"])
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
            page = await self._client.zrangebyscore(ORDER_KEY, f"({start}", "+inf", start=0, num=PAGE, withscores=True)
            ids = [member for member, _ in page]
            found = await self._client.hmget(ENTRIES_KEY, ids) if ids else []
            for item_id, entry in zip(ids, found, strict=True):
                if entry is None:  # collected meanwhile
                    continue
                try:
                    entries[item_id.decode()] = decode_entry(entry)
                except (StoreError, UnicodeDecodeError):
                    num_foreign += 1  # the item stays as the release has it
            if page:
                start = int(page[-1][1])
            if len(page) < PAGE:
                if num_foreign:
                    _log.warning("foreign_item_entries", count=num_foreign)
                return ItemsLook(ItemsCursor(counting, start), entries, whole)

    async def collect(self, doomed: Mapping[str, ItemEntry]) -> int:
        """Takes out entries that have not changed since they were read."""
        names, count = list(doomed), 0
        for start in range(0, len(names), PAGE):
            arguments = [part for name in names[start : start + PAGE] for part in (name, encode_entry(doomed[name]))]
            call = (3, [ENTRIES_KEY, ORDER_KEY, ADDED_KEY, *arguments])
            count += int(await self._scripts.run_one(COLLECT_SCRIPT, call))
        return count


def _prepared(change: ItemChange, known: bytes | None) -> Prepared:
    before = decode_entry(known) if known else None
    after = merged(before, change.fields, change.at)
    return Prepared(change.item_id, known or b"", encode_entry(after), change.added, is_too_much(before, after))


def first_of_each(names: Sequence[str]) -> list[int]:
    """The first place of every name."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        places.setdefault(name, place)
    return list(places.values())
