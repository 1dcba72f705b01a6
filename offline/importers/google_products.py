"""Google's product feed, RSS 2.0, Atom or tab-separated text: items.

A feed is streamed: an item's element is forgotten once the item is read. Document types are refused, because their
entities can make a small file endless.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat

from isrf.contract.errors import DataError
from isrf.contract.shown import shown
from offline.importers.importer import ImportedItem
from offline.importers.report import ImportReport
from offline.importers.rows import Table, first_character, table_rows
from offline.importers.values import RIGHT_PRICE, read_money
from offline.reading.files import open_bytes
from offline.reading.lines import first_line

NAMESPACE = "http://base.google.com/ns/1.0"
AVAILABLE = {
    "in_stock": True,
    "preorder": True,
    "backorder": True,
    "limited_availability": True,
    "out_of_stock": False,
}
ATTRIBUTES = (
    "link", "image_link", "color", "size", "material", "pattern", "gender", "age_group", "condition", "gtin", "mpn",
    *(f"custom_label_{number}" for number in range(5)),
)  # fmt: skip
OURS = (
    "id", "title", "description", "brand", "product_type", "google_product_category", "price", "sale_price",
    "sale_price_effective_date", "availability", "item_group_id",
)  # fmt: skip
MAX_TEXT = 1 << 20
"""Characters of one value that are looked at; each of ours has a lower limit."""
MAX_ELEMENT = 4 << 20
"""Bytes of a tag or a comment. The parser reads an unfinished one anew with each chunk: its time is their square."""
_CHUNK = 1 << 16
_ITEMS = ("item", "entry")
Values = Mapping[str, str]

FEED = Table(
    "Google's product feeds",
    {name: (name, name.replace("_", " ")) for name in (*OURS, *ATTRIBUTES)},
    ("id", "title", "availability"),
)


class GoogleProducts:
    """Reads product feeds for Google Merchant Center."""

    name = "google-products"
    description = "the catalogue from a product feed for Google Merchant Center"
    reads = "XML (RSS 2.0 or Atom), or tab-separated text; also with .gz"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[ImportedItem]:
        currency = ""
        for part, path in enumerate(files):
            rows = _xml_rows(path, part, report) if first_character(path) == "<" else _text_rows(path, part, report)
            for line, values in rows:
                item = _item(line, values, report)
                if item is None:
                    continue
                other = item.fields.pop("currency", None) or currency
                currency = currency or other
                if other != currency:
                    right = f"one currency in the whole feed, as in its first price: {currency}"
                    report.refuse("other_currency", line, shown(other), right=right)
                    continue
                yield item


def _text_rows(path: Path, part: int, report: ImportReport) -> Iterator[tuple[int, Values]]:
    for line, row in table_rows(path, part, report, [FEED]).rows:
        yield line, {name: text for name, text in row.items() if text}


def _xml_rows(path: Path, part: int, report: ImportReport) -> Iterator[tuple[int, Values]]:
    feed = _Feed()
    base, found = first_line(part), 0
    try:
        with open_bytes(path) as file:
            while chunk := file.read(_CHUNK):
                feed.parse(chunk)
                for line, values in feed.take():
                    report.num_rows, found = report.num_rows + 1, found + 1
                    yield base + line, values
            feed.parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise DataError(
            "import.xml",
            f"{path} is no XML that can be read: {error}.",
            fix="Export the feed again; `xmllint --noout FILE` checks it.",
        ) from None
    except (ValueError, LookupError) as error:  # an encoding of several bytes, or one that Python does not know
        raise DataError(
            "import.xml",
            f"{path} cannot be decoded: {error}.",
            fix="Save the feed as UTF-8, also in the encoding that its first line names.",
        ) from None
    except _LongElementError:
        raise DataError(
            "import.xml",
            f"{path} has one tag or comment of more than {MAX_ELEMENT >> 20} MiB.",
            fix="Export the feed without it.",
        ) from None
    except _DocumentTypeError:
        raise DataError(
            "import.document_type",
            f"{path} has a document type (<!DOCTYPE), whose entities can be endless; a feed needs none.",
            fix="Export the feed without it.",
        ) from None
    if not found:
        raise DataError(
            "import.no_items",
            f"{path} has no element <item> or <entry>.",
            fix="Give a product feed in RSS 2.0 or Atom.",
        )


class _DocumentTypeError(Exception):
    pass


class _LongElementError(Exception):
    pass


class _Feed:
    """Collects the values of the items that a parser comes to."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._document_type
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self._depth = 0  # inside an item: 1 for the item, 2 for its values
        self._line = 0
        self._values: dict[str, str] = {}
        self._plain: dict[str, str] = {}  # of elements outside Google's namespace
        self._pieces: list[str] = []
        self._size = 0
        self._num_bytes = 0
        self._done: list[tuple[int, Values]] = []

    def parse(self, chunk: bytes) -> None:
        """Reads the next bytes of the feed."""
        self.parser.Parse(chunk, False)
        self._num_bytes += len(chunk)
        if self._num_bytes - self.parser.CurrentByteIndex > MAX_ELEMENT:
            raise _LongElementError

    def take(self) -> list[tuple[int, Values]]:
        """The items that have ended since the last call, with their lines."""
        done, self._done = self._done, []
        return done

    def _document_type(self, *_: Any) -> None:
        raise _DocumentTypeError

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if self._depth:
            self._depth += 1
        elif local in _ITEMS and namespace != NAMESPACE:
            self._depth, self._line = 1, self.parser.CurrentLineNumber
            self._values, self._plain = {}, {}
        if self._depth == 2:
            self._pieces, self._size = [], 0
            if local == "link" and "href" in attributes:  # of Atom
                self._pieces = [attributes["href"]]

    def _text(self, text: str) -> None:
        if self._depth == 2 and self._size < MAX_TEXT:
            self._pieces.append(text)
            self._size += len(text)

    def _end(self, name: str) -> None:
        if self._depth == 2:
            namespace, _, local = name.rpartition(" ")
            text = "".join(self._pieces).strip()
            values = self._values if namespace == NAMESPACE else self._plain
            if text and (local in OURS or local in ATTRIBUTES):
                values.setdefault(local, text)
        elif self._depth == 1:
            self._done.append((self._line, {**self._plain, **self._values}))
        self._depth = max(self._depth - 1, 0)


def _item(line: int, first: Values, report: ImportReport) -> ImportedItem | None:
    """The item of an element or a row, with its currency; None for one that cannot be read."""
    fields: dict[str, Any] = {name: first[name] for name in ("title", "description", "brand") if name in first}
    fields["item_id"] = first.get("id")
    if "item_group_id" in first:
        fields["group_id"] = first["item_group_id"]
    category = first.get("product_type") or first.get("google_product_category", "")
    if category and not category.isdigit():  # a number of Google's list of categories is no name
        fields["categories"] = [name.strip() for name in category.split(">")]
    if "availability" in first:
        word = first["availability"].casefold().replace(" ", "_")
        if word not in AVAILABLE:
            report.refuse("bad_available", line, shown(first["availability"]), right=", ".join(AVAILABLE))
            return None
        fields["available"] = AVAILABLE[word]
    for name in ("price", "sale_price"):
        if name not in first:
            continue
        money = read_money(first[name])
        if money is None:
            report.refuse("bad_price", line, shown(first[name]), right=RIGHT_PRICE)
            return None
        fields[name] = money.amount
        currency = fields.setdefault("currency", money.currency) or money.currency
        if money.currency not in ("", currency):
            right = f"one currency in an item, as in its price: {currency}"
            report.refuse("other_currency", line, shown(money.currency), right=right)
            return None
        fields["currency"] = currency
    if "sale_price" in fields and "sale_price_effective_date" not in first:
        fields["list_price"], fields["price"] = fields.get("price"), fields.pop("sale_price")
    fields |= {name: first[name] for name in ATTRIBUTES if name in first}
    return ImportedItem(line, fields)
