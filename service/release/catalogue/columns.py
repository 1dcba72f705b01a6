"""Reads all lines of `items.jsonl` into columns, twenty times as fast as one line after the other.

It decodes stretches of lines with msgspec and keeps no object of an item. A stretch that msgspec refuses, or whose
refusal it could miss, is read line by line by `read_item`: a file is accepted or refused exactly as there (a test
compares the two). What differs is known: msgspec skips texts of fields that it does not need without a look at their
encoding, and has no limit of nested levels of its own.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from isrf.contract.errors import BundleError
from isrf.contract.item_changes import AVAILABLE, HIDDEN
from isrf.contract.item_fields import MAX_PRICE, FieldError
from isrf.contract.manifest import ITEMS_FILE
from isrf.method.interest import BoolArray, IntArray
from isrf.runtime.bundle.contents import Content
from isrf.runtime.bundle.refusals import PUBLISH
from service.release.catalogue.lines import ItemLine, read_item
from service.release.conditions.attributes import ItemFields

_LINES_AT_ONCE = 512
"""Their objects fit into a core's cache, which halves the time."""
_BYTES_AT_ONCE = 1 << 24
_DEEP = 150
"""Opening brackets of a line from which on `read_item` judges its levels; pydantic allows 200."""


class ItemColumns(NamedTuple):
    """Columns of N items."""

    ids: Sequence[str]  # (N,)
    categories: Mapping[str, IntArray]  # the rows of each category's items, ascending
    prices: NDArray[np.float64]  # (N,) NaN where unknown
    offered: BoolArray  # (N,) whether an item may be recommended
    group_ids: Sequence[str | None]  # (N,) the product that an item is a variant of


class ItemLines(NamedTuple):
    """The bytes of `items.jsonl` and where its lines begin."""

    content: Content
    starts: NDArray[np.int64]  # (N + 1,) line n is content[starts[n] : starts[n + 1]]

    @classmethod
    def of(cls, content: Content) -> "ItemLines":
        pieces = range(0, len(content), _BYTES_AT_ONCE)
        ends = [np.flatnonzero(content[at : at + _BYTES_AT_ONCE] == ord("\n")) + at + 1 for at in pieces]
        starts = np.concatenate([np.zeros(1, np.int64), *ends])
        return cls(content, starts if starts[-1] == len(content) else np.append(starts, len(content)))

    def line(self, row: int) -> bytes:
        return self.content[self.starts[row] : self.starts[row + 1]].tobytes()


class _Item(Protocol):
    """What a column reads of an item."""

    @property
    def item_id(self) -> str: ...
    @property
    def categories(self) -> list[str]: ...
    @property
    def price(self) -> float | None: ...
    @property
    def group_id(self) -> str | None: ...
    @property
    def offered(self) -> bool: ...


class _Flags(msgspec.Struct, gc=False):
    available: bool | None = None
    hidden: bool | None = None


_Price = Annotated[float, msgspec.Meta(ge=0, le=MAX_PRICE)]


class _QuickLine(msgspec.Struct, gc=False):
    """`ItemLine` as the columns need it."""

    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: list[str] = []
    price: _Price | None = None
    group_id: str | None = None
    feature: str | None = None
    metadata: _Flags | None = None
    available: bool = True
    hidden: bool = False

    @property
    def offered(self) -> bool:
        flags = self.metadata
        if flags is None:
            return self.available and not self.hidden
        available = self.available if flags.available is None else flags.available
        return available and not (self.hidden if flags.hidden is None else flags.hidden)


class _QuickFields(msgspec.Struct, gc=False):
    """`ItemLine` as the columns of conditions need it (`service.release.conditions.attributes`)."""

    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: list[str] = []
    price: _Price | None = None
    group_id: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"null")
    is_available: bool = msgspec.field(default=True, name="available")

    @property
    def available(self) -> bool:
        found = self._metadata().get(AVAILABLE)
        return self.is_available if found is None else bool(found)

    def own_fields(self) -> dict[str, Any]:
        return {name: value for name, value in self._metadata().items() if name not in (AVAILABLE, HIDDEN)}

    def _metadata(self) -> dict[str, Any]:
        found: dict[str, Any] | None = orjson.loads(bytes(self.metadata))
        return found or {}


_lines: "msgspec.json.Decoder[_QuickLine]" = msgspec.json.Decoder(_QuickLine)
_fields: "msgspec.json.Decoder[_QuickFields]" = msgspec.json.Decoder(_QuickFields)


def read_columns(lines: ItemLines) -> ItemColumns:
    """The columns of all items.

    Raises:
        BundleError: `bundle.items`, a line cannot be read; the message has its number.
    """
    builder = _Builder()
    for stretch in _stretches(lines, _lines):
        builder.add(stretch)
    return builder.columns()


def each_item(lines: ItemLines) -> Iterator[ItemFields]:
    """The items with their attributes, in the order of their rows; the lines can all be read."""
    for stretch in _stretches(lines, _fields):
        yield from stretch


def columns_of(items: Sequence[ItemLine]) -> ItemColumns:
    """The columns of items that are objects already."""
    builder = _Builder()
    builder.add(items)
    return builder.columns()


class _Builder:
    """Collects the columns of one stretch of items after another."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._prices: list[NDArray[np.float64]] = [np.zeros(0)]
        self._offered: list[BoolArray] = [np.zeros(0, np.bool_)]
        self._group_ids: list[str | None] = []
        self._numbers: defaultdict[str, int] = defaultdict()  # of the categories
        self._numbers.default_factory = self._numbers.__len__
        self._pairs: list[IntArray] = [np.zeros(0, np.int64)]  # of a category's number and a row

    def add(self, items: Sequence[_Item]) -> None:
        first = len(self._ids)
        self._ids += [item.item_id for item in items]
        self._group_ids += [item.group_id for item in items]
        # None becomes NaN.
        self._prices.append(np.array([item.price for item in items], dtype=np.float64))
        self._offered.append(np.array([item.offered for item in items], dtype=np.bool_))
        categories = [item.categories for item in items]
        rows = np.repeat(np.arange(first, len(self._ids)), [len(names) for names in categories])
        numbers = map(self._numbers.__getitem__, (name for names in categories for name in names))
        self._pairs.append(np.fromiter(numbers, np.int64, len(rows)) << 32 | rows)

    def columns(self) -> ItemColumns:
        pairs = np.unique(np.concatenate(self._pairs))  # an item may name a category twice
        bounds = np.searchsorted(pairs, np.arange(len(self._numbers) + 1) << 32)
        rows = pairs & 0xFFFFFFFF
        return ItemColumns(
            ids=self._ids,
            categories={name: rows[bounds[number] : bounds[number + 1]] for name, number in self._numbers.items()},
            prices=np.concatenate(self._prices),
            offered=np.concatenate(self._offered),
            group_ids=self._group_ids,
        )


def _stretches(lines: ItemLines, decoder: Any) -> Iterator[Sequence[Any]]:
    starts = lines.starts
    for first in range(0, len(starts) - 1, _LINES_AT_ONCE):
        part = starts[first : first + _LINES_AT_ONCE + 1]
        content = lines.content[part[0] : part[-1]].tobytes()
        found = _quickly(content, part, decoder)
        yield list(_one_by_one(lines, first, len(part) - 1)) if found is None else found


def _quickly(content: bytes, starts: NDArray[np.int64], decoder: Any) -> Sequence[Any] | None:
    """The items of a stretch; None where `read_item` must judge it."""
    if int(np.diff(starts).max()) > _DEEP and any(
        line.count(b"[") + line.count(b"{") > _DEEP for line in content.split(b"\n")
    ):
        return None
    try:
        if not content.isascii():
            content.decode()
        found: list[Any] = decoder.decode_lines(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if len(found) == len(starts) - 1 else None  # msgspec skips blank lines


def _one_by_one(lines: ItemLines, first: int, count: int) -> Iterator[ItemLine]:
    for number in range(first + 1, first + count + 1):
        try:
            yield read_item(lines.line(number - 1))
        except ValidationError as error:
            message = error.errors(include_input=False, include_url=False)[0]["msg"]
            raise BundleError("bundle.items", f"{ITEMS_FILE} line {number}: {message}.", fix=PUBLISH) from None
        except FieldError as error:
            message = f"{ITEMS_FILE} line {number}: {error.field} {error}."
            raise BundleError("bundle.items", message, fix=PUBLISH) from None
